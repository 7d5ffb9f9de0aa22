"""A module as a program of torch.export: for what images it takes, each operation once, without the maker's paths.

The vectors of a classifier are mostly what its last layer takes. There they are caught, and the network is followed
once; else it is followed twice, and what both passes do is merged.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from cvjobs.common.errors import JobFailed, limit
from cvjobs.training.portable.portable_model import INPUT, PortableModel
from cvjobs.training.portable.portable_tasks import LogitsAndVectors


class CaughtVectors(nn.Module):
    """A classifier with what one of its modules takes, the features that its head makes logits of."""

    def __init__(self, classifier: nn.Module, head: str) -> None:
        super().__init__()
        self.classifier = classifier
        self._taken: list[Tensor] = []
        self.handle = classifier.get_submodule(head).register_forward_pre_hook(self._take)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Return logits (B, classes) and vectors (B, dim) of (B, 3, H, W) images."""
        self._taken.clear()
        logits = self.classifier(images)
        return logits, self._taken.pop()

    def _take(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:  # noqa: ARG002
        self._taken.append(inputs[0].flatten(1).clone())  # what follows may work in place on it


def traced(model: PortableModel, format_: str) -> Any:
    """Return the ``ExportedProgram`` of a model; ``format_`` is what it is for.

    Raises:
        JobFailed: torch cannot follow what the model does.
    """
    with faults(model, format_):
        module, head = model.module, _head(model)
        if not head:
            program = _followed(model, module)
            if isinstance(module, LogitsAndVectors):
                program = program.run_decompositions({})
                _merge(program)
        else:
            assert isinstance(module, LogitsAndVectors)
            caught = CaughtVectors(module.classifier, head).eval()
            try:
                program = _followed(model, caught)
            finally:
                caught.handle.remove()
        for node in program.graph.nodes:
            node.meta.pop("stack_trace", None)
    return program


def _followed(model: PortableModel, module: nn.Module) -> Any:
    # What sides must be is for torch to find out: a map of one row is followed in another way than one of two.
    axes = {axis: torch.export.Dim(name) if axis == 0 else torch.export.Dim.AUTO for axis, name in model.open.items()}
    return torch.export.export(module, (model.sample(model.most or 2),), dynamic_shapes={INPUT: axes}, strict=False)


def _head(model: PortableModel) -> str:
    """Return the module of a classifier that takes its vectors, empty where there is none that is called once."""
    if not isinstance(model.module, LogitsAndVectors):
        return ""
    images = model.sample(2)
    _, vectors = model.expected(images)
    calls: list[tuple[str, bool]] = []

    def note(name: str) -> Any:
        def seen(module: nn.Module, inputs: tuple[Any, ...]) -> None:  # noqa: ARG001
            first = inputs[0] if inputs else None
            same = isinstance(first, Tensor) and len(first) == len(vectors) and first.flatten(1).equal(vectors)
            calls.append((name, same))

        return seen

    classifier = model.module.classifier
    handles = [module.register_forward_pre_hook(note(name)) for name, module in classifier.named_modules() if name]
    try:
        with torch.inference_mode():
            classifier(images)
    finally:
        for handle in handles:
            handle.remove()
    often = [name for name, _ in calls]
    return next((name for name, same in reversed(calls) if same and often.count(name) == 1), "")


@contextmanager
def faults(model: PortableModel, format_: str) -> Iterator[None]:
    """Turn what exporters raise, which is anything, into one sentence, and keep them from printing."""
    loggers = [logging.getLogger(name) for name in ("torch", "torch.__trace", "onnxscript", "onnx_ir")]
    levels = [logger.level for logger in loggers]
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            for logger in loggers:
                logger.setLevel(logging.CRITICAL)
            yield
    except Exception as error:  # of any kind
        if reached := limit(error):
            raise reached from error
        reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise JobFailed(
            f"torch {torch.__version__} cannot export {model.name} as {format_} ({reason.rstrip('.:')[:300]}): choose "
            "--format safetensors, or another version of torch."
        ) from error
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _merge(program: Any) -> None:
    """Let each operation on the same values be done once; the program has no operation that changes a value."""
    graph, signature = program.graph_module.graph, program.graph_signature
    first: dict[tuple[str, str, str], Any] = {}
    held = {**signature.inputs_to_parameters, **signature.inputs_to_buffers}
    same: dict[int, Any] = {}
    for node in list(graph.nodes):
        if node.op == "placeholder" and node.name in held:
            tensor = program.state_dict.get(held[node.name])
            if tensor is not None and tensor.numel():
                known = same.setdefault(tensor.data_ptr(), node)
                if known is not node and known.meta["val"].shape == node.meta["val"].shape:
                    node.replace_all_uses_with(known)
        elif node.op == "call_function":
            known = first.setdefault((str(node.target), repr(node.args), repr(node.kwargs)), node)
            if known is not node and node.users:
                node.replace_all_uses_with(known)
                graph.erase_node(node)
    program.graph_module.recompile()
