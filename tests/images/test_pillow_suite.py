"""The 1,060 files of Pillow's own tests, and bombs: broken, odd and hostile images, in one run each."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tarfile
import threading
import zlib
from pathlib import Path

import numpy as np
import psutil
import pytest
from commands import CLI, ROOT, codes, errors, exact, kill, rows, some, started
from PIL import Image

from cvjobs.common.failures import CODES
from cvjobs.images.decode import FORMATS

pytestmark = pytest.mark.faults

CACHE = ROOT / ".demo"
SDIST = "pillow-13.0.0.tar.gz"
SHA256 = "cdcd1ba258178f7356d74170c9a81ba4eab6a5d55748bc402a5a2a6fe6be3510"


@pytest.fixture(scope="module")
def suite(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder ``Tests/images`` of Pillow's source distribution, downloaded once."""
    archive = CACHE / SDIST
    if not archive.exists():
        pip = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-binary", "pillow", "--dest", str(CACHE)]
        ended = subprocess.run([*pip, "pillow==13.0.0"], capture_output=True, text=True, check=False)
        if not archive.exists():
            pytest.skip(f"pip could not download {SDIST}: {ended.stderr.strip().splitlines()[-1:]}")
    assert hashlib.sha256(archive.read_bytes()).hexdigest() == SHA256
    folder = tmp_path_factory.mktemp("pillow")
    with tarfile.open(archive) as files:
        files.extractall(folder, filter="data")
    return folder / "pillow-13.0.0/Tests/images"


def opens(file: Path) -> bool:
    """Whether Pillow reads a file."""
    try:
        with Image.open(file, formats=FORMATS) as image:
            image.load()
    except Exception:  # noqa: BLE001 - whatever it raises
        return False
    return True


def watched(source: Path, out: Path) -> tuple[int, str, str, int]:
    """Embed, and return exit code, stdout, stderr and the largest memory (bytes) that one process ever had."""
    largest = [0]
    with started([*CLI, "embed", str(source), "-o", str(out), "--model", "thumbnail/8", "--json"]) as process:

        def look() -> None:
            while process.poll() is None:
                try:
                    command = psutil.Process(process.pid)
                    for one in (command, *command.children(recursive=True)):
                        largest[0] = max(largest[0], one.memory_info().rss)
                except psutil.Error:
                    continue

        watcher = threading.Thread(target=look)
        watcher.start()
        said, err = process.communicate(timeout=300)
        watcher.join()
        kill(process, 9)
    return process.returncode, said, err, largest[0]


def test_every_file_has_a_row_or_a_reason(suite: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    code, said, err, largest = watched(suite, out)
    assert code == 0, err
    found = json.loads(said)
    assert found["listed"] == found["ok"] + found["failed"] + found["skipped"] == 1060
    assert found["ok"] >= 695
    failures = errors(out).to_pylist()
    assert len(failures) == found["failed"]
    for row in failures:
        assert row["code"] in CODES, row
        assert " " in row["detail"], row
        assert row["attempts"] == 1, row  # no decoder died, and no worker
    assert largest < 3 << 30
    by_name = {row["path"]: row["code"] for row in failures}
    assert by_name["truncated_image.png"] == "truncated"
    # One has no end mark and all its pixels; of the others the metadata alone are damaged, or too large.
    for name in ("truncated_jpeg.jpg", "png_decompression_dos.png", "unknown_compression_method.png"):
        assert name not in by_name
    assert "apng/chunk_no_fctl.png" not in by_name
    opened = [name for name, code in by_name.items() if code in ("corrupt", "truncated") and opens(suite / name)]
    assert opened == []
    assert by_name["broken_data_stream.png"] == "corrupt"
    assert by_name["decompression_bomb.gif"] == "too_many_pixels"
    assert by_name["bmp/q/rgb24png.bmp"] == "unsupported_mode"
    exact(out, suite, found["ok"] + found["failed"])


def test_bombs_are_rows_and_cost_no_memory(photos: Path, tmp_path: Path) -> None:
    source, out = some(photos, tmp_path / "source", 20), tmp_path / "out"
    Image.new("RGB", (16, 16)).save(source / "bomb.jpg")
    jpeg = bytearray((source / "bomb.jpg").read_bytes())
    frame = jpeg.index(b"\xff\xc0")
    jpeg[frame + 5 : frame + 9] = (65500).to_bytes(2, "big") * 2
    (source / "bomb.jpg").write_bytes(jpeg)
    header = b"IHDR" + (100_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    chunk = (13).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    (source / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + chunk + bytes.fromhex("0000000049454e44ae426082"))
    Image.fromarray(np.zeros((10_000, 10_000), np.uint8)).save(source / "flat.png")
    code, said, err, largest = watched(source, out)
    assert code == 3, err
    assert codes(out) == {"too_many_pixels": 3}
    assert {row["path"] for row in errors(out).to_pylist()} == {"bomb.jpg", "bomb.png", "flat.png"}
    assert rows(out).num_rows == json.loads(said)["ok"] == 20
    assert largest < 1 << 30
