"""The command reference: `python docs/command_reference.py` makes docs/commands.md, and the stub, from the options."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

from cvjobs.config import commands as config_commands
from cvjobs.config import fields as config_fields
from cvjobs.config.fields import Field
from cvjobs.config.help_text import GROUPS
from cvjobs.config.options import BatchOptions
from cvjobs.config.python_function import DEFAULT

PAGE = Path(__file__).with_name("commands.md")
HEAD = """\
# Commands

Made from the commands themselves by `python docs/command_reference.py`; `cvjobs COMMAND --help` says the same. In
Python a command is a function: `cvjobs.embed("photos", "vectors", batch_size=8)`.

Besides its own options every command has `--help` and `--config FILE`, which names the file that is read instead of
`cvjobs.yaml`. A command with `--address` also has `--id ID`, its name as a job on a cluster, and `--detach`, which does
not wait for that job ([clusters](cluster.md)). The exit codes are those of
[faults](faults.md#exit-codes).
"""
BATCH = """\
## Options of every batch job

Those of `embed`, `classify`, `detect` and `segment`, beside their own. Precedence: defaults, then the command's section
in `cvjobs.yaml`, then the command line.
"""
_LETTERS = {int: "N", float: "X"}


def page() -> str:
    """Return the page as Markdown."""
    shared = config_fields.fields(BatchOptions)
    commands = config_commands.described()
    links = " · ".join(f"[{name}](#cvjobs-{name})" for name in commands) + "\n"
    sections = [_section(name, text, shared) for name, text in commands.items()]
    return "\n".join([HEAD, links, f"{BATCH}\n{_table(shared.values())}", *sections])


def _section(name: str, text: str, shared: dict[str, Field]) -> str:
    kind = config_commands.load(name).Config
    fields = config_fields.fields(kind).values()
    line = " ".join(["cvjobs", name, *(word for field in fields for word in _usage(field)), "[OPTIONS]"])
    batch = issubclass(kind, BatchOptions)
    own = [field for field in fields if not batch or field.name not in shared]
    more = ["And the [options of every batch job](#options-of-every-batch-job).\n"] * batch
    return "\n".join([f"## cvjobs {name}\n", f"{text}\n", f"```\n{line}\n```\n", _table(own), *more])


def _usage(field: Field) -> Iterator[str]:
    """Yield what of a command line every call has."""
    if field.positional:
        yield field.spelt if field.required else f"[{field.spelt}]"
    elif field.required:
        yield f"{field.spelt.partition('/')[0]} {_value(field)}"


def _table(fields: Iterable[Field]) -> str:
    """Return the options as one table, each group below a line with its name."""
    groups: dict[str, list[str]] = {group: [] for group in GROUPS}
    for field in fields:
        groups.setdefault(field.group, []).append(_row(field))
    rows = [row for group, found in groups.items() if found for row in (f"| **{group}** | | |", *found)]
    return "\n".join(["| option | default | |", "|---|---|---|", *rows]) + "\n"


def _row(field: Field) -> str:
    words, default = field.info.help or "", _shown(field.default)
    if found := DEFAULT.search(words):
        words, default = words[: found.start()], found[1]
    if field.info.envvar:
        default = f"`{field.info.envvar}`{', else ' * bool(default)}{default}"
    spelt = field.spelt.replace("/", "`, `")
    option = f"`{spelt}`" if field.positional or field.kind is bool else f"`{spelt} {_value(field)}`"
    cells = (option, "required" if field.required else default, words)
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def _value(field: Field) -> str:
    """Return what stands for the value of an option."""
    if get_origin(field.kind) is Literal:
        return "|".join(get_args(field.kind))
    return str(field.info.metavar or _LETTERS.get(field.kind) or field.name.replace("_", "-").upper())


def _shown(default: Any) -> str:
    if default is False or default in (None, "", ()):
        return ""
    return f"{default:,}" if isinstance(default, int) else f"`{default}`" if isinstance(default, str) else str(default)


if __name__ == "__main__":
    import type_stub

    PAGE.write_text(page())
    type_stub.STUB.write_text(type_stub.stub())
