"""An ONNX file before anything runs it: its inputs and outputs, its digest, and whether it may be opened at all.

It may name other files, which hold its tensors, and operators that are code of others. Only tensors in its own folder
are opened, and only operators that onnxruntime brings.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from cvjobs.common import devices
from cvjobs.common.errors import WrongUse, limit
from cvjobs.common.formatting import shortened
from cvjobs.networks import weights as files

# Of ONNX itself, and what onnxruntime was built with. An EPContext names a compiled engine in a file of its own.
_DOMAINS = ("", "ai.onnx", "ai.onnx.ml", "com.microsoft", "com.microsoft.nchwc", "com.ms.internal.nhwc")
_REFUSED = ("EPContext",)
_THROUGH = ("Identity", "Cast", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Transpose")  # change no number
_DTYPES = re.compile("bool|float(16|32|64)|u?int(8|16|32|64)")  # those that numpy has, too
_MOST_NODES = 1_000_000
AGAIN = "copy or download it again, or export it anew"


@dataclass(frozen=True)
class Value:
    """An input or output: its name, its numpy type such as ``float32``, and its shape, None where that is open."""

    name: str
    kind: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        """Return the name and the shape as people write it."""
        return f"{self.name} ({' × '.join('?' if side is None else str(side) for side in self.shape)})"


@dataclass(frozen=True)
class OnnxFile:
    """What a file says of itself.

    ``sha256`` is that of the file, or of the digests of the file and of those that hold its tensors. ``ends`` has the
    operator by which each output is made, such as ``Softmax``; ``also`` are the files that hold its tensors.
    """

    path: Path
    sha256: str
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    metadata: Mapping[str, str]
    ends: Mapping[str, str] = field(repr=False)
    also: tuple[Path, ...] = ()


def read(path: Path) -> OnnxFile:
    """Return what an ONNX file holds, without running anything or loading tensors from other files.

    Raises:
        WrongUse: there is no such file, it is none of ONNX or damaged, it has operators that onnxruntime does not
            bring, or tensors outside of its folder or in files that are not there or too short.
    """
    if not path.is_file():
        what = "is a folder" if path.is_dir() else "is not there"
        raise WrongUse(f"The ONNX file {path} {what}: name a file with --model onnx/FILE.onnx.")
    size = path.stat().st_size
    devices.check_memory(2 * size, f"The ONNX file {path}", "use a smaller model, or raise the limit")
    digest = files.from_file(path).sha256
    model = _parsed(path)
    _check_operators(model, path)
    also = _external(model, path)
    if also:
        parts = [digest, *(files.from_file(place).sha256 for place in also)]
        digest = hashlib.sha256("".join(parts).encode()).hexdigest()
    graph = model.graph
    held = {tensor.name for tensor in graph.initializer} | {tensor.values.name for tensor in graph.sparse_initializer}
    made = {name: node for node in graph.node for name in node.output}
    return OnnxFile(
        path=path,
        sha256=digest,
        inputs=tuple(_value(one, path) for one in graph.input if one.name not in held),
        outputs=_outputs(graph, path),
        metadata={entry.key: entry.value for entry in model.metadata_props},
        ends={one.name: _end(one.name, made) for one in graph.output},
        also=also,
    )


def _parsed(path: Path) -> Any:
    import onnx

    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except Exception as error:
        if reached := limit(error):
            raise reached from error
        model = None
    if model is None or not model.ir_version or not model.graph.output or not model.graph.input:
        raise WrongUse(f"{path} is no ONNX model, or only the beginning of one: {AGAIN}.")
    return model


def _check_operators(model: Any, path: Path) -> None:
    own = {function.domain for function in model.functions}
    for node in _nodes(model):
        if node.op_type in _REFUSED or node.domain not in (*_DOMAINS, *own):
            name = shortened(f"{node.domain}.{node.op_type}" if node.domain else node.op_type)
            raise WrongUse(
                f"{path} has the operator {name}, which is code outside of the file that cvjobs does not load: export "
                "the model with operators of ONNX alone."
            )


def _nodes(model: Any) -> Iterator[Any]:
    """Yield the nodes of a model, also those within others and in its functions."""
    waiting = [model.graph.node, *(function.node for function in model.functions)]
    seen = 0
    while waiting:
        for node in waiting.pop():
            seen += 1
            if seen > _MOST_NODES:
                raise WrongUse(f"The model has over {_MOST_NODES:,} operators: export a smaller one.")
            yield node
            for attribute in node.attribute:
                graphs = [*attribute.graphs, *([attribute.g] if attribute.HasField("g") else [])]
                waiting += [graph.node for graph in graphs]


def _tensors(model: Any) -> Iterator[Any]:
    """Yield every tensor that a model holds."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        yield from graph.initializer
        for sparse in graph.sparse_initializer:
            yield from (sparse.values, sparse.indices)
        for node in graph.node:
            graphs += _within(node)
            yield from _held(node)
    for function in model.functions:
        for node in function.node:
            yield from _held(node)


def _within(node: Any) -> list[Any]:
    return [
        graph
        for attribute in node.attribute
        for graph in (*attribute.graphs, *([attribute.g] if attribute.HasField("g") else []))
    ]


def _held(node: Any) -> Iterator[Any]:
    for attribute in node.attribute:
        if attribute.HasField("t"):
            yield attribute.t
        yield from attribute.tensors


def _external(model: Any, path: Path) -> tuple[Path, ...]:
    """Return the files of tensors that a model names, checked, in the order of their names."""
    folder = path.absolute().parent
    found: dict[str, Path] = {}
    for tensor in _tensors(model):
        if tensor.data_location != 1:  # EXTERNAL
            continue
        said = {entry.key: entry.value for entry in tensor.external_data}
        name = said.get("location", "")
        place = found.get(name) or _inside(folder, name, path)
        found[name] = place
        end = _number(said.get("offset", "0")) + _number(said.get("length", "0"))
        if place.stat().st_size < end:
            raise WrongUse(f"The file {place} with tensors of {path} is too short: {AGAIN}, with all its files.")
    return tuple(found[name] for name in sorted(found))


def _inside(folder: Path, name: str, path: Path) -> Path:
    parts = name.replace("\\", "/").split("/")
    real = Path(os.path.realpath(folder / name)) if name and "\0" not in name else folder
    if not name or os.path.isabs(name) or ".." in parts or not real.is_relative_to(os.path.realpath(folder)):
        raise WrongUse(
            f"{path} keeps tensors in {shortened(name)!r}, outside of its folder, where cvjobs opens none: put all "
            "files of the model into one folder, without links out of it."
        )
    if not os.path.isfile(real):
        raise WrongUse(
            f"{path} keeps tensors in {folder / shortened(name)}, which is not there: copy that file beside it."
        )
    return folder / name


def _number(text: str) -> int:
    return int(text) if text.isascii() and text.isdigit() else 0


def _outputs(graph: Any, path: Path) -> tuple[Value, ...]:
    """Return the outputs that are tensors of numbers; what else there is, such as names of classes, is left aside."""
    found = []
    for one in graph.output:
        with suppress(WrongUse):
            found.append(_value(one, path))
    numbers = tuple(value for value in found if _DTYPES.fullmatch(value.kind))
    if not numbers:
        raise WrongUse(f"{path} gives no tensor of numbers: export a model that does.")
    return numbers


def _value(one: Any, path: Path) -> Value:
    import onnx

    kind = one.type.tensor_type
    if not one.type.HasField("tensor_type") or not kind.elem_type:
        raise WrongUse(f"{path} takes or gives {shortened(one.name)!r}, which is no tensor: export one with tensors.")
    dtype = str(onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type))
    sides = kind.shape.dim if kind.HasField("shape") else ()
    shape = tuple(side.dim_value if side.HasField("dim_value") and side.dim_value >= 0 else None for side in sides)
    return Value(one.name, dtype, shape)


def _end(name: str, made: Mapping[str, Any]) -> str:
    """Return the operator that makes an output, without those that change no number."""
    for _ in range(len(made)):
        node = made.get(name)
        if node is None:
            return ""
        if node.op_type not in _THROUGH or not node.input:
            return str(node.op_type)
        name = node.input[0]
    return ""
