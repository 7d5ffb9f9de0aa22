"""A driver's Config dataclass as command-line options and as Python keywords, with every value checked.

The frozen keyword-only dataclass is the only place where an option is named, typed, explained and given its default:
``workers: Annotated[int, typer.Option(min=1, help="The Ray workers.", rich_help_panel="Machine")] = 1``. A type is
str, int, float, bool, a Literal of strings, or a tuple[one of them, ...], each with or without ``| None``; a field
without a default is required. ``int | str`` is a whole number or words of which the driver knows the meaning.
"""

from __future__ import annotations

import dataclasses
import inspect
import os
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import MISSING, dataclass
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from typer.models import ArgumentInfo, ParameterInfo

from cvjobs.common.errors import WrongUse, nearest
from cvjobs.common.paths import flaw, plain

Config = TypeVar("Config")

REQUIRED, GENERAL = "Required", "General"  # groups of options: those without a default, and those that name no group

PLACES = frozenset({"FILE", "DIR", "FOLDER"})  # what an option's metavar is where its value is a path
SOURCES = frozenset({"source", "data"})  # what images are named by, which may be a glob
HOMED = frozenset({"model"})  # what may be a path besides other things
SYNONYMS = {"imgsz": "img_size", "img_size": "imgsz"}  # names of one thing: a command has one, and takes both

_WORDS = {bool: "true or false", int: "a whole number", float: "a number", str: "text"}
_MOST = {int: 2**63 - 1, float: 10**9}  # of a number whose option names no bound: what numpy, torch and files can hold
NOTHING = ("", "null", "~")  # how YAML writes that there is no value
_BOOLEANS = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


@dataclass(frozen=True, kw_only=True)
class Field:
    """One option of a Config: ``annotation`` as written, ``kind`` the type of a single value of it.

    One that is ``worded`` may be text as well.
    """

    name: str
    annotation: Any
    info: ParameterInfo
    kind: Any
    many: bool
    optional: bool
    default: Any
    worded: bool = False

    @property
    def required(self) -> bool:
        """Whether the Config gives no default."""
        return self.default is MISSING

    @property
    def group(self) -> str:
        """The heading in ``--help`` that the option stands below."""
        return REQUIRED if self.required else self.info.rich_help_panel or GENERAL

    @property
    def choices(self) -> tuple[str, ...]:
        """The words that the value may be; empty where it may be any."""
        return get_args(self.kind) if get_origin(self.kind) is Literal else ()

    @property
    def positional(self) -> bool:
        """Whether the command line takes the value by position."""
        return isinstance(self.info, ArgumentInfo)

    @property
    def place(self) -> bool:
        """Whether the value names a file or a folder, or images."""
        if self.kind is not str or self.many:
            return False
        words = set((self.info.metavar or "").split("|"))
        return bool(PLACES & words) or self.name in SOURCES or (self.positional and self.required)

    @property
    def spelt(self) -> str:
        """The option as a user types it: ``SOURCE``, ``-o/--out``, ``--batch-size``."""
        if self.positional:
            return self.name.upper()
        # Typer takes an option's first spelling for a default until it has seen the annotation.
        spellings = [text for text in (self.info.default, *(self.info.param_decls or ())) if isinstance(text, str)]
        return "/".join(spellings) or f"--{self.name.replace('_', '-')}"

    @property
    def range(self) -> tuple[float, float]:
        """The least and the most that one number may be."""
        low, high, most = self.info.min, self.info.max, _MOST[self.kind]
        return -most if low is None else low, most if high is None else high

    @property
    def _word(self) -> str:
        """What text may stand in a number's place, as the option's metavar says it: ``N|auto``."""
        return (self.info.metavar or "").partition("|")[2] or "text"

    def wanted(self, value: object = None) -> str:
        """Return what one value must be, in words; a bound that no option names is told of where a value is beyond."""
        if self.choices:
            return f"one of {', '.join(self.choices)}"
        low, high = self.info.min, self.info.max
        if self.kind in _MOST and isinstance(value, (int, float)) and not isinstance(value, bool):
            least, most = self.range
            low, high = least if value < least else low, most if value > most else high
        between = [f"at least {low}"] * (low is not None) + [f"at most {high}"] * (high is not None)
        parts = (_WORDS[self.kind], " and ".join(between), f"or {self._word}" * self.worded)
        return " ".join(part for part in parts if part)


def fields(config: type) -> dict[str, Field]:
    """Return the options of a Config by name, in the order they are written; TypeError where it is none."""
    if not dataclasses.is_dataclass(config):
        raise TypeError("its Config is no dataclass")
    hints = get_type_hints(config, include_extras=True)
    return {field.name: _field(field, hints[field.name]) for field in dataclasses.fields(config)}


def _field(field: dataclasses.Field[Any], hint: Any) -> Field:
    try:
        annotation, info = get_args(hint)
    except ValueError:
        annotation, info = hint, None
    if not isinstance(info, ParameterInfo):
        raise TypeError(f"{field.name} in Config is not written as Annotated[TYPE, typer.Option(help=...)]")
    choices = get_args(annotation) if get_origin(annotation) in (Union, UnionType) else (annotation,)
    optional, worded = NoneType in choices, {int, str} <= set(choices)
    kinds = [choice for choice in choices if choice is not NoneType and not (worded and choice is str)]
    kind = kinds[0] if len(kinds) == 1 else None
    many = get_origin(kind) is tuple
    one = get_args(kind)[0] if many else kind
    if one not in _WORDS and get_origin(one) is not Literal:
        raise TypeError(f"{field.name} in Config is of no type that an option can have: {annotation}")
    return Field(
        name=field.name,
        annotation=annotation,
        info=info,
        kind=one,
        many=many,
        optional=optional,
        default=field.default,
        worded=worded,
    )


def command_signature(config: type) -> inspect.Signature:
    """Return the keyword parameters from which Typer makes the options; required values may come from elsewhere."""
    return inspect.Signature([_parameter(field) for field in fields(config).values()])


def _parameter(field: Field) -> inspect.Parameter:
    info = copy(field.info)
    kind, default = field.kind, field.default
    info.case_sensitive = False  # of choices
    if kind in (int, float):
        # As text to ``from_text``: a wrong number then gets the same sentence here as in cvjobs.yaml.
        info.metavar = info.metavar or f"<{kind.__name__}>"
        info.min = info.max = None
        kind = str
    if field.positional:
        info.metavar = field.name.upper() if field.required else f"[{field.name.upper()}]"
    info.rich_help_panel = field.group
    if field.required:
        default = None  # it may still come from cvjobs.yaml
    if default is not None and kind is str:
        default = [str(value) for value in default] if field.many else str(default)
    if default in ([], ()):
        default = None
    if field.many:
        kind = list[kind]  # type: ignore[valid-type]
    return inspect.Parameter(
        field.name,
        inspect.Parameter.KEYWORD_ONLY,
        default=default,
        annotation=Annotated[kind | None if default is None else kind, info],
    )


def from_text(field: Field, text: object, place: str) -> Any:
    """Return the value that text, or a list of texts, stands for; raise ``WrongUse`` about ``place`` otherwise."""
    if field.many and isinstance(text, list):
        return checked(field, [_native(field.kind, entry) for entry in text], place)
    return checked(field, text if field.many else _native(field.kind, text), place)


def _native(kind: Any, text: Any) -> Any:
    """Return the text as a value of this kind, or unchanged where it is none: ``checked`` then says so."""
    if not isinstance(text, str):
        return text
    if kind is bool:
        return _BOOLEANS.get(text.lower(), text)
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text


def checked(field: Field, value: object, place: str) -> Any:
    """Return ``value`` as the field's type, or raise ``WrongUse`` about ``place`` ("workers", "--workers", ...)."""
    if value is None and field.optional:
        return None
    if not field.many:
        return _one(field, value, place)
    if not isinstance(value, (list, tuple)):
        raise WrongUse(f"{place} must be a list{_no_list(field, value)}.")
    return tuple(_one(field, entry, f"Every entry of {place}") for entry in value)


def _one(field: Field, value: Any, place: str) -> Any:
    if isinstance(value, os.PathLike):
        value = os.fspath(value)
    kind = field.kind
    if field.worded and isinstance(value, str) and "\0" not in value:
        return value
    if field.choices:
        value = _choice(field.choices, value)
        good = value in field.choices
    elif kind in (bool, str) or isinstance(value, bool):  # True is a number to Python, not to a user
        good = type(value) is kind
    else:
        good = isinstance(value, Integral if kind is int else Real)
        if good:  # before it is converted: an int may be too large for a float
            low, high = field.range
            good = low <= value <= high
            value = kind(value) if good else value
    if not good:
        hint = nearest(value, field.choices, 1) if isinstance(value, str) and field.choices else ""
        raise WrongUse(f"{place} must be {field.wanted(value)}, not {shown_value(value)}{hint}.")
    if isinstance(value, str) and value[:1] == "~" and (field.place or field.name in HOMED):
        value = _from_home(value)
    if isinstance(value, str) and (why := flaw(value, field.name in SOURCES) if field.place else _nul(value)):
        raise WrongUse(f"{place} {why}.")
    return _plain(field, value) if isinstance(value, str) and field.place else value


def _plain(field: Field, name: str) -> str:
    """Return a name for sentences to show; a source is known by what it was called, and ./random is no word."""
    if field.name in SOURCES:
        return name
    word = "|" in (field.info.metavar or "") and name.startswith("./")
    return f"./{plain(name).removeprefix('./')}" if word else plain(name)


def _choice(choices: tuple[str, ...], value: Any) -> Any:
    """Return the choice that a value is but for upper case, or the value as it is."""
    lower = value.lower() if isinstance(value, str) else value
    return value if value in choices else next((choice for choice in choices if choice.lower() == lower), value)


def _no_list(field: Field, value: object) -> str:
    """Return what a value is in a list's place, and which list is meant where that can be said."""
    shown = shown_value(value)
    if isinstance(value, Mapping) or shown.endswith("..."):
        return f", each entry {field.wanted()}, not {shown}"
    none = value is None or (isinstance(value, str) and value in NOTHING)
    return f", not {shown}: write {'[] for none' if none else f'[{shown}]'}"


def _from_home(name: str) -> str:
    """Return a name with the folder that ``~`` stands for, as a shell does, unless there is one that is called so."""
    return name if os.path.lexists(name.partition("/")[0]) else os.path.expanduser(name)


def _nul(text: str) -> str:
    return flaw(text, pattern=True) if "\0" in text else ""


def shown_value(value: object) -> str:
    """Return a wrong value for a sentence."""
    if isinstance(value, (list, tuple)):
        return "a list"
    if isinstance(value, Mapping):
        return "a mapping"
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."


def named(known: Mapping[str, Field], name: str, place: str) -> Field:
    """Return the field of that name or of its synonym, or raise ``WrongUse`` with the nearest one."""
    if name not in known:
        if SYNONYMS.get(name) in known:
            return known[SYNONYMS[name]]
        raise WrongUse(f"There is no option '{name}'{place}{nearest(name, known)}.")
    return known[name]


def build(config: type[Config], *arguments: Any, **options: Any) -> Config:
    """Build a Config from Python values, each of them checked.

    Positional values are taken in the order of ``python_order``: the source, the output. Raises ``WrongUse`` for an
    unknown name, a missing value or one of the wrong type.
    """
    known = fields(config)
    order = python_order(known)
    if len(arguments) > len(order):
        raise WrongUse(f"Too many positional values ({len(arguments)}): give at most {' and '.join(order) or 'none'}.")
    placed = dict(zip(order, arguments, strict=False))
    by_name: dict[str, Any] = {}
    for typed, value in options.items():
        name = named(known, typed, "").name
        if name in placed:
            raise WrongUse(f"{name} is given twice: by position and by name.")
        if name in by_name:
            raise WrongUse(f"{name} is given twice, as {SYNONYMS[name]}, too: remove one.")
        by_name[name] = value
    return complete(config, placed | by_name, lambda field: f"{field.name} is missing: pass {field.name}=...")


def python_order(known: Mapping[str, Field]) -> list[str]:
    """Return the names that Python callers may give by position.

    These are the required arguments, the required options and the other arguments, as in ``query(index, source)``.
    """
    required = [field for field in known.values() if field.required]
    first = sorted(required, key=lambda field: not field.positional)
    return [field.name for field in [*first, *(f for f in known.values() if f.positional and not f.required)]]


def complete(config: type[Config], values: Mapping[str, Any], missing: Callable[[Field], str]) -> Config:
    """Check the values and fill in the defaults; ``missing`` words the sentence about a required value not given."""
    known = fields(config)
    for field in known.values():
        if field.required and field.name not in values:
            raise WrongUse(missing(field))
    return config(**{name: checked(known[name], value, name) for name, value in values.items()})
