"""The pages say what the code does: every error code, column, exit code and command is named where it is documented."""

from __future__ import annotations

import re
from pathlib import Path

from cvjobs import drivers
from cvjobs.dataset import layout
from cvjobs.errors import CvjobsError
from cvjobs.records import CODES

ROOT = Path(__file__).parent.parent
OUTPUTS = (ROOT / "docs" / "outputs.md").read_text()
README = (ROOT / "README.md").read_text()


def test_every_error_code_is_documented_with_its_remedy() -> None:
    rows = dict(re.findall(r"^\| `(\w+)` \| (?:yes|no) \| (.*) \|$", OUTPUTS, re.MULTILINE))
    assert rows == {name: code.remedy for name, code in CODES.items()}


def test_every_column_is_documented() -> None:
    for field in (*layout.KEYS, *layout.MEASURED, *layout.ERROR_SCHEMA):
        assert f"`{field.name}`" in OUTPUTS


def test_every_exit_code_is_in_the_readme() -> None:
    rows = {int(code) for code in re.findall(r"^\| (\d+) \|", README, re.MULTILINE)}
    assert rows == {0, 3} | {kind.exit_code for kind in CvjobsError.__subclasses__()}


def test_every_command_is_in_the_readme() -> None:
    for name in drivers.files():
        assert f"cvjobs {name}" in README
