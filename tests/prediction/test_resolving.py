"""Records of resolved models: those that earlier versions left are taken as they are, others are made anew."""

from __future__ import annotations

import importlib.metadata
import json
import pickle
from dataclasses import replace
from typing import Any

import pyarrow as pa
import pytest

from cvjobs.common import devices
from cvjobs.common.errors import JobFailed, WrongUse
from cvjobs.common.fingerprint import digest
from cvjobs.dataset.schema import SCHEMAS
from cvjobs.networks.detection.settings import Settings
from cvjobs.networks.precision import resolve_precision
from cvjobs.prediction.model_choice import ModelRecord, ModelRequest, TaskSpec, resolve
from cvjobs.prediction.tasks.classify import ClassifyRequest
from cvjobs.prediction.tasks.detect import DetectRequest
from cvjobs.prediction.tasks.embed import EmbedRequest

# The ``resolved`` of outputs of version 0.1.0, with ``weights`` that are nowhere (and three categories of each model):
# who takes such a record as it is has not looked for them.
RECORDS: dict[str, str] = {
    "embed": """{"asked": {"device": "cpu", "layer": "", "model": "torchvision/mobilenet_v2", "versions":
        {"timm": "1.0.31", "torch": "2.14.1", "torchvision": "0.29.2"}, "weights": "/nowhere"}, "dim": 1280, "facts":
        {"layer": "pooled", "model": "torchvision/mobilenet_v2", "weights": "random", "weights_sha256": "seed 0"},
        "file": {"bytes": 0, "modified": 0, "path": ""}, "precision": "fp32", "transform": {"fit": "short",
        "interpolation": "bilinear", "mean": [0.485, 0.456, 0.406], "resize": 232, "size": [224, 224],
        "std": [0.229, 0.224, 0.225]}}""",
    "classify": """{"asked": {"device": "cpu", "labels": ["a", "b", "c"], "model": "torchvision/mobilenet_v2", "top": 3,
        "versions": {"timm": "1.0.31", "torch": "2.14.1", "torchvision": "0.29.2"}, "weights": "/nowhere"}, "facts":
        {"activation": "softmax", "categories": [[0, "a"], [1, "b"], [2, "c"]], "model": "torchvision/mobilenet_v2",
        "task": "classify", "weights": "random", "weights_sha256": "seed 0"}, "file": {"bytes": 0, "modified": 0,
        "path": ""}, "precision": "fp32", "top": 3, "transform": {"fit": "short", "interpolation": "bilinear",
        "mean": [0.485, 0.456, 0.406], "resize": 232, "size": [224, 224], "std": [0.229, 0.224, 0.225]}}""",
    "detect": """{"asked": {"device": "cpu", "labels": [], "model": "torchvision/ssdlite320_mobilenet_v3_large",
        "settings": {"classes": "person,car", "conf": 0.1, "imgsz": null, "iou": null, "max_det": null,
        "nms": "per-class", "overlap": 0.2, "tile": null, "tta": ""}, "versions": {"timm": "1.0.31",
        "torch": "2.14.1", "torchvision": "0.29.2"}, "weights": "/nowhere"}, "facts": {"categories": [[1, "person"],
        [2, "bicycle"], [3, "car"]], "classes": [1, 3], "conf": 0.1, "fixed": true, "flip": false, "iou": 0.55,
        "long": 320, "max_det": 300, "model": "torchvision/ssdlite320_mobilenet_v3_large", "nms": "per-class",
        "overlap": 0.0, "scales": [1.0], "short": 320, "task": "detect", "tile": 0, "weights": "random",
        "weights_sha256": "seed 0"}, "file": {"bytes": 0, "modified": 0, "path": ""}, "precision": "fp32",
        "transform": {"fit": "native", "interpolation": "bilinear", "mean": [0.5, 0.5, 0.5], "resize": 0,
        "size": null, "std": [0.5, 0.5, 0.5]}}""",
    "segment": """{"asked": {"device": "cpu", "labels": [], "model": "torchvision/lraspp_mobilenet_v3_large",
        "settings": {"classes": "", "conf": null, "imgsz": 64, "iou": null, "max_det": null, "nms": "per-class",
        "overlap": 0.2, "tile": null, "tta": ""}, "versions": {"timm": "1.0.31", "torch": "2.14.1",
        "torchvision": "0.29.2"}, "weights": "/nowhere"}, "facts": {"categories": [[0, "__background__"],
        [1, "aeroplane"], [2, "bicycle"]], "model": "torchvision/lraspp_mobilenet_v3_large", "task": "semantic",
        "weights": "random", "weights_sha256": "seed 0"}, "file": {"bytes": 0, "modified": 0, "path": ""},
        "precision": "fp32", "transform": {"fit": "short", "interpolation": "bilinear", "mean": [0.485, 0.456, 0.406],
        "resize": 64, "size": null, "std": [0.229, 0.224, 0.225]}}""",
}
# What the version that left them named by these fingerprints.
FINGERPRINTS = {
    "embed": "f15d48779e7d8297e05f0192bb20e1e6dfc781596ddfac24e9ac5199c815639a",
    "classify": "2f7e1fac5f70d08da595a152952ae6ae0885ef8efcd4dfb887b767b4aa4cd3df",
    "detect": "291c40e36649e56d9c82dae785dcec3e5d91ffb32807791632d3ac42591995bd",
    "segment": "bb0abe65ae0e065390ad433fe3008b7f06d73871d844965b18030052e69eaede",
}


def request(task: str) -> ModelRequest[Any]:
    """The request that each record answers."""
    from cvjobs.prediction.tasks.segment import SegmentRequest

    mobilenet = {"model": "torchvision/mobilenet_v2", "weights": "/nowhere"}
    requests: dict[str, ModelRequest[Any]] = {
        "embed": EmbedRequest(**mobilenet, layer=""),
        "classify": ClassifyRequest(**mobilenet, labels=("a", "b", "c"), top=3),
        "detect": DetectRequest(
            model="torchvision/ssdlite320_mobilenet_v3_large",
            weights="/nowhere",
            labels=(),
            settings=Settings(conf=0.1, classes="person,car"),
        ),
        "segment": SegmentRequest(
            model="torchvision/lraspp_mobilenet_v3_large", weights="/nowhere", labels=(), settings=Settings(imgsz=64)
        ),
    }
    return requests[task]


def here(task: str) -> dict[str, Any]:
    """The record of this machine's libraries and device, as if it had been left by a run on it."""
    record: dict[str, Any] = json.loads(RECORDS[task])
    record["asked"]["versions"] = {n: importlib.metadata.version(n) for n in ("torch", "torchvision", "timm")}
    record["asked"]["device"] = "cuda" if devices.gpus() else "cpu"
    return record


tasks = pytest.mark.parametrize("task", sorted(RECORDS))


@tasks
def test_a_record_of_an_earlier_version_is_read_and_written_as_it_was(task: str) -> None:
    record = ModelRecord.load(json.loads(RECORDS[task]), type(request(task)))
    assert record is not None
    assert record.asked == request(task)
    assert json.dumps(record.as_dict(), sort_keys=True) == json.dumps(json.loads(RECORDS[task]), sort_keys=True)


@tasks
def test_a_record_of_an_earlier_version_has_the_fingerprint_that_it_had(task: str) -> None:
    record = ModelRecord.load(json.loads(RECORDS[task]), type(request(task)))
    assert record is not None
    assert digest(record.identity) == FINGERPRINTS[task]


@tasks
@pytest.mark.parametrize("precision", ["auto", "fp32"])
def test_the_record_of_the_same_choice_is_taken_without_looking_for_the_model(task: str, precision: str) -> None:
    assert resolve(request(task), precision, here(task)).as_dict() == here(task)


@tasks
def test_another_choice_looks_for_the_model(task: str) -> None:
    with pytest.raises(WrongUse, match="/elsewhere"):
        resolve(replace(request(task), weights="/elsewhere"), "auto", here(task))


@tasks
@pytest.mark.parametrize(
    "change",
    [
        {"precision": None},
        {"facts": None},
        {"more": 1},
        {"file": {"path": ""}},
        {"asked": {"model": "torchvision/mobilenet_v2", "weights": "/nowhere"}},
        {"transform": {"size": [224, 224]}},
    ],
    ids=lambda change: next(iter(change)),
)
def test_a_record_of_another_shape_is_none_and_the_model_is_looked_for(task: str, change: dict[str, Any]) -> None:
    record = {name: value for name, value in (here(task) | change).items() if value is not None}
    assert ModelRecord.load(record, type(request(task))) is None
    with pytest.raises(WrongUse, match="/nowhere"):
        resolve(request(task), "auto", record)


def test_a_record_of_another_task_is_none() -> None:
    assert ModelRecord.load(here("embed"), ClassifyRequest) is None
    assert ModelRecord.load({}, EmbedRequest) is None


def test_the_precision_of_an_earlier_run_stays_where_it_is_automatic() -> None:
    earlier = here("embed") | {"precision": "bf16"}
    asked = replace(request("embed"), weights="random")
    assert resolve(asked, "auto", earlier).record.precision == "bf16"
    assert resolve(asked, "fp32", earlier).record.precision == "fp32"
    assert resolve(asked, "auto", {}).record.precision == resolve_precision("auto", here("embed")["asked"]["device"])


def test_a_step_travels_and_gives_the_columns_of_its_task() -> None:
    for task, schema in (("classify", "classify"), ("detect", "detect"), ("segment", "semantic")):
        spec = resolve(request(task), "auto", here(task))
        assert pickle.loads(pickle.dumps(spec)) == spec
        assert spec.results == SCHEMAS[schema]
    vectors = resolve(request("embed"), "auto", here("embed")).results
    assert vectors == pa.schema([("embedding", pa.list_(pa.float32(), 1280))])


def test_other_weights_than_the_drivers_are_refused() -> None:
    spec = resolve(EmbedRequest(model="torchvision/mobilenet_v2", weights="random", layer=""), "fp32", {})
    other = replace(spec.record, facts={**spec.record.facts, "weights_sha256": "other"})
    with pytest.raises(JobFailed, match="make them equal"):
        TaskSpec(other).open()
