"""ONNX files as others make them: what their inputs and outputs are like that those of our own tests are not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_files
import pytest
import torch
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnx_files import Rows
from torch.nn.functional import interpolate

from cvjobs.common.errors import WrongUse
from cvjobs.images.masks import rle
from cvjobs.images.picture import Picture
from cvjobs.networks import registry

pytestmark = pytest.mark.slow

LABELS = "labels: [ant, bee, cat, dog, elk]\n"


def constants(path: Path, outputs: dict[str, NDArray[Any]], open_sides: bool = False, **more: Any) -> Path:
    """Write a file that takes any number of images by name and always gives the same outputs."""
    nodes = [helper.make_node("Identity", [f"{name} held"], [name]) for name in outputs]
    kinds = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in outputs.items()}
    shapes = {name: [None] * value.ndim if open_sides else list(value.shape) for name, value in outputs.items()}
    held = {f"{name} held": value for name, value in outputs.items()}
    inputs: dict[str, Any] = {"images": ["batch", 3, 64, 64]}
    return onnx_files.saved(path, nodes, inputs, shapes, held, kinds=kinds, **more)


def random(*shape: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random(shape, np.float32)


def test_answers_about_one_image_are_asked_for_one_by_one(tmp_path: Path) -> None:
    """Of a batch that is open by name alone, in a file that does not fail on it."""
    logits = np.log(random(1, 30, 5) / 2)
    path = constants(tmp_path / "d.onnx", {"logits": logits, "pred_boxes": random(1, 30, 4) / 4 + 0.3})
    (tmp_path / "d.yaml").write_text(f"{LABELS}activation: sigmoid\n")
    network = registry.detector(f"onnx/{path}").load("cpu", "fp32")
    images = [np.zeros((40, 50, 3), np.uint8)] * 3
    (alone,) = network(images[:1])
    assert alone is not None
    assert len(alone.boxes) > 3
    for found in network(images):
        assert found is not None
        np.testing.assert_array_equal(found.boxes, alone.boxes)
    path = constants(tmp_path / "v.onnx", {"vector": random(1, 7)})
    vectors = registry.embedder(f"onnx/{path}").load("cpu", "fp32")(np.zeros((3, 64, 64, 3), np.uint8))
    np.testing.assert_array_equal(vectors, np.repeat(random(1, 7), 3, 0))


def test_fewer_answers_than_a_batch_of_its_own_are_said(tmp_path: Path) -> None:
    path = constants(tmp_path / "v.onnx", {"vector": random(1, 7)})
    model = onnx.load(str(path))
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = 4
    onnx.save(model, str(path))
    with pytest.raises(RuntimeError, match="'vector' has 1 rows for a batch of 4 images"):
        registry.embedder(f"onnx/{path}").load("cpu", "fp32")(np.zeros((3, 64, 64, 3), np.uint8))


def test_sides_below_zero_are_open(tmp_path: Path) -> None:
    path = onnx_files.vectors(tmp_path / "v.onnx", batch=-1, size=(-1, -1))
    (tmp_path / "v.yaml").write_text(f"{LABELS}size: 40\n")
    model = registry.classifier(f"onnx/{path}")
    assert model.transform.size == (40, 40)
    assert model.load("cpu", "fp32")(np.zeros((3, 40, 40, 3), np.uint8)).shape == (3, 5)


def test_outputs_that_are_no_numbers_are_left_aside(tmp_path: Path) -> None:
    """As scikit-learn's classifiers have them: the name of the class beside the probabilities."""
    path = onnx_files.vectors(tmp_path / "v.onnx", end="Softmax")
    model = onnx.load(str(path))
    model.graph.initializer.append(helper.make_tensor("names", TensorProto.STRING, [1], [b"ant"]))
    model.graph.node.append(helper.make_node("Identity", ["names"], ["label"]))
    model.graph.output.insert(0, helper.make_tensor_value_info("label", TensorProto.STRING, [1]))
    onnx.save(model, str(path))
    (tmp_path / "v.yaml").write_text(LABELS)
    assert registry.classifier(f"onnx/{path}").load("cpu", "fp32")(np.zeros((2, 32, 32, 3), np.uint8)).shape == (2, 5)


@pytest.mark.parametrize("case", ["one channel", "map", "logits"])
def test_grids_with_the_channels_last(tmp_path: Path, case: str) -> None:
    """As TensorFlow's segmenters give them, also one channel or a map of classes with a side of 1 at the end."""
    nodes, output = [], "sum"
    kinds = {}
    if case == "map":
        nodes = [helper.make_node("Cast", ["sum"], ["map"], to=TensorProto.INT64)]
        output, kinds = "map", {"map": TensorProto.INT64}
    elif case == "logits":
        nodes = [helper.make_node("Concat", ["none", "sum"], ["both"], axis=3)]
        output = "both"
    nodes = [
        helper.make_node("ReduceMax", ["images"], ["sum"], axes=[3], keepdims=1),
        helper.make_node("Mul", ["sum", "zero"], ["none"]),
        *nodes,
    ]
    inputs: dict[str, Any] = {"images": ["batch", 8, 16, 3]}
    outputs: dict[str, Any] = {output: ["batch", 8, 16, 2 if case == "logits" else 1]}
    held = {"zero": np.zeros((), np.float32)}
    path = onnx_files.saved(tmp_path / "s.onnx", nodes, inputs, outputs, held, kinds=kinds)
    (tmp_path / "s.yaml").write_text("labels: [nothing, white]\nmean: [0, 0, 0]\nstd: [1, 1, 1]\n")
    image = np.zeros((8, 16, 3), np.uint8)
    image[2:5, 3:11] = 255
    found = registry.segmenter(f"onnx/{path}").load("cpu", "fp32")([Picture(image, 8, 16)] * 2)
    for classes in found:
        np.testing.assert_array_equal(classes, image[..., 0] // 255)


def test_boxes_with_scores_and_labels_beside_them(tmp_path: Path) -> None:
    """As MMDetection's are exported: (B, N, 5) and (B, N)."""
    rows = np.array([[[4, 8, 20, 30, 0.9], [0, 0, 9, 9, 0.1], [32, 32, 64, 64, 0.5]]], np.float32)
    path = constants(tmp_path / "d.onnx", {"dets": rows, "labels": np.array([[2, 0, 4]])}, open_sides=True)
    (tmp_path / "d.yaml").write_text(LABELS)
    model: Any = registry.detector(f"onnx/{path}")
    assert (model.facts["card"]["output"], model.facts["card"]["outputs"]) == ("rows", ["dets", "labels"])
    for found in model.load("cpu", "fp32")([np.zeros((32, 32, 3), np.uint8)] * 2):
        np.testing.assert_array_equal(found.boxes, rows[0, [0, 2], :4] / 2)
        assert found.classes.tolist() == [2, 4]
        np.testing.assert_array_equal(found.scores, rows[0, [0, 2], 4])


def test_masks_of_queries_are_those_of_the_whole_input(tmp_path: Path) -> None:
    """As RF-DETR's segmenters are exported."""
    logits = np.full((1, 3, 5), -9, np.float32)
    logits[0, 1, 2], logits[0, 2, 0] = 3, 1
    planes = torch.randn(1, 3, 4, 4, generator=torch.Generator().manual_seed(0)).numpy()
    boxes = np.full((1, 3, 4), 0.5, np.float32)
    path = constants(tmp_path / "d.onnx", {"dets": boxes, "labels": logits, "masks": planes})
    (tmp_path / "d.yaml").write_text(LABELS)
    (found,) = registry.segmenter(f"onnx/{path}").load("cpu", "fp32")([np.zeros((32, 48, 3), np.uint8)])
    assert found.classes.tolist() == [2, 0]
    for query, mask in zip((1, 2), found.rles, strict=True):
        wanted = interpolate(torch.from_numpy(planes[:, [query]]), (32, 48), mode="bilinear")[0, 0] > 0
        np.testing.assert_array_equal(rle.decode(mask, 32, 48).astype(bool), wanted.numpy())


def test_what_nothing_is_found_by_is_asked(tmp_path: Path) -> None:
    """A file with NMS inside says nothing of an image of noise, from which what its numbers are is seen otherwise."""
    none = {"boxes": np.zeros((1, 0, 4), np.float32), "scores": np.zeros((1, 0, 5), np.float32)}
    path = constants(tmp_path / "d.onnx", none, open_sides=True)
    for key, value in (("activation", "none"), ("boxes", "xyxy"), ("relative", "true")):
        with pytest.raises(WrongUse, match=f"write `{key}:`"):
            registry.detector(f"onnx/{path}")
        with (tmp_path / "d.yaml").open("a") as card:
            card.write(f"{key}: {value}\n")
    with (tmp_path / "d.yaml").open("a") as card:
        card.write(LABELS)
    (found,) = registry.detector(f"onnx/{path}").load("cpu", "fp32")([np.zeros((9, 9, 3), np.uint8)])
    assert found is not None
    assert len(found.boxes) == 0


@pytest.mark.parametrize(
    ("shape", "metadata", "card", "words"),
    [
        (["batch", 3, 0, 0], {}, "", "takes no images at all, for a side of its input images .* is 0"),
        (["batch", 3, 32, 32], {"labels": "../names.txt"}, "", "name a file of labels outside of its folder"),
        (["batch", 3, 32, 32], {}, "labels: {0: a, 9: b}\n", "has labels of other numbers than 0 to 4"),
        (["batch", 3, 32, 32], {}, "labels: [a, b]\n", r"v\.yaml has 2 names"),
    ],
)
def test_what_cannot_be_is_one_sentence(
    tmp_path: Path, shape: list[Any], metadata: dict[str, str], card: str, words: str
) -> None:
    path = onnx_files.vectors(tmp_path / "v.onnx", size=(shape[2], shape[3]), metadata=metadata)
    if card:
        (tmp_path / "v.yaml").write_text(card)
    with pytest.raises(WrongUse, match=words):
        registry.classifier(f"onnx/{path}")


def test_a_card_that_is_no_file_is_not_waited_for(tmp_path: Path) -> None:
    path = onnx_files.vectors(tmp_path / "v.onnx")
    os.mkfifo(tmp_path / "v.yaml")
    with pytest.raises(WrongUse, match=r"v\.yaml is no file"):
        registry.classifier(f"onnx/{path}")


def test_nothing_of_onnxruntime_is_printed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Its second try with other devices says so on stdout, where results are."""
    path = onnx_files.detector(tmp_path / "d.onnx", {"out": Rows(5)})
    model = onnx.load(str(path))
    model.graph.node[0].op_type = "Conv�"
    content = model.SerializeToString().replace("�".encode(), b"\xff\xff\xff")
    path.write_bytes(content)
    with pytest.raises(WrongUse):
        registry.detector(f"onnx/{path}")
    assert capfd.readouterr() == ("", "")
