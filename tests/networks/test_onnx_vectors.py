"""ONNX files that embed and classify: the vectors are onnxruntime's own, and what cannot be is one sentence."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnx_files
import pytest
from commands import here, rows, sentence
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from cvjobs.common.errors import WrongUse
from cvjobs.networks import registry

pytestmark = pytest.mark.slow

LABELS = "labels: [ant, bee, cat, dog, elk]\n"


@pytest.fixture(scope="module")
def pixels() -> NDArray[np.uint8]:
    return np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), np.uint8)


def embedded(path: Path, images: NDArray[np.uint8], layer: str = "") -> NDArray[np.float32]:
    found: NDArray[np.float32] = registry.embedder(f"onnx/{path}", layer=layer).load("cpu", "fp32")(images)
    return found


def floats(images: NDArray[np.uint8], mean: Any = (0.485, 0.456, 0.406), std: Any = (0.229, 0.224, 0.225)) -> Any:
    return ((images / 255 - mean) / std).transpose(0, 3, 1, 2).astype(np.float32)


@pytest.mark.parametrize(
    ("kind", "layout", "batch", "size"),
    [
        *itertools.product(("float32", "float16", "uint8"), ("NCHW", "NHWC"), ("batch", 2), ((32, 32),)),
        ("float32", "NCHW", "batch", ("height", "width")),
    ],
)
def test_vectors_are_onnxruntimes(
    tmp_path: Path, pixels: NDArray[np.uint8], kind: str, layout: str, batch: Any, size: Any
) -> None:
    path = onnx_files.vectors(tmp_path / "v.onnx", kind=kind, layout=layout, batch=batch, size=size)
    (tmp_path / "v.yaml").write_text("size: 32\n")
    given = pixels.transpose(0, 3, 1, 2) if kind == "uint8" else floats(pixels).astype(kind)
    given = np.ascontiguousarray(given.transpose(0, 2, 3, 1) if layout == "NHWC" else given)
    if batch == 2:
        given = np.concatenate([given, np.zeros_like(given[:1])])
        expected = np.concatenate([onnx_files.alone(path, given[i : i + 2])[0] for i in (0, 2, 4)])[:5]
    else:
        (expected,) = onnx_files.alone(path, given)
    found = embedded(path, pixels)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected.astype(np.float32), rtol=2e-3 if kind == "float16" else 1e-4, atol=1e-3)


def test_the_card_says_scale_channels_and_size(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    path = onnx_files.vectors(tmp_path / "v.onnx")
    (tmp_path / "v.yaml").write_text(
        "channels: BGR\nscale: 255\nmean: [104, 117, 123]\nstd: [1, 1, 2]\nresize: squash\n"
    )
    given = ((pixels[..., ::-1] - np.array([104, 117, 123])) / (1, 1, 2)).transpose(0, 3, 1, 2).astype(np.float32)
    np.testing.assert_allclose(embedded(path, pixels), onnx_files.alone(path, given)[0], rtol=1e-4, atol=1e-3)
    model = registry.embedder(f"onnx/{path}")
    assert model.transform.fit == "exact"
    assert model.facts["card"]["mean"] == [104.0, 117.0, 123.0]


def test_the_same_keys_are_read_from_the_files_metadata(tmp_path: Path) -> None:
    said = {"labels": "[ant, bee, cat, dog, elk]", "short": "40", "activation": "sigmoid", "author": "someone"}
    path = onnx_files.vectors(tmp_path / "v.onnx", metadata=said)
    found = registry.classifier(f"onnx/{path}")
    assert found.labels == ("ant", "bee", "cat", "dog", "elk")
    assert (found.transform.resize, found.activation) == (40, "sigmoid")
    (tmp_path / "v.yaml").write_text("activation: softmax\n")
    assert registry.classifier(f"onnx/{path}").activation == "softmax"


def test_the_metadata_of_ultralytics_are_read(tmp_path: Path) -> None:
    said = {"names": "{0: 'ant', 1: 'bee', 2: \"it's\"}", "imgsz": "[48, 48]", "task": "classify", "stride": "1"}
    path = onnx_files.vectors(tmp_path / "v.onnx", metadata=said, dim=3, size=("h", "w"), end="Softmax")
    found = registry.classifier(f"onnx/{path}")
    assert found.labels == ("ant", "bee", "it's")
    assert (found.transform.size, found.transform.resize, found.transform.mean) == ((48, 48), 48, (0.0, 0.0, 0.0))


@pytest.mark.parametrize(("end", "activation"), [("", "softmax"), ("Softmax", "softmax"), ("Sigmoid", "sigmoid")])
def test_probabilities_are_those_of_the_file(
    tmp_path: Path, pixels: NDArray[np.uint8], end: str, activation: str
) -> None:
    path = onnx_files.vectors(tmp_path / "v.onnx", end=end)
    (tmp_path / "v.yaml").write_text(LABELS)
    found = registry.classifier(f"onnx/{path}")
    assert found.activation == activation
    logits = found.load("cpu", "fp32")(pixels).astype(np.float64)
    odds = np.exp(logits)
    likely = odds / (1 + odds) if end == "Sigmoid" else odds / odds.sum(1, keepdims=True)
    (expected,) = onnx_files.alone(path, floats(pixels))
    if not end:
        expected = np.exp(expected) / np.exp(expected).sum(1, keepdims=True)
    np.testing.assert_allclose(likely, expected, atol=1e-5)


def test_an_output_is_a_layer(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    path = onnx_files.vectors(tmp_path / "v.onnx")
    model = onnx.load(str(path))
    model.graph.output.append(helper.make_tensor_value_info("positive", TensorProto.FLOAT, ["batch", 5, 15, 15]))
    onnx.save(model, str(path))
    scores, maps = onnx_files.alone(path, floats(pixels))
    np.testing.assert_allclose(embedded(path, pixels), scores, rtol=1e-4)
    np.testing.assert_allclose(embedded(path, pixels, "positive"), maps.mean((2, 3)), rtol=1e-4)
    with pytest.raises(WrongUse, match=r"has no output 'positve'.*nearest: positive"):
        embedded(path, pixels, "positve")


def test_a_batch_that_is_open_by_name_alone_is_run_image_by_image(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    shape = numpy_helper.from_array(np.array([1, 3 * 32 * 32], np.int64), "shape")
    nodes = [
        helper.make_node("Reshape", ["images", "shape"], ["flat"]),
        helper.make_node("ReduceMean", ["flat"], ["scores"], axes=[1], keepdims=1),
    ]
    path = onnx_files.saved(
        tmp_path / "v.onnx",
        nodes,
        {"images": ["batch", 3, 32, 32]},
        {"scores": ["batch", 1]},
        {"shape": numpy_helper.to_array(shape)},
    )
    expected = floats(pixels).reshape(5, -1).mean(1, keepdims=True)
    np.testing.assert_allclose(embedded(path, pixels), expected, atol=1e-5)


def broken(case: str, folder: Path) -> Path:  # noqa: PLR0912 - a file a case
    path = folder / "m.onnx"
    if case == "missing":
        return path
    if case == "text":
        path.write_text("a letter\n" * 100)
        return path
    onnx_files.vectors(path)
    if case == "truncated":
        path.write_bytes(path.read_bytes()[:-100])
        return path
    model: Any = onnx.load(str(path))
    (inputs,) = model.graph.input
    if case == "operator":
        model.graph.node[1].op_type = "Rellu"
    elif case == "custom":
        model.graph.node[1].domain = "my.company"
        model.opset_import.append(helper.make_opsetid("my.company", 1))
    elif case == "compiled":
        model.graph.node[1].op_type, model.graph.node[1].domain = "EPContext", "com.microsoft"
    elif case == "version":
        model.ir_version = 99
    elif case == "inputs":
        model.graph.input.append(helper.make_tensor_value_info("text", TensorProto.FLOAT, [1, 7]))
    elif case == "grey":
        inputs.type.tensor_type.shape.dim[1].dim_value = 1
    elif case == "double":
        inputs.type.tensor_type.elem_type = TensorProto.DOUBLE
    elif case in ("external", "outside", "absolute", "link", "short", "long"):
        onnx.save(model, str(path), save_as_external_data=True, location="m.bin", size_threshold=0)
        if case == "external":
            (folder / "m.bin").unlink()
        elif case == "short":
            (folder / "m.bin").write_bytes(b"1")
        elif case == "link":
            (folder / "m.bin").rename(folder.parent / "m.bin")
            (folder / "m.bin").symlink_to(folder.parent / "m.bin")
        else:
            model = onnx.load(str(path), load_external_data=False)
            for tensor in model.graph.initializer:
                tensor.external_data[0].value = {"outside": "../m.bin", "long": "m" * 9000}.get(case, "/etc/passwd")
            path.write_bytes(model.SerializeToString())
        return path
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(
    ("case", "words"),
    [
        ("missing", "is not there"),
        ("text", "is no ONNX model"),
        ("truncated", "is no ONNX model"),
        ("operator", "cannot run .*Rellu"),
        ("custom", "the operator my.company.Relu, which is code outside of the file"),
        ("compiled", "the operator com.microsoft.EPContext"),
        ("version", "cannot run .*IR version"),
        ("inputs", r"has the inputs images \(\? × 3 × 32 × 32\), text \(1 × 7\)"),
        ("grey", "images of 1 channels"),
        ("double", "of the type float64"),
        ("external", "m.bin, which is not there"),
        ("short", "is too short"),
        ("long", "which is not there"),
        ("outside", "outside of its folder"),
        ("absolute", "outside of its folder"),
        ("link", "outside of its folder"),
    ],
)
def test_a_file_that_cannot_be_is_one_sentence(tmp_path: Path, case: str, words: str) -> None:
    folder = tmp_path / "models"
    folder.mkdir()
    path = broken(case, folder)
    with pytest.raises(WrongUse, match=words) as raised:
        registry.embedder(f"onnx/{path}")
    assert str(raised.value).endswith(".")
    assert "\n" not in str(raised.value)


def test_tensors_in_other_files_of_the_folder_count(tmp_path: Path, pixels: NDArray[np.uint8]) -> None:
    path = onnx_files.vectors(tmp_path / "m.onnx")
    expected, sha256 = embedded(path, pixels), registry.embedder(f"onnx/{path}").facts["weights_sha256"]
    onnx.save(onnx.load(str(path)), str(path), save_as_external_data=True, location="m.bin", size_threshold=0)
    np.testing.assert_array_equal(embedded(path, pixels), expected)
    first = registry.embedder(f"onnx/{path}").facts["weights_sha256"]
    content = bytearray((tmp_path / "m.bin").read_bytes())
    content[0] ^= 1
    (tmp_path / "m.bin").write_bytes(content)
    assert len({sha256, first, registry.embedder(f"onnx/{path}").facts["weights_sha256"]}) == 3


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("sise: 32", "the key 'sise', which there is not .nearest: size"),
        ("size: big", "says size: big, and size is a number of pixels"),
        ("size: 40", "takes images of 32 × 32 pixels, and .* says another size"),
        ("mean: [1, 2]", "mean is three numbers"),
        ("resize: letterbox", "write crop or squash"),
        ("layout: CHW", "has no layout CHW"),
        ("task: detect", "is a model for detect by its card"),
        ("labels: [a, a, b, c, d]", "a list of different names"),
        ("labels: [a]", "1 name .*5 classes|5 classes"),
        ("labels: none.txt", "Cannot read the labels file"),
        ("output: vectr", "nearest: vector"),
        ("outputs: {logits: scoress}", "has no output 'scoress'"),
        ("[1, 2]", "holds no keys"),
        ("size: [", "is no YAML .line"),
    ],
)
def test_a_wrong_card_is_one_sentence(tmp_path: Path, text: str, words: str) -> None:
    path = onnx_files.vectors(tmp_path / "m.onnx")
    (tmp_path / "m.yaml").write_text(text + "\n")
    with pytest.raises(WrongUse, match=words):
        registry.classifier(f"onnx/{path}")


def photos(folder: Path, count: int = 6) -> Path:
    folder.mkdir()
    random = np.random.default_rng(1)
    for number in range(count):
        image = random.integers(0, 256, (40 + 5 * number, 60, 3), np.uint8)
        Image.fromarray(image).save(folder / f"{number}.png")
    return folder


def test_a_second_night_computes_nothing_until_the_card_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source, out = photos(tmp_path / "photos"), tmp_path / "out"
    path = onnx_files.vectors(tmp_path / "m.onnx")
    card = tmp_path / "m.yaml"
    card.write_text(LABELS)
    monkeypatch.chdir(tmp_path)
    line = ("classify", source, "-o", out, "--json")
    first = here(*line, "--model", "onnx/m.onnx")
    assert first.code == 0, first
    assert '"computed": 6' in first.out
    second = here(*line, "--model", f"onnx/{path}")
    assert '"computed": 0' in second.out
    before = rows(out)["score"].to_pylist()
    card.write_text(LABELS + "mean: [0, 0, 0]\n")
    assert "choose another -o, or --overwrite" in sentence(here(*line, "--model", f"onnx/{path}"), 2)
    assert '"computed": 6' in here(*line, "--model", f"onnx/{path}", "--overwrite").out
    assert rows(out)["score"].to_pylist() != before
    card.write_text("# the same\n" + LABELS + "mean: [0, 0, 0]\n")
    assert '"computed": 0' in here(*line, "--model", f"onnx/{path}").out


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--weights", "random"), "holds its own weights: leave out --weights"),
        (("--precision", "bf16"), "computes in what it was exported in: leave out --precision"),
    ],
)
def test_weights_and_precision_are_the_files(tmp_path: Path, words: tuple[str, ...], said: str) -> None:
    source = photos(tmp_path / "photos", 1)
    path = onnx_files.vectors(tmp_path / "m.onnx")
    assert said in sentence(here("embed", source, "-o", tmp_path / "out", "--model", f"onnx/{path}", *words), 2)
