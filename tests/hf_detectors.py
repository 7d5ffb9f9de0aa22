"""Tiny detectors of transformers with random weights, what its own processor makes of them, and pictures for them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cvjobs.networks.hf import loading
from cvjobs.networks.hf.repository import Repository, opened

CLASSES = 5
SIDE = 128
KINDS = ["rt_detr", "rt_detr_v2", "d_fine", "rf_detr", "lw_detr", "detr", "yolos"]
_RT: dict[str, Any] = {
    "encoder_hidden_dim": 32,
    "encoder_ffn_dim": 32,
    "encoder_attention_heads": 2,
    "encoder_in_channels": [16, 32],
    "feat_strides": [16, 32],
    "encode_proj_layers": [1],
    "num_feature_levels": 2,
    "decoder_in_channels": [32, 32],
    "decoder_layers": 2,
    "decoder_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "d_model": 32,
    "num_queries": 30,
    "num_denoising": 0,
}
_RESNET = {
    "model_type": "rt_detr_resnet",
    "embedding_size": 8,
    "hidden_sizes": [8, 8, 16, 32],
    "depths": [1, 1, 1, 1],
    "layer_type": "basic",
    "out_features": ["stage3", "stage4"],
}
_HGNET = {
    "model_type": "hgnet_v2",
    "stem_channels": [3, 8, 8],
    "stage_in_channels": [8, 8, 16, 16],
    "stage_mid_channels": [8, 8, 8, 8],
    "stage_out_channels": [8, 16, 16, 32],
    "stage_num_blocks": [1, 1, 1, 1],
    "stage_downsample": [False, True, True, True],
    "stage_light_block": [False, False, True, True],
    "stage_kernel_size": [3, 3, 5, 5],
    "stage_numb_of_layers": [1, 1, 1, 1],
    "hidden_sizes": [8, 16, 16, 32],
    "depths": [1, 1, 1, 1],
    "use_learnable_affine_block": True,
    "out_features": ["stage3", "stage4"],
}
_DINO = {
    "model_type": "rf_detr_dinov2",
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "patch_size": 16,
    "num_windows": 2,
    "out_features": ["stage2", "stage4"],
}
_VIT = {
    "model_type": "lw_detr_vit",
    "hidden_size": 32,
    "num_hidden_layers": 4,
    "num_attention_heads": 2,
    "image_size": SIDE,
    "pretrain_image_size": SIDE,
    "patch_size": 16,
    "num_windows": 4,
    "window_block_indices": [0, 2],
    "out_indices": [1, 3],
}
_GROUPS = {
    "d_model": 32,
    "decoder_layers": 2,
    "decoder_self_attention_heads": 2,
    "decoder_cross_attention_heads": 2,
    "decoder_ffn_dim": 32,
    "num_queries": 30,
    "group_detr": 2,
}
_SQUASH = {"size": {"height": SIDE, "width": SIDE}}
_SIDES = {"size": {"shortest_edge": 70, "longest_edge": 110}}
CONFIGS: dict[str, dict[str, Any]] = {
    "rt_detr": {**_RT, "backbone_config": _RESNET},
    "rt_detr_v2": {**_RT, "backbone_config": _RESNET, "decoder_n_levels": 2, "decoder_offset_scale": 0.3},
    "d_fine": {**_RT, "backbone_config": _HGNET, "decoder_n_points": [3, 3], "hidden_expansion": 0.5},
    "rf_detr": {**_GROUPS, "backbone_config": _DINO},
    "lw_detr": {**_GROUPS, "backbone_config": _VIT, "projector_scale_factors": [1.0]},
    "detr": {
        "backbone_config": {
            "model_type": "resnet",
            "embedding_size": 8,
            "hidden_sizes": [8, 8, 16, 32],
            "depths": [1, 1, 1, 1],
            "layer_type": "basic",
            "out_features": ["stage4"],
        },
        "d_model": 32,
        "encoder_layers": 1,
        "decoder_layers": 1,
        "encoder_attention_heads": 2,
        "decoder_attention_heads": 2,
        "encoder_ffn_dim": 32,
        "decoder_ffn_dim": 32,
        "num_queries": 30,
    },
    "yolos": {
        "hidden_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 32,
        "image_size": [64, 96],
        "num_detection_tokens": 30,
    },
}
GAINS = {"rt_detr": 2.0, "rt_detr_v2": 2.0, "detr": 2.0, "yolos": 2.0}
# The class of the processor that published models name, and its settings.
PROCESSORS: dict[str, tuple[str, dict[str, Any]]] = {
    "rt_detr": ("RTDetrImageProcessor", _SQUASH),
    "rt_detr_v2": ("RTDetrImageProcessor", _SQUASH),
    "d_fine": ("RTDetrImageProcessor", _SQUASH),
    "rf_detr": ("RfDetrImageProcessor", _SQUASH),
    "lw_detr": ("DeformableDetrImageProcessor", _SQUASH),
    "detr": ("DetrImageProcessor", _SIDES),
    "yolos": ("YolosImageProcessor", _SIDES),
}


def made(kind: str, folder: Path, masks: bool = False, config: Any = None, **processor: Any) -> Repository:
    """A repository of a tiny model in a folder: its weights are spread, so that its scores and boxes differ."""
    with loading.quiet():
        import transformers

        values = {**CONFIGS[kind], **(config or {})}
        architecture = "InstanceSegmentation" if masks else "ObjectDetection"
        made = transformers.AutoConfig.for_model(kind, **values, num_labels=CLASSES)
        torch.manual_seed(0)
        model = getattr(transformers, f"{_prefix(kind)}For{architecture}")(made).eval()
        spread(model, GAINS.get(kind, 1.2))
        model.save_pretrained(folder)
        name, settings = PROCESSORS[kind]
        getattr(transformers, name)(**{**settings, **processor}).save_pretrained(folder)
    return opened(str(folder))


def _prefix(kind: str) -> str:
    return {"rt_detr": "RTDetr", "rt_detr_v2": "RTDetrV2", "d_fine": "DFine"}.get(
        kind, "".join(part.capitalize() for part in kind.split("_"))
    )


def spread(model: torch.nn.Module, gain: float) -> None:
    """Give every parameter and running statistic values that matter, so much larger than what keeps numbers as wide."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for name, values in model.named_parameters():
            if values.ndim > 1:
                fan = values[0].numel() if "embedding" not in name else 1
                values.copy_(torch.randn(values.shape, generator=generator) * gain / fan**0.5)
            elif "bias" in name:
                values.copy_(torch.randn(values.shape, generator=generator) * 0.1)
        for name, held in model.named_buffers():
            if name.endswith("running_mean"):
                held.copy_(torch.randn(held.shape, generator=generator) * 0.1)
            elif name.endswith("running_var"):
                held.copy_(torch.rand(held.shape, generator=generator) * 0.3 + 0.1)


def pictures(sizes: Sequence[tuple[int, int]]) -> list[np.ndarray]:
    """Pictures of those sizes, uint8 (height, width, 3): colours that change, with noise."""
    found = []
    for seed, (height, width) in enumerate(sizes):
        random = np.random.default_rng(seed)
        waves = [np.sin(np.linspace(0, random.uniform(3, 20), n) + random.uniform(0, 6)) for n in (height, width)]
        plane = np.add.outer(waves[0], waves[1])[..., None] * random.uniform(20, 60, 3) + 128
        found.append((plane + random.normal(0, 25, (height, width, 3))).clip(0, 255).astype(np.uint8))
    return found


def own(repository: Repository, images: Sequence[np.ndarray], conf: float, masks: bool = False) -> list[dict[str, Any]]:
    """What transformers' own processor and model find in each image alone."""
    with loading.quiet(), torch.no_grad():
        import transformers

        assert repository.folder is not None
        made = transformers.AutoModelForInstanceSegmentation if masks else transformers.AutoModelForObjectDetection
        if masks:
            made = transformers.RfDetrForInstanceSegmentation
        model = made.from_pretrained(repository.folder).eval()
        processor = transformers.AutoImageProcessor.from_pretrained(repository.folder)
        found = []
        for image in images:
            outputs = model(**processor(images=image, return_tensors="pt", input_data_format="channels_last"))
            size = torch.tensor([image.shape[:2]])
            boxes = processor.post_process_object_detection(outputs, conf, size)[0]
            if masks:
                boxes |= processor.post_process_instance_segmentation(
                    outputs, conf, target_sizes=size.tolist(), return_binary_maps=True
                )[0]
            found.append(boxes)
    return found
