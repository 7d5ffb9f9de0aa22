"""Weight files, good and bad: data and never a pickle, found, fetched, checked, and named in one sentence."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from reference import SMALL, TINY, refused, seeded, vectors
from safetensors.torch import save_file
from torchvision import models
from trees import as_nobody, opened

from cvjobs.common.errors import WrongUse
from cvjobs.networks import registry, weights
from cvjobs.networks.registry import embedder

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("offline")]


def test_random_is_always_the_same_and_leaves_the_generator_alone() -> None:
    before = torch.random.get_rng_state()
    first, second = vectors(SMALL)[0], vectors(SMALL)[0]
    np.testing.assert_array_equal(first, second)
    assert torch.equal(torch.random.get_rng_state(), before)
    assert embedder(SMALL, weights="random").facts == {
        "model": SMALL,
        "weights": "random",
        "weights_sha256": "seed 0",
        "layer": "pooled",
    }


@pytest.mark.parametrize("suffix", ["pth", "safetensors"])
@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", TINY])
def test_file(tmp_path: Path, name: str, suffix: str) -> None:
    family, _, model = name.partition("/")
    build = models.get_model if family == "torchvision" else timm.create_model
    tensors = seeded(build, **{"name" if family == "torchvision" else "model_name": model}).state_dict()
    file = tmp_path / f"mine.{suffix}"
    torch.save(tensors, file) if suffix == "pth" else save_file(tensors, file)
    np.testing.assert_array_equal(vectors(name, weights=str(file))[0], vectors(name)[0])
    facts = embedder(name, weights=str(file)).facts
    assert facts["weights"] == file.name
    assert facts["weights_sha256"] == hashlib.sha256(file.read_bytes()).hexdigest()


@pytest.mark.parametrize("name", ["torchvision/squeezenet1_1", TINY])
def test_file_that_does_not_fit(tmp_path: Path, name: str) -> None:
    file = tmp_path / "other.safetensors"
    save_file({"surplus": torch.zeros(1)}, file)
    sentence = refused(name, weights=str(file))
    assert f"{file} does not fit {name}" in sentence
    assert "surplus" in sentence
    assert "Missing" in sentence


def test_file_of_another_width(tmp_path: Path) -> None:
    file = tmp_path / "narrow.pth"
    state = models.squeezenet1_1(num_classes=10).state_dict()
    torch.save(state | {"features.0.weight": state["features.0.weight"][:32]}, file)
    assert "size mismatch for features.0.weight" in refused("squeezenet1_1", weights=str(file))


@pytest.mark.parametrize("name", [SMALL, TINY])
def test_pickle_is_refused_and_not_run(tmp_path: Path, name: str) -> None:
    class Payload:
        def __reduce__(self) -> tuple[Any, tuple[str]]:
            return os.mkdir, (str(tmp_path / "pwned"),)

    file = tmp_path / "payload.pth"
    torch.save({"classifier.0.weight": Payload()}, file)
    assert "was refused" in refused(name, weights=str(file))
    assert not (tmp_path / "pwned").exists()


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("a.pth", b""),
        ("b.pth", b"PK\x03\x04 no zip"),
        ("c.safetensors", b"\xff" * 64),
        ("d.safetensors", b""),
        ("e.pth", b"..."),
        ("f.pth", b"GIF89a"),
    ],
)
def test_damaged_file(tmp_path: Path, file: str, content: bytes) -> None:
    (tmp_path / file).write_bytes(content)
    assert file in refused(SMALL, weights=str(tmp_path / file))


@pytest.mark.parametrize("content", [[torch.zeros(1)], {}, {1: torch.zeros(1)}])
def test_file_without_a_state_dict(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "list.pth")
    assert "holds no state dict" in refused(TINY, weights=str(tmp_path / "list.pth"))


def test_absent_file() -> None:
    assert "There is no weights file /none" in refused(SMALL, weights="/none")


def test_a_file_in_a_closed_folder_is_a_sentence(tmp_path: Path) -> None:
    closed = opened(tmp_path) / "closed"
    closed.mkdir(0o000)
    try:
        for call in (lambda: weights.given(str(closed / "a.pth")), lambda: registry.find(str(closed / "run"), "embed")):
            assert isinstance(as_nobody(call), WrongUse)
    finally:
        closed.chmod(0o755)


def test_nothing_cached_and_no_network(tmp_path: Path) -> None:
    sentence = refused("torchvision/squeezenet1_1")
    assert "squeezenet1_1-b8a52dc0.pth (sha256 starts b8a52dc0)" in sentence
    assert str(tmp_path / "torch/hub/checkpoints") in sentence
    assert "--weights FILE" in sentence


def test_cached_file_must_have_the_hash_in_its_name(tmp_path: Path) -> None:
    cache = tmp_path / "torch/hub/checkpoints"
    cache.mkdir(parents=True)
    (cache / "squeezenet1_1-b8a52dc0.pth").write_bytes(b"half of it")
    assert "is damaged" in refused("torchvision/squeezenet1_1")
    digest = hashlib.sha256(b"all of it").hexdigest()
    (cache / f"whole-{digest[:8]}.pth").write_bytes(b"all of it")
    found = weights.cached(f"whole-{digest[:8]}.pth", "V1")
    assert found == weights.Weights("V1", cache / f"whole-{digest[:8]}.pth", digest)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and the address under which a real server of this machine offers it."""
    folder = tmp_path / "served"
    folder.mkdir()

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(folder))) as running:
        thread = threading.Thread(target=running.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{running.server_address[1]}"
        running.shutdown()
        thread.join()


def test_download_is_checked_and_kept(server: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = server
    digest = hashlib.sha256(b"weights").hexdigest()
    good, bad = f"good-{digest[:8]}.pth", "bad-01234567.pth"
    for name in (good, bad):
        (folder / name).write_bytes(b"weights")
    assert weights.fetched(f"{address}/{good}", "a model").sha256 == digest
    (folder / good).unlink()
    assert weights.fetched(f"{address}/{good}", "a model").sha256 == digest
    with pytest.raises(WrongUse, match="its sha256 differs"):
        weights.fetched(f"{address}/{bad}", "a model")
    with pytest.raises(WrongUse, match="File not found"):
        weights.fetched(f"{address}/absent-01234567.pth", "a model")
    assert [file.name for file in (tmp_path / "torch/hub/checkpoints").iterdir()] == [good]
