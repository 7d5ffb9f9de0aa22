"""What a pipeline file says: its steps, each checked as its own command would check it, before the first one runs."""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.common.fingerprint import digest
from cvjobs.config import commands as config_commands
from cvjobs.config import fields as config_fields
from cvjobs.config import yaml_file
from cvjobs.config.argv import typed
from cvjobs.config.fields import shown_value
from cvjobs.storage.storage_options import hidden

KEYS = ("name", "state", "variables", "settings", "notify_command", "steps")
NO_STEPS = ("run", "schedule", "jobs", "cluster", "unlock")
OURS = ("json", "dry_run", "detach", "id")  # a night reads the JSON, and waits for the end, of real runs
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,62}")
_VARIABLE = re.compile(r"\$\{([^}]*)\}")
_NUMBER = re.compile(r"[+-]?[0-9.]+")
_REMEDY = "name a YAML file with steps, as docs/nightly.md shows"


@dataclass(frozen=True, kw_only=True)
class NightStep:
    """One command of a pipeline: ``words`` is its argv without ``cvjobs``; ``json`` says whether it can answer in it.

    ``line`` is the command line, as a person types it in the pipeline's folder, without what is secret.
    """

    name: str
    command: str
    words: tuple[str, ...]
    values: Mapping[str, Any]
    line: str
    json: bool

    @property
    def digest(self) -> str:
        """What tells the step from one with another command line."""
        return digest({"words": self.words})


@dataclass(frozen=True, kw_only=True)
class Pipeline:
    """A pipeline file, read and checked; relative paths in it start at ``folder``, the file's own."""

    name: str
    file: Path
    folder: Path
    state: Path
    variables: dict[str, str]
    notify: tuple[str, ...]
    steps: tuple[NightStep, ...]


def read(file: str) -> Pipeline:
    """Read a pipeline file; raises WrongUse, with what to correct, for the first thing in it that is wrong."""
    document = yaml_file.load(file, _REMEDY)
    if not isinstance(document, dict):
        raise WrongUse(f"{file} is no pipeline: {_REMEDY}.")
    given = {}
    for key, value in document.items():
        name = key.replace("-", "_")
        if name not in KEYS:
            raise WrongUse(f"There is no key '{key}' in a pipeline{nearest(name, KEYS)}: correct {file}.")
        given[name] = value
    path = Path(file).absolute()
    name = _name(given.get("name", path.stem), f"The name of the pipeline in {file}")
    variables = _variables(given.get("variables", []), file)
    notify = given.get("notify_command", [])
    reader = _Reader(file, variables)
    state = _state(reader.text(given.get("state", ""), "state"), path)
    steps = reader.steps(given.get("steps"), given.get("settings") or {})
    for step in steps:
        if _place(str(step.values.get("out") or "."), path) == state:
            raise WrongUse(
                f"The step '{step.name}' writes into {state}, the 'state' of {file}: give that its own folder."
            )
    words = _notify(reader, notify)
    return Pipeline(
        name=name,
        file=path,
        folder=path.parent,
        state=state,
        variables=variables,
        notify=words,
        steps=steps,
    )


def argv(command: str, place: str) -> tuple[str, ...]:
    """Split a command as a shell would, without running one; raises WrongUse about ``place`` where it cannot be."""
    try:
        return tuple(shlex.split(command))
    except ValueError as error:
        raise WrongUse(f"{place} cannot be split into words ({error}): quote them as in a shell.") from None


def _notify(reader: _Reader, value: Any) -> tuple[str, ...]:
    """Return the words of the notify-command, none where there is none; raises WrongUse for a number."""
    place = "notify-command"
    if isinstance(value, str):
        words = argv(reader.text(value, place), f"{place} in {reader.file}")
    else:
        words = tuple(reader.texts(value, place))
    if words and _NUMBER.fullmatch(words[0]):
        raise WrongUse(f"'{place}' in {reader.file} must begin with a program, not {words[0]!r}.")
    return words


def _name(text: Any, place: str) -> str:
    if not isinstance(text, str) or not _NAME.fullmatch(text):
        raise WrongUse(f"{place} must be a word of letters, digits, '-', '_' and '.', not {text!r:.80}.")
    return text


def _variables(names: Any, file: str) -> dict[str, str]:
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise WrongUse(f"'variables' in {file} must list names, as in 'variables: [DAY]'.")
    for name in names:
        if name not in os.environ:
            raise WrongUse(f"The variable {name} of {file} is not set: set it, as in '{name}=... cvjobs run {file}'.")
    return {name: os.environ[name] for name in names}


def _state(text: str, file: Path) -> Path:
    if not text:
        raise WrongUse(f"'state' is missing in {file}: name the folder that remembers the nights and gets their page.")
    if "://" in text:
        raise WrongUse(f"'state' in {file} must be a folder on this machine, not {text}: only outputs may be remote.")
    return _place(text, file)


def _place(text: str, file: Path) -> Path:
    return Path(os.path.normpath(file.parent / Path(os.path.expanduser(text))))


class _Reader:
    """Reads steps: replaces variables in values, and has every option checked by its command's Config."""

    def __init__(self, file: str, variables: dict[str, str]) -> None:
        self.file, self._variables = file, variables

    def text(self, value: Any, place: str) -> str:
        """Return text with the variables in it replaced."""
        if not isinstance(value, str):
            raise WrongUse(f"'{place}' in {self.file} must be text, not {shown_value(value)}.")
        if "\0" in value:
            raise WrongUse(f"'{place}' in {self.file} holds a NUL character: remove it.")
        return _VARIABLE.sub(lambda found: self._variable(found[1], place), value)

    def _variable(self, name: str, place: str) -> str:
        if name not in self._variables:
            near = nearest(name, self._variables)
            raise WrongUse(
                f"'{place}' in {self.file} uses ${{{name}}}, which is not among its 'variables'{near}: add it there."
            )
        return self._variables[name]

    def texts(self, value: Any, place: str) -> list[str]:
        """Return a list of texts with the variables in them replaced."""
        if not isinstance(value, list):
            raise WrongUse(f"'{place}' in {self.file} must be text or a list of texts, not {shown_value(value)}.")
        return [self.text(entry, place) for entry in value]

    def steps(self, entries: Any, settings: Any) -> tuple[NightStep, ...]:
        """Return the steps; a setting goes to every step whose command has it, and a step's own option wins."""
        if not isinstance(entries, list) or not entries:
            raise WrongUse(f"{self.file} has no steps: list commands, as in 'steps: [{{embed: {{source: ...}}}}]'.")
        if not isinstance(settings, dict):
            raise WrongUse(f"'settings' in {self.file} must map options to values, as in 'settings: {{workers: 2}}'.")
        shared = {key.replace("-", "_"): value for key, value in settings.items()}
        steps: list[NightStep] = []
        known: set[str] = set()
        for number, entry in enumerate(entries, start=1):
            step, options = self._step(number, entry, shared)
            if step.name in {earlier.name for earlier in steps}:
                raise WrongUse(f"Two steps in {self.file} are named '{step.name}': give one another 'name'.")
            steps.append(step)
            known |= options
        for key in shared:
            if key not in known:
                raise WrongUse(f"No step in {self.file} has an option for the setting '{key}'{nearest(key, known)}.")
        return tuple(steps)

    def _step(self, number: int, entry: Any, shared: dict[str, Any]) -> tuple[NightStep, set[str]]:
        commands = [key for key in entry if key != "name"] if isinstance(entry, dict) else []
        if len(commands) != 1:
            raise WrongUse(
                f"Step {number} in {self.file} must have a name and one command, as in "
                "'{name: vectors, embed: {source: photos, out: vectors}}'."
            )
        (command,) = commands
        choices = [name for name in config_commands.files() if name not in NO_STEPS]
        if command not in choices:
            raise WrongUse(f"Step {number} in {self.file}: '{command}' is no command{nearest(command, choices)}.")
        name = _name(entry.get("name", command), f"The name of step {number} in {self.file}")
        place = f" in step '{name}' of {self.file}"
        own = entry[command] or {}
        if not isinstance(own, dict):
            raise WrongUse(f"'{command}'{place} must map options to values, as in '{{source: photos}}'.")
        driver = config_commands.load(command)
        fields = config_fields.fields(driver.Config)
        named = {key.replace("-", "_") for key in own}
        given = {key: value for key, value in shared.items() if key in fields and key not in named} | own
        for key in OURS:
            if key in named | set(given):
                raise WrongUse(f"The option '{key}'{place} is the night's own: leave it out.")
        texts = {key: self._value(value, key) for key, value in given.items()}
        for key, value in given.items():
            field = fields.get(key.replace("-", "_"))
            if field and field.place and value and not texts[key]:
                raise WrongUse(f"'{key}'{place} is empty, as {value} is: set it to the name of a file or a folder.")
        values = yaml_file.options(driver.Config, texts, place)
        config_fields.complete(driver.Config, values, lambda field: f"'{field.name}' is missing{place}: add it.")
        secret = {"storage_option": hidden(values["storage_option"])} if "storage_option" in values else {}
        step = NightStep(
            name=name,
            command=command,
            words=tuple(typed(command, driver.Config, values)),
            values=values,
            line=shlex.join(["cvjobs", *typed(command, driver.Config, values | secret)]),
            json="json" in fields,
        )
        return step, set(fields)

    def _value(self, value: Any, place: str) -> Any:
        """Return a value with the variables in its texts replaced; what is no value of an option is told of later."""
        if isinstance(value, list):
            return [self.text(entry, place) if isinstance(entry, str) else entry for entry in value]
        return self.text(value, place) if isinstance(value, str) else value
