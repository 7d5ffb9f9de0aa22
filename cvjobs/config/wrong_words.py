"""The sentence about a word that a command line should not have: an option, a command or a value too many."""

from __future__ import annotations

import difflib
import os
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from cvjobs.common.errors import CvjobsError, nearest
from cvjobs.common.formatting import shortened
from cvjobs.config import commands, other_tools
from cvjobs.config.fields import SOURCES, Field, fields

CLOSE = 0.7  # how alike two options must be for one to be a slip of the other


def option(command: str, typed: str) -> str:
    """Return what to type instead of an option that a command does not have."""
    word = typed.lstrip("-").replace("_", "-").lower()
    own = _options(command)
    start = f"{command} has no option {shortened(typed)}"
    meant = other_tools.OPTIONS.get(word, ())
    if here := [_spelt(own, wanted) for wanted in (word, *meant) if wanted.partition(" ")[0] in own]:
        return f"{start}: here it is {here[0]}."
    if advice := other_tools.ADVICE.get(word):
        return f"{start}: {advice.format(command=command)}."
    for wanted in (word, *meant):
        name = wanted.partition(" ")[0]
        if having := [other for other in commands.files() if other != command and name in _options(other)]:
            shown = _spelt(_options(having[0]), wanted)
            also = "" if wanted == word else f"; {shown} may be meant, which"
            return f"{start}{also or f'; {shown}'} is an option of {_listed(having)}: see 'cvjobs {command} --help'."
    close = difflib.get_close_matches(word, own, n=2, cutoff=CLOSE)
    near = f" (nearest: {', '.join(own[name].spelt for name in close)})" if close else ""
    return f"{start}{near}: see 'cvjobs {command} --help'."


def _options(command: str) -> dict[str, Field]:
    """Return the options of a command by their long names, none of one that cannot be used."""
    try:
        known = fields(commands.load(command).Config)
    except CvjobsError:
        return {}
    return {name.replace("_", "-"): field for name, field in known.items() if not field.positional}


def _spelt(known: Mapping[str, Field], wanted: str) -> str:
    name, _, value = wanted.partition(" ")
    return f"{known[name].spelt} {value}".rstrip()


def _listed(names: Sequence[str], most: int = 4) -> str:
    return ", ".join(names[:-1][: most - 1]) + (" and " if len(names) > 1 else "") + names[-1]


def command(typed: str) -> str:
    """Return what to type instead of a command that there is not."""
    known = commands.files()
    meant = other_tools.COMMANDS.get(typed.lower(), ())
    if typed.lower() in known:
        meant = (typed.lower(),)
    if meant:
        ways = " or ".join(f"'cvjobs {name}'" for name in meant)
        return f"There is no command '{shortened(typed)}': {ways} may be meant; 'cvjobs --help' lists the commands."
    return f"There is no command '{shortened(typed)}'{nearest(typed, known)}: see 'cvjobs --help'."


def too_many(command: str, config: type, given: Mapping[str, Any], left: Sequence[str]) -> str:
    """Return what to type instead of more values than a command takes by position.

    ``given`` are those that it took, by the names of the fields; ``left`` are the others.
    """
    known = fields(config)
    taken = [field for field in known.values() if field.positional]
    last = taken[-1] if taken else None
    value = given.get(last.name) if last else None
    if last and last.name in SOURCES and isinstance(value, str):
        every = [value, *left]
        if os.path.lexists(" ".join(every)):
            return f"{last.spelt} is a name with spaces: quote it, as in {shlex.quote(' '.join(every))}."
        if len(left) > 1 or os.path.exists(left[0]):
            return _several(command, last, every)
    out = known.get("out")
    if len(left) == 1 and out and not out.positional and given.get("out") is None:
        typed = f"{out.spelt.split('/')[0]} {shlex.quote(left[0])}"
        return f"{shortened(left[0])} is one value too many: if it is the output, type {typed}."
    takes = " ".join(field.spelt for field in taken) or "no value by position"
    first = shortened(left[0]) + (f" and {len(left) - 1:,} more" if len(left) > 1 else "")
    return f"{command} takes {takes}, so {first} is too many: quote what has spaces, or see 'cvjobs {command} --help'."


def _several(command: str, field: Field, places: Sequence[str]) -> str:
    """Return what to type instead of many images: an output remembers one source, and looks there again."""
    folders = {os.path.dirname(place) for place in places}
    endings = {os.path.splitext(place)[1] for place in places}
    folder = next(iter(folders)) if len(folders) == 1 else ""
    pattern = os.path.join(folder, f"*{next(iter(endings)) if len(endings) == 1 else ''}")
    quoted = f"quote the pattern, as in '{pattern}'" if len(folders) == 1 else "quote the pattern"
    return (
        f"{command} takes one {field.spelt}, and {len(places):,} were given, as a shell makes of a pattern: {quoted}, "
        f"or name the folder{f' ({shlex.quote(folder)})' if folder else ''} or a .txt list of them."
    )
