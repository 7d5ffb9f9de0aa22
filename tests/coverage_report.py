"""The share of the library's lines that the tests ran, and the least covered modules: python tests/coverage_report.py.

It reads the ``.coverage`` that ``pytest --cov`` left. Decoders, commands in processes of their own and Ray's workers
are not measured: what runs only in them counts as not run.
"""

from __future__ import annotations

import json
import tempfile
from pathlib import Path

import coverage

LEAST = 10


def main() -> None:
    """Print the share of all lines, and the modules with the lowest shares."""
    measured = coverage.Coverage()
    measured.load()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "coverage.json"
        total = measured.json_report(outfile=str(file))
        files = json.loads(file.read_text())["files"]
    modules = {name: found["summary"] for name, found in files.items()}
    least = sorted((lines["percent_covered"], -lines["missing_lines"], name) for name, lines in modules.items())
    print(f"The tests ran {total:.1f}% of the lines of {len(modules)} modules, and the least of")
    for percent, missing, name in least[:LEAST]:
        print(f"{percent:6.1f}%  {name} ({-missing} lines not run)")


if __name__ == "__main__":
    main()
