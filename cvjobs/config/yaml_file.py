"""Reads the options of one command from ``cvjobs.yaml``: its top-level keys are commands, theirs the options.

A value means what the same word means on the command line: YAML only gives text and lists of text here, so that
``off`` stays a choice, ``1e-3`` a number and ``2:8`` a range, which YAML 1.1 turns into False, text and 128.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.common.paths import plain
from cvjobs.config.fields import NOTHING, fields, from_text, named

NAME = "cvjobs.yaml"
LIMIT = 1 << 20  # bytes: a larger file is no configuration


def section(config: type, command: str, commands: Collection[str], file: str | None) -> dict[str, Any]:
    """Return the values that the file gives for one command, checked, by field name.

    Without ``file``, ``cvjobs.yaml`` in the working directory counts where it exists. Raises ``WrongUse`` for a file
    that cannot be read, an unknown command or option, and a value of the wrong type.
    """
    if file is None and not os.path.lexists(NAME):
        return {}
    if file is None and Path(NAME).is_fifo():  # with --config one may be meant, as a shell's <(...)
        raise WrongUse(f"{NAME} is no file: move it away.")
    file = plain(file or NAME)
    document = load(file, "give --config a YAML file of commands and their options")
    if not isinstance(document, dict):
        raise WrongUse(f"{file} must map commands to their options, as in 'embed: {{workers: 2}}'.")
    for name in document:
        if name not in commands:
            raise WrongUse(f"{file} has a section '{name}', which is no command{nearest(name, commands)}.")
    given = document.get(command) or {}
    if not isinstance(given, dict):
        raise WrongUse(f"'{command}' in {file} must map options to values, as in 'embed: {{workers: 2}}'.")
    return options(config, given, f" under '{command}' in {file}")


def options(config: type, given: Mapping[str, Any], place: str) -> dict[str, Any]:
    """Return the values of options given as text and lists of text, checked, by field name.

    Raises ``WrongUse`` about ``place`` (" under 'embed' in cvjobs.yaml") for an unknown name and a wrong value.
    """
    known = fields(config)
    values: dict[str, Any] = {}
    for key, node in given.items():
        field = named(known, key.replace("-", "_"), place)
        if field.name in values:
            raise WrongUse(f"'{field.name}' is given twice{place}: remove one.")
        empty = field.optional and node in NOTHING
        values[field.name] = None if empty else from_text(field, node, f"'{key}'{place}")
    return values


def load(file: str, remedy: str) -> Any:
    """Return the text, lists and mappings of a YAML file ({} for an empty one).

    Raises ``WrongUse`` with the remedy where the file cannot be read or is too large, or with the line that is wrong.
    """
    import yaml

    from cvjobs.config.yaml_loader import YamlLoader

    try:
        with Path(file).open("rb") as stream:
            text = stream.read(LIMIT + 1)
    except OSError as error:
        raise WrongUse(f"Cannot read {file} ({error.strerror}): {remedy}.") from error
    if len(text) > LIMIT:
        raise WrongUse(f"{file} is larger than 1 MiB: {remedy}.")
    try:
        loader = YamlLoader(text)
        loader.name = file
        return loader.get_single_data() or {}
    except RecursionError:
        raise WrongUse(f"{file} is nested too deeply: {remedy}.") from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f" in line {mark.line + 1}" if mark else ""
        problem = getattr(error, "problem", None) or " ".join(str(error).split())
        raise WrongUse(f"{file} is not valid YAML{line} ({problem}): fix it.") from error
