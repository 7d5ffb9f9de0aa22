"""JSON lines: one image a line, with all that its row says but the picture of a class map."""

from __future__ import annotations

import json
from typing import BinaryIO

from cvjobs.common import json_values
from cvjobs.dataset.export import ExportedOutput, publish
from cvjobs.dataset.schema import CLASS_MAP

TASKS = ("classify", "detect", "embed", "instance", "semantic")
UNIT = "lines"


def write(output: ExportedOutput, to: str) -> int:
    """Write the file and return how many lines it has."""
    count = 0
    # What tells us when to compute again, and a PNG; a list's own column may have the same name in other results.
    left_out = {"version", CLASS_MAP} if output.task == "semantic" else {"version"}

    def fill(file: BinaryIO) -> None:
        nonlocal count
        for table in output.tables():
            kept = table.drop_columns([name for name in table.schema.names if name in left_out])
            file.writelines(json.dumps(row).encode() + b"\n" for row in json_values.rows(kept))
            count += table.num_rows

    publish(output, to, fill)
    return count
