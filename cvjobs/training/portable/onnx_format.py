"""`--format onnx`: a file that onnxruntime and `--model onnx/FILE` run, with its card in its metadata."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cvjobs.common import extras
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.networks.families import training_run
from cvjobs.networks.onnx import box_models, class_map_models, vector_models
from cvjobs.networks.onnx.class_map_models import OnnxSegmenter
from cvjobs.networks.onnx.onnx_model import OnnxModel
from cvjobs.training.portable.portable_model import ELSE, INPUT, PortableModel
from cvjobs.training.portable.traced_program import faults, traced

_MOST = (1 << 31) - (1 << 20)  # bytes of a file in one piece


def write(model: PortableModel, path: Path) -> None:
    """Write the file.

    Raises:
        WrongUse: the extra ``onnx`` is not installed, or the model is too large for a file in one piece.
        JobFailed: torch cannot export it.
    """
    extras.load("onnx", "--format onnx")
    extras.load("onnx", "--format onnx", "onnxscript")
    if sum(tensor.numel() * tensor.element_size() for tensor in model.tensors.values()) > _MOST:
        raise WrongUse(f"{model.name} is larger than the 2 GB of an ONNX file in one piece: choose --format pt2.")
    program = traced(model, "onnx")
    with faults(model, "onnx"):
        found: Any = torch.onnx.export(
            program,
            (),
            input_names=[INPUT],
            output_names=list(model.outputs),
            dynamo=True,
            external_data=False,
            verbose=False,
        )
        proto = found.model_proto
        _clean(proto, model.open)
        for key, text in sorted(model.metadata().items()):
            proto.metadata_props.add(key=key, value=text)
        path.write_bytes(proto.SerializeToString(deterministic=True))


def _clean(proto: Any, named: Mapping[int, str]) -> None:
    """Take away what tells of the machine that it was made on, and give the open axes their names."""
    graph = proto.graph
    del proto.metadata_props[:], graph.value_info[:], graph.metadata_props[:]
    graph.doc_string = ""
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*graph.input, *graph.output):
        for axis, side in enumerate(value.type.tensor_type.shape.dim):
            if side.HasField("dim_param"):
                name = named.get(axis, "") if value in graph.input or axis == 0 else ""
                side.dim_param = name or f"{value.name}_{axis}"


def check(model: PortableModel, path: Path) -> float:
    """Return by how much the file's outputs differ from torch's, of one image and of several.

    Raises:
        JobFailed: by too much, or `--model onnx/FILE` would prepare images or name classes in another way.
    """
    try:
        read, most = _READ[model.task](model, str(path)), 0.0
        for images in model.samples():
            outputs = read.session.run(images, read.taken)
            most = max(most, model.compare(images, [outputs[name] for name in model.outputs]))
    except (WrongUse, RuntimeError) as error:
        raise JobFailed(f"The file cannot be read again ({str(error).rstrip('.')}): {ELSE}") from error
    return most


def _vectors(model: PortableModel, path: str) -> OnnxModel:
    read = vector_models.embedder(path, "pretrained", "")
    if replace(read.transform, decoder=model.transform.decoder) != model.transform:
        raise JobFailed(f"Images for {model.run} are prepared in a way that the file does not tell: {ELSE}")
    return read.model


def _classes(model: PortableModel, path: str) -> OnnxModel:
    read = vector_models.classifier(path, "pretrained", ())
    if (read.labels, read.activation) != (model.labels, model.card["activation"]):
        raise JobFailed(f"The classes of {model.run} are not read again as they are, for {_SPACES}")
    return _vectors(model, path)


def _boxes(model: PortableModel, path: str) -> OnnxModel:
    read = box_models.detector(path, "pretrained", ())
    names = [category.name for category in read.categories]
    _check_read(model, read.resolved, names, {"conf": read.rules.conf, "max_det": read.rules.max_det})
    return read.model


def _pixels(model: PortableModel, path: str) -> OnnxModel:
    read = class_map_models.segmenter(path, "pretrained", ())
    assert isinstance(read, OnnxSegmenter)
    if replace(read.transform, decoder=model.transform.decoder) != training_run.whole_pictures(model.transform):
        raise JobFailed(f"Images for {model.run} are prepared in a way that the file does not tell: {ELSE}")
    _check_read(model, read.resolved, [category.name for category in read.categories], {"size": read.model.side})
    return read.model


def _check_read(model: PortableModel, resolved: Mapping[str, Any], names: list[str], rules: Mapping[str, Any]) -> None:
    """Raise JobFailed where a file's card does not come to what the run's says."""
    found = {**resolved, **rules}
    if names != list(model.labels):
        raise JobFailed(f"The classes of {model.run} are not read again as they are, for {_SPACES}")
    plain = {key: list(value) if isinstance(value, tuple) else value for key, value in found.items()}
    told = {key: value for key, value in model.card.items() if key in plain and key not in ("output", "outputs", "iou")}
    if told != {key: plain[key] for key in told}:
        raise JobFailed(f"Images for {model.run} are prepared in a way that the file does not tell: {ELSE}")


_SPACES = "some begin or end with a space: choose --format pt2 or safetensors."
# By task, what reads a file as `--model onnx/FILE` does, and refuses one that does not say what the run says.
_READ: dict[str, Callable[[PortableModel, str], OnnxModel]] = {
    "classify": _classes,
    "autoencoder": _vectors,
    "detect": _boxes,
    "segment": _pixels,
}
