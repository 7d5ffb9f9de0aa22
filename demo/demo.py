"""The main jobs on real photos with real weights: classify, export, embed, continue, check, index, find neighbours."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import assets
from rich import box
from rich.console import Console
from rich.table import Table

HERE = Path.cwd()
console = Console(highlight=False)


def main() -> None:
    """Run the demo; exits with the code of the first command that fails."""
    found = assets.fetch()
    os.environ["TORCH_HOME"] = str(found.torch_home)
    names = ("labels", "labels.csv", "vectors", "index", "neighbours.html")
    labels, table, out, index, page = (assets.FOLDER / name for name in names)
    for folder in (labels, out, index):
        shutil.rmtree(folder, ignore_errors=True)
    photos, vectors, place = shown(found.photos), shown(out), shown(index)
    cvjobs("classify", photos, "-o", shown(labels), "--model", "torchvision/mobilenet_v2")
    console.print(contents(labels))
    cvjobs("export", shown(labels), "--format", "csv", "-o", shown(table))
    cvjobs("embed", photos, "-o", vectors, "--model", "torchvision/mobilenet_v2", "--limit", "8")
    cvjobs("embed", photos, "-o", vectors, "--model", "torchvision/mobilenet_v2")
    cvjobs("verify", vectors, "--source", photos)
    cvjobs("index", vectors, "-o", place)
    cvjobs("query", place, f"{photos}/chelsea.png", "-k", "3", "--exclude-self")
    cvjobs("query", place, vectors, "-k", "5", "--exclude-self", "--html", shown(page))
    console.print(f"\nThe vectors are in [bold]{vectors}/data[/bold]: one row per photo. Read them with")
    console.print(f'  [cyan]pandas.read_parquet("{vectors}/data")[/cyan]   or   [cyan]cvjobs.open("{vectors}")[/cyan]')
    console.print("Pages to open in a browser:")
    for name in (labels / "report.html", out / "report.html", index / "report.html", page):
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


def contents(labels: Path) -> Table:
    """Return a table of the photos with the likeliest class of each."""
    import cvjobs as library

    table = Table("photo", "pixels", "label", "score", box=box.SIMPLE)
    rows = library.open(str(labels)).to_arrow().sort_by("path")
    for row in rows.select(["path", "width", "height", "label", "score"]).to_pylist():
        table.add_row(row["path"], f"{row['width']} x {row['height']}", row["label"], f"{row['score']:.2f}")
    return table


if __name__ == "__main__":
    main()
