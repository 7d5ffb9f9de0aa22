"""The main jobs on real photos with real weights: embed, continue, check, index, find neighbours, look at pages."""

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
    out, index, page = (assets.FOLDER / name for name in ("vectors", "index", "neighbours.html"))
    for folder in (out, index):
        shutil.rmtree(folder, ignore_errors=True)
    photos, vectors, place = shown(found.photos), shown(out), shown(index)
    cvjobs("embed", photos, "-o", vectors, "--model", "torchvision/mobilenet_v2", "--limit", "8")
    cvjobs("embed", photos, "-o", vectors, "--model", "torchvision/mobilenet_v2")
    console.print(contents(out, found.weights))
    cvjobs("verify", vectors, "--source", photos)
    cvjobs("index", vectors, "-o", place)
    cvjobs("query", place, f"{photos}/chelsea.png", "-k", "3", "--exclude-self")
    cvjobs("query", place, vectors, "-k", "5", "--exclude-self", "--html", shown(page))
    console.print(f"\nThe vectors are in [bold]{vectors}/data[/bold]: one row per photo. Read them with")
    console.print(f'  [cyan]pandas.read_parquet("{vectors}/data")[/cyan]   or   [cyan]cvjobs.open("{vectors}")[/cyan]')
    console.print("Pages to open in a browser:")
    for name in (out / "report.html", index / "report.html", page):
        console.print(f"  [cyan]{shown(name)}[/cyan]")


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
    """Return a table of the photos with what the model's own classifier says of each vector."""
    import torch
    from torchvision.models import MobileNet_V2_Weights

    import cvjobs as library

    rows = library.open(str(out)).to_arrow().sort_by("path")
    vectors = np.stack(rows["embedding"].to_numpy())
    head = torch.load(weights, weights_only=True)
    logits = vectors @ head["classifier.1.weight"].numpy().T + head["classifier.1.bias"].numpy()
    names = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    table = Table("photo", "pixels", "seen as", box=box.SIMPLE)
    for row, scores in zip(rows.select(["path", "width", "height"]).to_pylist(), logits, strict=True):
        table.add_row(row["path"], f"{row['width']} x {row['height']}", names[int(scores.argmax())])
    return table


if __name__ == "__main__":
    main()
