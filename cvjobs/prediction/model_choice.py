"""What a choice of model comes to on this machine, recorded so that a later run on the same output need not load it."""

from __future__ import annotations

import contextlib
import os
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import lru_cache
from typing import Any, ClassVar, Generic, Self, TypeVar, cast

import pyarrow as pa

from cvjobs.common import devices
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.common.fingerprint import facts, installed
from cvjobs.common.progress import during
from cvjobs.dataset import schema
from cvjobs.images.transform import Decode, Decoder, Transform, Truncated
from cvjobs.networks import licences, local_copies, registry
from cvjobs.networks.detection.settings import Settings
from cvjobs.networks.licences import Licence
from cvjobs.networks.registry import Model
from cvjobs.prediction.engine.task import PictureStep, Step
from cvjobs.prediction.placement import HERE, Placement
from cvjobs.storage.object_store import address
from cvjobs.storage.storage_options import Options

Loaded = TypeVar("Loaded", bound=Model)
_LIBRARIES = {"hf": ("transformers",), "onnx": ("onnxruntime",)}  # by family, beside those of all


@dataclass(frozen=True, kw_only=True)
class ModelRequest(ABC, Generic[Loaded]):
    """What a task asks for: a model by name and its weights (``pretrained``, ``random`` or a file), and more by task.

    A task's own class says how the model is found, and which step a found model becomes.
    """

    task: ClassVar[str]  # that ``registry.names`` lists the models of
    model: str
    weights: str

    @classmethod
    def load(cls, values: dict[str, Any]) -> Self:
        """Return the request that JSON values describe; raises TypeError for values of another shape."""
        kept: dict[str, Any] = {n: tuple(v) if isinstance(v, list) else v for n, v in values.items()}
        return cls(**kept)

    def recorded(self) -> dict[str, Any]:
        """Return the request as JSON types; the form is kept, for earlier outputs hold it."""
        return facts(self)

    @abstractmethod
    def find(self) -> Loaded:
        """Return the model, on the CPU; raises WrongUse where there is none."""

    @abstractmethod
    def step(self, model: Loaded, network: Any, record: ModelRecord) -> Step | PictureStep:
        """Return the model as a step that computes with a network: its own, or one that stands for that."""

    def completed(self, record: ModelRecord, model: Loaded) -> ModelRecord:
        """Return the record with what this task keeps of a model besides its facts."""
        del model
        return record

    def results(self, record: ModelRecord) -> pa.Schema:
        """Return the fields that the step adds to a row."""
        return schema.of_task(record.facts)


@dataclass(frozen=True, kw_only=True)
class RuledRequest(ModelRequest[Loaded]):
    """A model with the names of its classes, where they are given, and the user's choices of what it looks for."""

    labels: tuple[str, ...]
    settings: Settings

    @classmethod
    def load(cls, values: dict[str, Any]) -> Self:
        """See ``ModelRequest``."""
        return super().load({**values, "settings": Settings(**values["settings"])})


@dataclass(frozen=True, kw_only=True)
class WeightsFile:
    """What tells whether a file of weights is still the one that was hashed; ``modified`` in ns since 1970.

    Of some models there are more files ``beside`` it that change results; then the bytes are those of all, and the
    newest counts.
    """

    path: str
    bytes: int
    modified: int
    beside: tuple[str, ...] = ()

    @classmethod
    def of(cls, path: str, beside: Sequence[str] = ()) -> WeightsFile:
        """Return the state of a file and those beside it; one that is not there has 0 bytes."""
        states = []
        for each in (path, *beside):
            with contextlib.suppress(OSError):
                states.append(os.stat(each))
        return cls(
            path=path,
            bytes=sum(state.st_size for state in states),
            modified=max((state.st_mtime_ns for state in states), default=0),
            beside=tuple(beside),
        )

    @classmethod
    def of_model(cls, model: Model) -> WeightsFile:
        """Return the state of the files of a model."""
        return cls.of(model.file, getattr(model, "beside", ()))

    @classmethod
    def load(cls, record: dict[str, Any]) -> WeightsFile:
        """Return what ``as_dict`` made a record of; raises TypeError for one of another shape."""
        return cls(**{**record, "beside": tuple(record.get("beside", ()))})

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON types; of a single file in the form that earlier outputs hold."""
        made = asdict(self)
        beside = list(made.pop("beside"))
        return {**made, "beside": beside} if beside else made


@dataclass(frozen=True, kw_only=True)
class ModelRecord:
    """A resolved choice of model; small and picklable, JSON in an output's snapshot.

    ``facts`` are the model's own; ``dim`` is the length of an embedder's vectors, ``top`` the number of classes that
    ``classify`` keeps of an image.
    """

    asked: ModelRequest[Any]
    device: str
    versions: dict[str, str]
    file: WeightsFile
    facts: Mapping[str, Any]
    transform: Transform
    precision: str
    dim: int | None = None
    top: int | None = None

    @classmethod
    def load(cls, record: dict[str, Any], request: type[ModelRequest[Any]]) -> ModelRecord | None:
        """Return the record that ``as_dict`` made, for a class of request; None for one of another shape."""
        try:
            asked = dict(record["asked"])
            found = cls(
                device=asked.pop("device"),
                versions=asked.pop("versions"),
                asked=request.load(asked),
                file=WeightsFile.load(record["file"]),
                facts=record["facts"],
                transform=Transform.load(record["transform"]),
                precision=record["precision"],
                dim=record.get("dim"),
                top=record.get("top"),
            )
            return found if found.as_dict() == record else None
        except (AttributeError, KeyError, TypeError, ValueError):
            return None

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types; the form is kept, for earlier outputs hold it."""
        sizes = {name: size for name, size in (("dim", self.dim), ("top", self.top)) if size is not None}
        return {
            "asked": {**self.asked.recorded(), "device": self.device, "versions": self.versions},
            "file": self.file.as_dict(),
            "facts": dict(self.facts),
            "transform": self.transform.record(),
            "precision": self.precision,
            **sizes,
        }

    @property
    def identity(self) -> dict[str, Any]:
        """What makes two runs' results the same: model, weights by content, preprocessing, precision and so on.

        Library versions and the device are recorded elsewhere; they are no part of it.
        """
        named = {name: value for name, value in self.facts.items() if name != "weights"}
        scaled = {"scaled_decode": "twice the target"} if self.transform.size else {}
        kept = {} if self.top is None else {"top": self.top}
        return {**named, "transform": self.transform.record(), **scaled, "precision": self.precision, **kept}

    @property
    def title(self) -> str:
        """The choice as a person reads it."""
        return f"{self.facts['model']} ({self.facts['weights']}, {self.precision})"


@dataclass(frozen=True)
class TaskSpec:
    """A resolved choice of model as a job's step; travels to workers and loads the model there.

    A model in a bucket is reached with the options ``storage``. ``licence`` is what results are marked with.
    """

    record: ModelRecord
    storage: Options = field(default_factory=dict, repr=False, compare=False)
    licence: Licence = field(default=licences.UNSAID, compare=False)

    @property
    def device(self) -> str:
        """``cpu`` or ``cuda``."""
        return self.record.device

    def placed(self, placement: Placement) -> TaskSpec:
        """See ``Resolved``."""
        device = _device(self.record.asked, placement)
        return self if device == self.record.device else replace(self, record=replace(self.record, device=device))

    @property
    def transform(self) -> Transform:
        """How pixels reach the model."""
        return self.record.transform

    @property
    def results(self) -> pa.Schema:
        """The fields that the step adds to a row."""
        return self.record.asked.results(self.record)

    @property
    def facts(self) -> dict[str, Any]:
        """What identifies the results."""
        return self.record.identity

    @property
    def title(self) -> str:
        """The model as a person reads it."""
        return self.record.title

    def as_dict(self) -> dict[str, Any]:
        """Return the record for the next run on the same output, as JSON types."""
        return self.record.as_dict()

    def open(self) -> Step | PictureStep:
        """See ``Opener``; raises JobFailed where the weights are not those that the run began with."""
        return self.around(self.network())

    def network(self) -> Any:
        """See ``Separable``; raises as ``open``."""
        model: Any = self._model()
        return model.load(devices.torch_name(self.record.device), self.record.precision)

    def around(self, network: Any) -> Step | PictureStep:
        """See ``Separable``; raises as ``open``."""
        return self.record.asked.step(self._model(), network, self.record)

    def _model(self) -> Model:
        _check_memory(self.record.asked.model)
        with local_copies.reached_with(self.storage):
            model: Model = self.record.asked.find()
        for part in ("weights", "settings"):
            if model.facts.get(f"{part}_sha256") != self.record.facts.get(f"{part}_sha256"):
                raise JobFailed(
                    f"The {part} of {model.name} differ between this machine and the driver: make them equal."
                )
        return model


@during("looking up the model")
def resolve(
    request: ModelRequest[Any],
    precision: str,
    earlier: dict[str, Any],
    truncated: Truncated = "fail",
    bits: int | None = None,
    decode: Decode = "auto",
    *,
    placement: Placement = HERE,
    accepted: Sequence[str] = (),
) -> TaskSpec:
    """Return what a request comes to, on this machine or where it is placed.

    ``earlier`` is the record (as JSON) of an earlier run on the same output, empty for a new one: it is taken where
    the same was asked for, from the same file and library versions, so that a run with nothing to do loads no model;
    a precision of "auto" means what it meant then, and files become pixels by the rules of then, also with the
    ``bits`` of then where none are given. ``truncated`` is what becomes of pictures that are cut short, as in the
    transform. ``decode`` is what decodes JPEGs: auto is what it was then, and the processor for a new output.
    ``accepted`` are the names of licences that may forbid something.

    Raises:
        WrongUse: there is no such model, or it cannot do what is asked, or there is no GPU to decode with; or the
            licence of its weights forbids something, is not accepted, and nothing was begun with them.
    """
    request = replace(request, model=registry.settled(request.model))
    licence = registry.accepted(request.model, request.task, request.weights, accepted, begun=bool(earlier))
    versions = _versions(request.model)
    known = ModelRecord.load(earlier, type(request))
    # A cluster is only asked for its device where that is needed.
    elsewhere = placement.link is not None and known is not None and decode != "gpu"
    device = known.device if elsewhere and known is not None else _device(request, placement)
    if decode == "gpu" and device == "cpu":
        raise WrongUse("--decode gpu needs a model on a CUDA GPU, and there is none: use --decode cpu.")
    if known is not None:
        same = (known.asked, known.device, known.versions) == (request, device, versions)
        same = same and bits in (None, known.transform.bits)
        same = same and known.transform.truncated == truncated
        same = same and decode in ("auto", known.transform.decoder)
        if same and _is_current(request.model, known.file) and precision in ("auto", known.precision):
            return TaskSpec(known, local_copies.options(), licence)
        if precision == "auto":
            precision = known.precision
    _check_memory(request.model)
    model: Model = request.find()
    transform = replace(model.transform, bits=bits or model.transform.bits)
    if earlier:
        transform = model.transform.like(earlier.get("transform"), bits)
    record = ModelRecord(
        asked=request,
        device=device,
        versions=versions,
        file=WeightsFile.of_model(model),
        facts=dict(model.facts),
        transform=replace(transform, truncated=truncated, decoder=_decoder(decode, transform)),
        precision=_precision(precision, request, placement, device),
    )
    return TaskSpec(request.completed(record, model), local_copies.options(), licence)


def _is_current(model: str, known: WeightsFile) -> bool:
    """Return whether a model's file is still the one that was hashed; of a run in a bucket its newest version."""
    file = os.path.join(local_copies.run_folder(model), local_copies.RUN_MODEL) if address(model) else known.path
    return known == WeightsFile.of(file, known.beside)


def _precision(asked: str, request: ModelRequest[Any], placement: Placement, device: str) -> str:
    """Return what a precision comes to; raises WrongUse for one that the file of a model has decided."""
    if request.model.partition("/")[0] not in registry.OWN_PRECISION:
        return placement.precision(asked, device)
    if asked not in ("auto", "fp32"):
        raise WrongUse(f"{request.model} computes in what it was exported in: leave out --precision.")
    return "fp32"


def _device(request: ModelRequest[Any], placement: Placement) -> str:
    return "cpu" if request.model.partition("/")[0] in registry.WITHOUT_GPU else placement.device


def _decoder(decode: Decode, transform: Transform) -> Decoder:
    """Return what decodes; raises WrongUse where a GPU is asked for that has no such filter."""
    if decode == "gpu" and transform.interpolation == "lanczos":
        raise WrongUse("--decode gpu resizes without the filter of this model (lanczos): use --decode cpu.")
    if decode == "gpu" and transform.grey_bits > 8:
        raise WrongUse("--decode gpu resizes to whole numbers, unlike this model's own processor: use --decode cpu.")
    return transform.decoder if decode == "auto" else decode


def _check_memory(model: str) -> None:
    """Raise WrongUse where a control group has no memory for the libraries that a model needs."""
    if model.partition("/")[0] not in registry.WITHOUT_GPU and "torch" not in sys.modules:
        devices.check_memory(devices.libraries(model=True), f"Starting {model}")


def once(make: Callable[..., Loaded], name: str, **options: Hashable) -> Loaded:
    """Return ``make(name, **options)``, from memory where it was the last that was made.

    The driver needs the model's facts before a worker in the same process loads it. One whose files changed since is
    made anew.
    """
    model, files = _made(make, name, **options)
    if files != WeightsFile.of_model(model):
        _made.cache_clear()
        model, _ = _made(make, name, **options)
    return cast(Loaded, model)


@lru_cache(maxsize=1)
def _made(make: Callable[..., Model], name: str, **options: Hashable) -> tuple[Model, WeightsFile]:
    model = make(name, **options)
    return model, WeightsFile.of_model(model)


def _versions(model: str) -> dict[str, str]:
    """Return the versions of the libraries that a model's numbers depend on."""
    own = _LIBRARIES.get(model.partition("/")[0], ())
    return {name: installed(name) for name in ("torch", "torchvision", "timm", *own)}
