"""A Config as the words of its command line: as typed here, and as sent to a cluster."""

from __future__ import annotations

import os
import shlex
from collections.abc import Mapping
from typing import Any

from cvjobs.common.errors import WrongUse
from cvjobs.config.fields import PLACES, Field, fields
from cvjobs.storage.storage_options import hidden


def typed(command: str, config: type, values: Mapping[str, Any]) -> list[str]:
    """Return the argv, without ``cvjobs``, that gives a command these checked values; what is None is left out."""
    known = fields(config)
    given = [(known[name], value) for name, value in values.items() if value is not None]
    positional = [str(values[f.name]) for f in known.values() if f.positional and values.get(f.name) is not None]
    options = [word for field, value in given if not field.positional for word in _option(field, value)]
    if any(value.startswith("-") for value in positional):
        return [command, *options, "--", *positional]
    return [command, *positional, *options]


def _option(field: Field, value: Any) -> list[str]:
    if field.kind is bool:
        return [_long(field)] * value
    return [word for entry in (value if field.many else [value]) for word in (_long(field), str(entry))]


def sent(command: str, config: Any) -> list[str]:
    """Return the arguments of ``cvjobs`` for a command: what differs from the defaults, without the cluster's address.

    Raises WrongUse for a secret among the storage options: others can read a job's command line.
    """
    flags: list[str] = []
    places: list[str] = []
    for field in fields(type(config)).values():
        value = getattr(config, field.name)
        if field.name == "address" or value is None or value == field.default:
            continue
        if field.name == "storage_option":
            _refuse_secrets(value)
        for entry in value if field.many else [value]:
            text = _absolute(field, entry)
            if field.positional:
                places.append(text)
            elif isinstance(entry, bool):
                flags.append(_long(field) if entry else f"--no-{field.name.replace('_', '-')}")
            else:
                flags.append(f"{_long(field)}={text}")
    # What the job's own working folder happens to have as cvjobs.yaml is not meant.
    return [command, "--config=/dev/null", *flags, "--", *places]


def entrypoint(arguments: list[str]) -> str:
    """Return what Ray's shell runs: ``exec`` leaves no shell behind that would keep a signal from the job."""
    line = f"exec python -m cvjobs {shlex.join(arguments)}"
    try:
        line.encode()
    except UnicodeEncodeError:
        raise WrongUse("A path that is not UTF-8 cannot be sent to a cluster: give a folder above it.") from None
    return line


def same(line: str, other: str) -> bool:
    """Return whether two lines that a shell runs mean the same: the order of the options does not matter."""
    return _parts(line) == _parts(other)


def _parts(line: str) -> tuple[list[str], list[str]]:
    arguments = shlex.split(line)
    ends = arguments.index("--") if "--" in arguments else len(arguments)
    return sorted(arguments[:ends]), arguments[ends:]


def _long(field: Field) -> str:
    return field.spelt.rpartition("/")[2]


def _absolute(field: Field, value: Any) -> str:
    text = str(value)
    place = field.positional or field.name == "out" or field.info.metavar in PLACES
    # --weights also takes words: "random" is no path unless there is a file of that name.
    place = place or (field.name == "weights" and (os.sep in text or os.path.exists(text)))
    return os.path.abspath(os.path.expanduser(text)) if place and "://" not in text else text


def _refuse_secrets(options: tuple[str, ...]) -> None:
    for option, shown in zip(options, hidden(options), strict=True):
        if option != shown:
            name = option.partition("=")[0]
            raise WrongUse(
                f"--storage-option {name} is not sent to a cluster, where a job's command line can be read: "
                "give the cluster's machines the credentials, in their environment or by a role."
            )
