"""What a shell may complete a command line to, answered before anything heavy is imported.

Typer's ``--install-completion`` writes the scripts, which call ``cvjobs`` with ``_CVJOBS_COMPLETE=complete_SHELL`` and
the line in the environment. Typer's own answers would import rich, and know of no models. Where nothing is answered
the shell completes files.
"""

from __future__ import annotations

import contextlib
import os
import re
import shlex
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

from cvjobs.common import plugins
from cvjobs.common.paths import shipped
from cvjobs.config import commands
from cvjobs.config.fields import Field, fields

# A word that the shell may put in, and what it means.
Answer = tuple[str, str]
_PLACES = {"FILE", "RUN", "FOLDER"}  # in the words for a value, which may be one then
_PLAIN = re.compile(r"[\w.+/-]+")  # what no shell needs quotes for
_FLAGS = ("--help", "--install-completion", "--show-completion", "--version")


def complete(instruction: str, parameters: Callable[[str], list[Any]]) -> int:
    """Print what the line in the environment may be completed to, and return the exit code.

    ``parameters`` returns what Typer has of a command. What is wrong is said when the line is run.
    """
    shell = instruction.rpartition("_")[2]
    found: list[Answer] = []
    with contextlib.suppress(Exception):
        words, current = asked(shell, os.environ)
        found = _answers(words, current, parameters)
    try:
        code = answered(shell, found)
        sys.stdout.flush()
    except OSError:
        commands.discard()
        return 1
    return code


def _answers(words: list[str], current: str, parameters: Callable[[str], list[Any]]) -> list[Answer]:
    if words:
        config = commands.load(words[0]).Config
        line = TypedLine(command=words[0], parameters=parameters(words[0]), fields=fields(config))
        return line.answers(words[1:], current)
    known = {name: text.partition("\n")[0] for name, text in commands.described().items()}
    if current.startswith("-"):
        known = dict.fromkeys(_FLAGS, "")
    return [(name, text) for name, text in known.items() if name.startswith(current)]


@dataclass(frozen=True, kw_only=True)
class TypedLine:
    """The line of a command: its parameters as Typer has them, and the fields of its Config."""

    command: str
    parameters: list[Any]
    fields: Mapping[str, Field]

    def answers(self, words: list[str], current: str) -> list[Answer]:
        """Return what the word ``current`` after the others may become."""
        given, pending, only_places = self._read(words)
        if pending is not None:
            return self._values(pending, given, current)
        name, equals, begun = current.partition("=")
        if name.startswith("--") and equals and not only_places:
            option = self._options().get(name)
            found = self._values(option, given, begun) if option is not None else []
            return [(f"{name}={value}", text) for value, text in found]
        if current.startswith("-") and not only_places:
            return self._names(given, current)
        places = [one for one in self.parameters if one.param_type_name == "argument" and one.name not in given]
        if places:
            return self._values(places[0], given, current)
        return [] if only_places or current else self._names(given, "--")

    def _options(self) -> dict[str, Any]:
        return {
            spelt: one
            for one in self.parameters
            if one.param_type_name == "option"
            for spelt in (*one.opts, *one.secondary_opts)
        }

    def _read(self, words: list[str]) -> tuple[dict[str, str], Any, bool]:
        """Return the values before the word by name, the option whose value it is, and whether no option may follow."""
        options, given, pending, only_places = self._options(), dict[str, str](), None, False
        places = [one.name for one in self.parameters if one.param_type_name == "argument"]
        for word in words:
            name, equals, value = word.partition("=")
            if pending is not None:
                given[pending.name], pending = word, None
            elif word == "--":
                only_places = True
            elif name in options and not only_places:
                given[options[name].name] = value
                pending = None if equals or options[name].is_flag else options[name]
            elif (not word.startswith("-") or only_places) and places:
                given[places.pop(0)] = word
        return given, pending, only_places

    def _names(self, given: Mapping[str, str], current: str) -> list[Answer]:
        """Return the options that may still be given."""
        repeated = {name for name, field in self.fields.items() if field.many}
        known = [
            (spelt, _sentence(one.help))
            for spelt, one in self._options().items()
            if spelt.startswith(current) and not one.hidden and (one.name not in given or one.name in repeated)
            if spelt.startswith("--") or current == "-"
        ]
        return [*known, *[("--help", "Show the options")] * "--help".startswith(current)]

    def _values(self, parameter: Any, given: Mapping[str, str], current: str) -> list[Answer]:
        field = self.fields.get(parameter.name)
        if field is None:
            return []
        words = (field.info.metavar or "").split("|")
        if get_origin(field.kind) is Literal:
            known: Iterable[str] = get_args(field.kind)
        else:  # pretrained|random|FILE, N|auto
            known = [word for word in words if word.islower()] if len(words) > 1 else []
            known = [*self._named(field.name, given, current), *known]
        found = [value for value in known if value.startswith(current)]
        if found and current and (field.name == "model" or _PLACES & set(words)):
            found += _places(current, folders=field.name == "model")  # which the shell leaves out beside other answers
        return [(value, "") for value in found]

    def _named(self, name: str, given: Mapping[str, str], begun: str) -> list[str]:
        """Return the values of an option that are names of files: models, formats, places to run."""
        if name == "model":
            from cvjobs.networks import model_suggestions

            train = self.command == "train" and given.get("task") != "autoencoder"
            return model_suggestions.names("train" if train else given.get("task", self.command), begun)
        if (self.command, name) == ("export", "format"):
            return plugins.names("cvjobs.dataset.exports")
        if (self.command, name) == ("cluster", "name"):
            return sorted(file.stem for file in shipped("cluster").glob("*.yaml"))
        return []


def _places(begun: str, *, folders: bool) -> list[str]:
    """Return the names on disk that begin so and need no quotes, or the folders among them."""
    above, start = os.path.split(begun)
    with contextlib.suppress(OSError), os.scandir(above or ".") as entries:
        names = sorted(one.name for one in entries if one.name.startswith(start) and (one.is_dir() or not folders))
        return [place for name in names if _PLAIN.fullmatch(place := os.path.join(above, name))]
    return []


def split(line: str) -> list[str]:
    """Return the words of a line that may be cut short within quotes."""
    lexer = shlex.shlex(line, posix=True, punctuation_chars=False)
    lexer.whitespace_split, lexer.commenters = True, ""
    words: list[str] = []
    try:
        words.extend(lexer)
    except ValueError:  # no closing quote, or nothing after a backslash
        words.append(lexer.token)
    return words


def asked(shell: str, environment: Mapping[str, str]) -> tuple[list[str], str]:
    """Return the words after ``cvjobs`` that are complete, and the one to complete."""
    if shell == "bash":
        line, at = environment.get("COMP_WORDS", ""), int(environment.get("COMP_CWORD", "0"))
        # The script joins bash's words, which keep their quotes, by line ends.
        words = [" ".join(split(word)) for word in line.split("\n")] if "\n" in line else split(line)
        words, current = words[1:at], words[at] if at < len(words) else ""
        # To bash a = is a word of its own.
        return [word for word in words if word != "="], "" if current == "=" else current
    line = environment.get("_TYPER_COMPLETE_ARGS", "")
    words = split(line)[1:]
    return (words[:-1], words[-1]) if words and not line.endswith(" ") else (words, "")


def answered(shell: str, found: list[Answer]) -> int:
    """Print the answers as the shell's script reads them, and return the exit code."""
    if shell == "zsh":
        print(_zsh(found))
    elif shell == "fish" and os.environ.get("_TYPER_COMPLETE_FISH_ACTION") == "is-args":
        return 0 if found else 1
    else:
        lines = (f"{value}\t{text}" if shell == "fish" and text else value for value, text in found)
        sys.stdout.writelines(f"{line}\n" for line in lines)
    return 0


def _zsh(found: list[Answer]) -> str:
    if not found:
        return "_files"
    pairs = "\n".join(f'"{_escaped(value)}"' + (f':"{_escaped(text)}"' if text else "") for value, text in found)
    return f"_arguments '*: :(({pairs}))'"


def _escaped(text: str) -> str:
    for letter, instead in (('"', '""'), ("'", "''"), ("$", r"\$"), ("`", r"\`"), (":", r"\\:")):
        text = text.replace(letter, instead)
    return text


def _sentence(text: str | None) -> str:
    """Return the first part of an option's help, short enough for a list."""
    return re.split(r"[;:.] |\.$|  \[", text or "", maxsplit=1)[0]
