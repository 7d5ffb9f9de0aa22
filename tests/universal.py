"""Small segmenters of transformers in folders, and what transformers itself says of an image with each."""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import transformers
from numpy.typing import NDArray
from PIL import Image

from cvjobs.networks.hf import loading

CLASSES = 5
KINDS = ("segformer", "dpt", "mask2former", "oneformer", "eomt", "eomt_dinov3")
OBJECTS = ("mask2former", "oneformer", "eomt_dinov3")
WIDTH = 32
TINY = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 16}
EOMT = {**TINY, "image_size": 64, "patch_size": 8, "num_blocks": 1, "num_queries": 7, "num_upscale_blocks": 1}
DECODER = {
    "num_queries": 7,
    "hidden_dim": WIDTH,
    "encoder_feedforward_dim": 16,
    "dim_feedforward": 16,
    "encoder_layers": 1,
    "decoder_layers": 3,
    "num_attention_heads": 2,
}
EDGES = {"shortest_edge": 64, "longest_edge": 128}


def folder(kind: str, root: Path, names: list[str] | None = None) -> Path:
    """A model of that kind with its image processor, as ``save_pretrained`` leaves them; the same one each time."""
    place = root / kind
    place.mkdir(parents=True, exist_ok=True)
    named = dict(enumerate(names or [f"class {i}" for i in range(CLASSES)]))
    with torch.random.fork_rng(devices=[]), loading.quiet():
        torch.manual_seed(4)
        model, processor = MADE[kind](place, {"id2label": named, "label2id": {v: k for k, v in named.items()}})
        _opinionated(model)
        if kind in ("mask2former", "oneformer"):
            _divided(settled(model.eval()))
        model.eval().save_pretrained(place)
        processor.save_pretrained(place)
    return place


def _opinionated(model: Any) -> None:
    """Random numbers have no opinion: those of the classes and of the masks are made larger."""
    ends = (
        *("class_predictor.weight", "class_embed.weight", "classifier.weight", "head.4.weight", "query.weight"),
        *("queries_features.weight", "mask_embedder.2.0.weight", "mask_embed.layers.2.0.weight"),
    )
    for name, tensor in model.named_parameters():
        if name.endswith(ends):
            tensor.data *= 40
        elif name.endswith("mask_head.fc3.weight"):
            tensor.data *= 400


def _divided(model: Any) -> None:
    """Queries that all name one class are made to differ."""
    with torch.no_grad():
        told = {"task_inputs": torch.arange(16)[None]} if hasattr(model.config, "task_seq_len") else {}
        said = model(pixel_values=torch.randn(1, 3, 64, 64), **told).class_queries_logits[0, :, :-1]
        for name, tensor in model.named_parameters():
            if name.endswith(("class_predictor.bias", "class_embed.bias")):
                tensor[:-1] -= said.mean(0)


def _swin() -> Any:
    stages = [f"stage{n}" for n in range(1, 5)]
    return transformers.SwinConfig(
        embed_dim=16, depths=[1, 1, 1, 1], num_heads=[1, 1, 2, 2], window_size=4, image_size=64, out_features=stages
    )


def _segformer(place: Path, named: Any) -> Any:
    config = transformers.SegformerConfig(
        depths=[1, 1, 1, 1],
        hidden_sizes=[8, 8, 16, 16],
        num_attention_heads=[1, 1, 1, 1],
        decoder_hidden_size=16,
        **named,
    )
    del place
    processor = transformers.SegformerImageProcessor(size={"height": 64, "width": 96}, do_reduce_labels=True)
    return transformers.SegformerForSemanticSegmentation(config), processor


def _dpt(place: Path, named: Any) -> Any:
    sizes = {"neck_hidden_sizes": [8, 8, 8, 8], "fusion_hidden_size": 8, "backbone_out_indices": [0, 1, 2, 3]}
    config = transformers.DPTConfig(**{**TINY, "num_hidden_layers": 4}, image_size=64, **sizes, **named)
    del place
    processor = transformers.DPTImageProcessor(size={"height": 64, "width": 64}, ensure_multiple_of=32)
    return transformers.DPTForSemanticSegmentation(config), processor


def _mask2former(place: Path, named: Any) -> Any:
    config = transformers.Mask2FormerConfig(
        backbone_config=_swin(), feature_size=WIDTH, mask_feature_size=WIDTH, **DECODER, **named
    )
    del place
    processor = transformers.Mask2FormerImageProcessor(size=EDGES, size_divisor=32)
    return transformers.Mask2FormerForUniversalSegmentation(config), processor


def _oneformer(place: Path, named: Any) -> Any:
    config = transformers.OneFormerConfig(
        backbone_config=_swin(),
        mask_dim=WIDTH,
        conv_dim=WIDTH,
        task_seq_len=16,
        is_training=True,
        text_encoder_width=64,
        text_encoder_num_layers=1,
        text_encoder_vocab_size=100,
        text_encoder_context_length=16,
        max_seq_len=16,
        **DECODER,
        **named,
    )
    things = {str(i): {"name": name, "isthing": i < 3} for i, name in named["id2label"].items()}
    (place / "things.json").write_text(json.dumps(things))
    _vocabulary(place)
    processor = transformers.OneFormerImageProcessor(
        size=EDGES, repo_path=str(place), class_info_file="things.json", num_text=3
    )
    return transformers.OneFormerForUniversalSegmentation(config), processor


def _eomt(place: Path, named: Any) -> Any:
    del place
    processor = transformers.EomtImageProcessor(size={"shortest_edge": 64, "longest_edge": None}, do_split_image=True)
    return transformers.EomtForUniversalSegmentation(transformers.EomtConfig(**EOMT, **named)), processor


def _eomt_dinov3(place: Path, named: Any) -> Any:
    del place
    processor = transformers.EomtImageProcessor(size={"shortest_edge": 64, "longest_edge": 64}, do_pad=True)
    config = transformers.EomtDinov3Config(**EOMT, **named)
    return transformers.EomtDinov3ForUniversalSegmentation(config), processor


def _vocabulary(place: Path) -> None:
    """A vocabulary of CLIP's kind that has the words of a task."""
    letters = [chr(code) for code in range(ord("a"), ord("z") + 1)]
    known = dict.fromkeys([*letters, *(f"{letter}</w>" for letter in letters)])
    merges: dict[str, None] = {}
    for word in ("the", "task", "is", "semantic", "instance"):
        begun, *rest = [*word[:-1], f"{word[-1]}</w>"]
        for part in rest:
            merges[f"{begun} {part}"] = None
            begun += part
            known[begun] = None
    words = [*known, "<|startoftext|>", "<|endoftext|>"]
    (place / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(words)}))
    (place / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))


MADE: dict[str, Callable[[Path, Any], Any]] = {
    "segformer": _segformer,
    "dpt": _dpt,
    "mask2former": _mask2former,
    "oneformer": _oneformer,
    "eomt": _eomt,
    "eomt_dinov3": _eomt_dinov3,
}


class Reference:
    """A folder's model and processor, as transformers loads them, on each image alone."""

    def __init__(self, kind: str, place: Path) -> None:
        self._kind = kind
        with loading.quiet():
            self._processor = transformers.AutoImageProcessor.from_pretrained(place)
            self._model = loaded(kind, str(place))
            if kind == "oneformer":
                tokenizer = transformers.CLIPTokenizer.from_pretrained(place)
                self._processor = transformers.OneFormerProcessor(self._processor, tokenizer, task_seq_length=16)

    def _said(self, pixels: NDArray[np.uint8], task: str) -> Any:
        image = Image.fromarray(pixels)
        words = [[task]] if self._kind == "oneformer" else []
        with torch.no_grad(), loading.quiet():
            inputs = self._processor(image, *words, return_tensors="pt")
            return self._model(**inputs)

    def class_map(self, pixels: NDArray[np.uint8]) -> NDArray[Any]:
        said = self._said(pixels, "semantic")
        found = self._processor.post_process_semantic_segmentation(said, target_sizes=[pixels.shape[:2]])
        return np.asarray(found[0])

    def objects(self, pixels: NDArray[np.uint8], conf: float) -> tuple[list[tuple[float, int]], NDArray[Any]]:
        """The score and the class of each object, and a map of their numbers + 1; of Mask2Former a mask of each."""
        said = self._said(pixels, "instance")
        return self.read(said.class_queries_logits, said.masks_queries_logits, pixels.shape[:2], conf)

    def read(
        self, classes: torch.Tensor, masks: torch.Tensor, size: tuple[int, ...], conf: float
    ) -> tuple[list[tuple[float, int]], NDArray[Any]]:
        """The same of what queries said."""
        said = SimpleNamespace(class_queries_logits=classes, masks_queries_logits=masks)
        more = {"return_binary_maps": True} if self._kind == "mask2former" else {}
        (found,) = self._processor.post_process_instance_segmentation(said, threshold=conf, target_sizes=[size], **more)
        numbers = np.asarray(found["segmentation"])
        first = 1 if self._kind == "oneformer" else 0
        return [(one["score"], one["label_id"]) for one in found["segments_info"]], np.maximum(numbers + 1 - first, 0)


@lru_cache(maxsize=8)
def loaded(kind: str, place: str) -> Any:
    named = {
        "segformer": transformers.SegformerForSemanticSegmentation,
        "dpt": transformers.DPTForSemanticSegmentation,
        "mask2former": transformers.Mask2FormerForUniversalSegmentation,
        "oneformer": transformers.OneFormerForUniversalSegmentation,
        "eomt": transformers.EomtForUniversalSegmentation,
        "eomt_dinov3": transformers.EomtDinov3ForUniversalSegmentation,
    }
    return settled(named[kind].from_pretrained(place).eval())


def settled(model: Any) -> Any:
    """A OneFormer that drops no numbers out and asks for no texts, whatever its settings say."""
    for part in model.modules():
        if hasattr(part, "is_training"):
            part.is_training = False
    return model
