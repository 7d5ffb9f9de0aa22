"""`--format onnx`: a file that onnxruntime and `--model onnx/FILE` run, with its card in its metadata."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from cvjobs.common import extras
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.networks.onnx import vector_models
from cvjobs.networks.onnx.onnx_model import OnnxModel
from cvjobs.training.portable.portable_model import ELSE, INPUT, SAMPLE, PortableModel
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
        _clean(proto)
        for key, text in sorted(model.metadata().items()):
            proto.metadata_props.add(key=key, value=text)
        path.write_bytes(proto.SerializeToString(deterministic=True))


def _clean(proto: Any) -> None:
    """Take away what tells of the machine that it was made on, and give the open side its name."""
    graph = proto.graph
    del proto.metadata_props[:], graph.value_info[:], graph.metadata_props[:]
    graph.doc_string = ""
    for part in (*graph.node, *graph.input, *graph.output, *graph.initializer):
        del part.metadata_props[:]
        part.doc_string = ""
    for value in (*graph.input, *graph.output):
        first = value.type.tensor_type.shape.dim[0]
        if first.HasField("dim_param"):
            first.dim_param = "batch"


def check(model: PortableModel, path: Path) -> float:
    """Return by how much the file's outputs differ from torch's, of one image and of several.

    Raises:
        JobFailed: by too much, or `--model onnx/FILE` would prepare images or name classes in another way.
    """
    try:
        read, most = _READ[model.task](model, str(path)), 0.0
        for count in (1, SAMPLE):
            images = model.sample(SAMPLE)[:count]
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
        raise JobFailed(
            f"The classes of {model.run} are not read again as they are, for some begin or end with a space: choose "
            "--format pt2 or safetensors."
        )
    return _vectors(model, path)


# By task, what reads a file as `--model onnx/FILE` does, and refuses one that does not say what the run says.
_READ: dict[str, Callable[[PortableModel, str], OnnxModel]] = {"classify": _classes, "autoencoder": _vectors}
