"""The settings of a recipe as options of ``cvjobs train``: made from the recipe's own fields, none of them repeated."""

from __future__ import annotations

from typing import Annotated, Any, Literal, TypeVar, get_origin

import typer

from cvjobs.training.recipe.recipe import NAMED, NOT_OF_BOXES, NOT_OF_MASKS, OF_BOXES, OF_CLASSES, SETTINGS
from cvjobs.training.recipe.setting import Setting, option_of, sides, span

Config = TypeVar("Config")

_NOT_OF = {  # settings that a recipe has no value for
    "autoencoder": (*OF_CLASSES, *OF_BOXES, "scale_jitter", "copy_paste"),
    "segment": (*NOT_OF_MASKS, *OF_BOXES, "denoise"),
    "segment-many": (*NOT_OF_MASKS, *OF_BOXES, "denoise"),
    "detect": (*NOT_OF_BOXES, "denoise"),
    "detect-many": (*NOT_OF_BOXES, "denoise"),
}
OF_PICTURES = ("denoise", "scale_jitter", "copy_paste", *OF_BOXES)  # what no recipe for classes has


def replaceable(config: type[Config]) -> type[Config]:
    """Add every setting of a recipe to a driver's Config, below ``@dataclass``; None keeps the recipe's own value."""
    for name, (kind, setting) in SETTINGS.items():
        switch = kind is bool
        text = kind if get_origin(kind) is Literal or switch else str if get_origin(kind) is tuple else kind
        config.__annotations__[name] = Annotated[text if switch else text | None, _option(name, kind, setting)]
        setattr(config, name, False if switch else None)
    return config


def replaced(config: object) -> dict[str, Any]:
    """Return the settings that a Config gives, by name and as a Recipe has them.

    Raises:
        WrongUse: what stands for two numbers is something else.
    """
    values = {name: getattr(config, name) for name in SETTINGS}
    for name, value in values.items():
        if isinstance(value, str) and get_origin(SETTINGS[name][0]) is tuple:
            values[name] = sides(value) if name == "img_size" else span(value, option_of(name))
    return values


def _option(name: str, kind: Any, setting: Setting) -> Any:
    spelt = (option_of(name),) if kind is bool else ()  # without a word for turning it off
    limit = setting.limit
    return typer.Option(
        *spelt,
        help=setting.help if kind is bool else f"{setting.help}  [default: {_default(name, setting)}]",
        metavar=setting.metavar,
        min=1 if kind is int and limit and limit.least is None else limit and limit.least,
        max=limit and limit.most,
        rich_help_panel=setting.group,
    )


def _default(name: str, setting: Setting) -> str:
    """Return the value in each recipe: first the one that most of them have, then which recipes have another."""
    having: dict[str, list[str]] = {}
    for recipe, own in NAMED.items():
        if name not in _NOT_OF.get(recipe, OF_PICTURES):
            having.setdefault(_shown(getattr(own, name), setting), []).append(recipe)
    common = max(having, key=lambda value: len(having[value]))
    named = {value: f"{value} in {' and '.join(recipes)}" for value, recipes in having.items()}
    if len(having) == 1 or len(having[common]) > 1:
        named = {common: common} | {value: words for value, words in named.items() if value != common}
    return ", ".join(named.values())


def _shown(value: Any, setting: Setting) -> str:
    if isinstance(value, tuple):
        return ":".join(f"{number:.3g}" for number in value) or setting.off
    return f"{value:g}" if isinstance(value, (int, float)) else value or setting.off
