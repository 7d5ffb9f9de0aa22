"""ONNX files for tests: tiny graphs made node by node, and what they give for an image by themselves."""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
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
    session = session_of(path)
    found: list[NDArray[Any]] = session.run(None, {name: images})
    return found


@dataclass(frozen=True)
class Rows:
    """An output (batch, cells, channels): convolutions of the images as wide as their strides, one after the other.

    ``grow`` is their deviation, ``bias`` is added; ``end`` is Sigmoid, Softmax or ArgMax of the
    channels, Score the largest Sigmoid, Count the largest ArgMax of all cells; ``split`` channels are before it.
    ``first``: (batch, channels, cells). ``apart``: an output a stride.
    """

    channels: int
    bias: float | Sequence[float] = 0.0
    grow: float | Sequence[float] | NDArray[Any] = 1.0
    end: str = ""
    split: int = 0
    first: bool = False
    apart: bool = False


def detector(
    path: Path,
    made: Mapping[str, Rows],
    *,
    strides: Sequence[int] = (8, 16, 32),
    batch: int | str = "batch",
    size: tuple[int | str, int | str] = ("height", "width"),
    inputs: Mapping[str, Shape] | None = None,
    protos: int = 0,
) -> Path:
    """Write a detector of that (height, width) with outputs ``made`` of convolutions, and ``output1`` of prototypes."""
    nodes: list[Any] = []
    constants: dict[str, NDArray[Any]] = {}
    outputs: dict[str, Shape] = {}
    kinds: dict[str, int] = {}
    for name, rows in made.items():
        each = []
        for stride in strides:
            each.append(f"{name}_{stride}")
            more, own = _level(each[-1], stride, rows)
            nodes += more
            constants |= own
        ends = each if rows.apart else [name]
        if not rows.apart:
            nodes.append(helper.make_node("Concat", each, [f"{name}.all"], axis=1))
            more, own = _ended(name, rows)
            nodes += more
            constants |= own
        for one in ends:
            whole = rows.end in ("ArgMax", "Count")
            outputs[one] = [None, None] if whole or rows.end == "Score" else [None, None, None]
            kinds |= {one: TensorProto.INT64} if whole else {}
    if protos:
        nodes.append(helper.make_node("Conv", ["images", "protos"], ["output1"], strides=[4, 4]))
        constants["protos"] = np.random.default_rng(9).normal(0, 1, (protos, 3, 4, 4)).astype("float32")
        outputs["output1"] = [None, protos, None, None]
    given: dict[str, Shape] = {"images": [batch, 3, *size], **(inputs or {})}
    kinds |= dict.fromkeys(inputs or {}, TensorProto.INT64)
    return saved(path, nodes, given, outputs, constants, kinds=kinds)


def _level(name: str, stride: int, rows: Rows) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    random = np.random.default_rng(zlib.crc32(name.encode()))
    weight = random.normal(0, 3 / stride, (rows.channels, 3, stride, stride))
    weight = (weight * np.broadcast_to(np.asarray(rows.grow), rows.channels)[:, None, None, None]).astype("float32")
    bias = np.broadcast_to(np.asarray(rows.bias, "float32"), (rows.channels,)).copy()
    shape = np.array([0, rows.channels, -1], np.int64)
    nodes = [
        helper.make_node("Conv", ["images", f"{name}.w", f"{name}.b"], [f"{name}.map"], strides=[stride, stride]),
        helper.make_node("Reshape", [f"{name}.map", f"{name}.s"], [f"{name}.flat"]),
        helper.make_node("Transpose", [f"{name}.flat"], [name], perm=[0, 2, 1]),
    ]
    return nodes, {f"{name}.w": weight, f"{name}.b": bias, f"{name}.s": shape}


def _ended(name: str, rows: Rows) -> tuple[list[Any], dict[str, NDArray[Any]]]:
    nodes: list[Any] = []
    constants: dict[str, NDArray[Any]] = {}
    now = f"{name}.all"
    if rows.end in ("ArgMax", "Count"):
        nodes.append(helper.make_node("ArgMax", [now], [f"{name}.index"], axis=2, keepdims=0))
        now = f"{name}.index"
        if rows.end == "Count":
            nodes.append(helper.make_node("ReduceMax", [now], [f"{name}.ended"], axes=[1], keepdims=1))
            now = f"{name}.ended"
    elif rows.end == "Score":
        nodes.append(helper.make_node("Sigmoid", [now], [f"{name}.likely"]))
        nodes.append(helper.make_node("ReduceMax", [f"{name}.likely"], [f"{name}.ended"], axes=[2], keepdims=0))
        now = f"{name}.ended"
    elif rows.end:
        if rows.split:
            constants[f"{name}.split"] = np.array([rows.split, rows.channels - rows.split], np.int64)
            nodes.append(helper.make_node("Split", [now, f"{name}.split"], [f"{name}.before", f"{name}.after"], axis=2))
        nodes.append(helper.make_node(rows.end, [f"{name}.after" if rows.split else now], [f"{name}.likely"]))
        now = f"{name}.likely"
        if rows.split:
            nodes.append(helper.make_node("Concat", [f"{name}.before", now], [f"{name}.ended"], axis=2))
            now = f"{name}.ended"
    if rows.first:
        nodes.append(helper.make_node("Transpose", [now], [name], perm=[0, 2, 1]))
    else:
        nodes.append(helper.make_node("Identity", [now], [name]))
    return nodes, constants


def outputs(path: Path, feeds: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
    """What onnxruntime itself gives, by name."""
    session = session_of(path)
    return dict(zip([value.name for value in session.get_outputs()], session.run(None, dict(feeds)), strict=True))


def session_of(path: Path) -> Any:
    """Onnxruntime's session of a file, which says nothing."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    return onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
