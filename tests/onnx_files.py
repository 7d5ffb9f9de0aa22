"""ONNX files for tests: tiny graphs made node by node, and what they give for an image by themselves."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

TYPES = {"float32": TensorProto.FLOAT, "float16": TensorProto.FLOAT16, "uint8": TensorProto.UINT8}
Shape = Sequence[int | str | None]


def saved(
    path: Path,
    nodes: Sequence[Any],
    inputs: Mapping[str, Shape],
    outputs: Mapping[str, Shape],
    constants: Mapping[str, NDArray[Any]],
    *,
    kinds: Mapping[str, int] | None = None,
    metadata: Mapping[str, str] | None = None,
) -> Path:
    """Write a graph as an ONNX file; ``kinds`` are the types of inputs and outputs that are not float32."""
    kinds = kinds or {}

    def values(shapes: Mapping[str, Shape]) -> list[Any]:
        return [
            helper.make_tensor_value_info(name, kinds.get(name, TensorProto.FLOAT), list(shape))
            for name, shape in shapes.items()
        ]

    held = [numpy_helper.from_array(array, name) for name, array in constants.items()]
    graph = helper.make_graph(list(nodes), "test", values(inputs), values(outputs), held)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if metadata:
        helper.set_model_props(model, dict(metadata))
    onnx.save(model, str(path))
    return path


def vectors(
    path: Path,
    *,
    batch: int | str | None = "batch",
    size: tuple[int | str, int | str] = (32, 32),
    kind: str = "float32",
    layout: str = "NCHW",
    end: str = "",
    dim: int = 5,
    metadata: Mapping[str, str] | None = None,
    seed: int = 0,
) -> Path:
    """Write a convolution, the mean over the image and, with ``end``, Softmax or Sigmoid: (batch, dim) ``scores``."""
    random = np.random.default_rng(seed)
    dtype = "float16" if kind == "float16" else "float32"
    constants: dict[str, NDArray[Any]] = {
        "weight": random.normal(0, 1, (dim, 3, 3, 3)).astype(dtype),
        "bias": random.normal(0, 1, dim).astype(dtype),
    }
    shape: list[int | str | None] = [batch, 3, *size] if layout == "NCHW" else [batch, *size, 3]
    now, nodes = "images", []
    if kind == "uint8":
        nodes.append(helper.make_node("Cast", [now], ["floats"], to=TensorProto.FLOAT))
        constants["scale"] = np.array(1 / 255, "float32")
        nodes.append(helper.make_node("Mul", ["floats", "scale"], ["scaled"]))
        now = "scaled"
    if layout == "NHWC":
        nodes.append(helper.make_node("Transpose", [now], ["turned"], perm=[0, 3, 1, 2]))
        now = "turned"
    nodes.append(helper.make_node("Conv", [now, "weight", "bias"], ["map"], strides=[2, 2]))
    nodes.append(helper.make_node("Relu", ["map"], ["positive"]))
    nodes.append(helper.make_node("GlobalAveragePool", ["positive"], ["mean"]))
    nodes.append(helper.make_node("Flatten", ["mean"], ["flat" if end else "scores"]))
    if end:
        nodes.append(helper.make_node(end, ["flat"], ["scores"]))
    kinds = {"images": TYPES[kind], "scores": TYPES[dtype]}
    return saved(path, nodes, {"images": shape}, {"scores": [batch, dim]}, constants, kinds=kinds, metadata=metadata)


def alone(path: Path, images: NDArray[Any], name: str = "images") -> list[NDArray[Any]]:
    """What onnxruntime itself gives for an array as it is."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    found: list[NDArray[Any]] = session.run(None, {name: images})
    return found
