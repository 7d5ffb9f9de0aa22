"""The main job on real photos with real weights: embed, look at what came out, run again, check."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import assets
import numpy as np
from rich import box
from rich.console import Console
from rich.table import Table

HERE = Path.cwd()
console = Console(highlight=False)


def main() -> None:
    """Run the demo; exits with the code of the first command that fails."""
    found = assets.fetch()
    os.environ["TORCH_HOME"] = str(found.torch_home)
    out = assets.FOLDER / "vectors"
    shutil.rmtree(out, ignore_errors=True)
    photos, place = shown(found.photos), shown(out)
    cvjobs("embed", photos, "-o", place, "--model", "torchvision/mobilenet_v2")
    console.print(contents(out, found.weights))
    cvjobs("embed", photos, "-o", place, "--model", "torchvision/mobilenet_v2")
    cvjobs("verify", place, "--source", photos)
    console.print(f"\nThe vectors are in [bold]{place}/data[/bold]: one row per photo. Read them with")
    console.print(f'  [cyan]pandas.read_parquet("{place}/data")[/cyan]   or   [cyan]cvjobs.open("{place}")[/cyan]')


def shown(path: Path) -> str:
    """Return a path as a person in this folder would type it."""
    return str(path.relative_to(HERE)) if path.is_relative_to(HERE) else str(path)


def cvjobs(*words: str) -> None:
    """Show a command, run it as typed, and end with its exit code where it fails."""
    console.print(f"\n[bold green]$[/bold green] [bold]cvjobs {' '.join(words)}[/bold]")
    code = subprocess.run([str(Path(sys.executable).with_name("cvjobs")), *words], check=False).returncode
    if code:
        sys.exit(code)


def contents(out: Path, weights: Path) -> Table:
    """Return a table of the photos: what the model's own classifier says of each vector, and its nearest photo."""
    import torch
    from torchvision.models import MobileNet_V2_Weights

    import cvjobs as library

    rows = library.open(str(out)).to_arrow().sort_by("path")
    vectors = np.stack(rows["embedding"].to_numpy())
    head = torch.load(weights, weights_only=True)
    logits = vectors @ head["classifier.1.weight"].numpy().T + head["classifier.1.bias"].numpy()
    names = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    cosine = unit @ unit.T
    np.fill_diagonal(cosine, -1)
    table = Table("photo", "pixels", "seen as", "nearest photo", "cosine", box=box.SIMPLE)
    for i, row in enumerate(rows.select(["path", "width", "height"]).to_pylist()):
        near = int(cosine[i].argmax())
        table.add_row(
            row["path"],
            f"{row['width']} x {row['height']}",
            names[int(logits[i].argmax())][:22],
            rows["path"][near].as_py(),
            f"{cosine[i, near]:.2f}",
        )
    return table


if __name__ == "__main__":
    main()
