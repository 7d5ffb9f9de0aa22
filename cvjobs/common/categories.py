"""The classes that a model knows, and how an output says in its facts which task and classes it holds."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

BACKGROUND = "__background__"  # what a class map has where there is nothing to see, by the name in the weights


@dataclass(frozen=True)
class Category:
    """A class that a model knows: the number it has in the results, and its name."""

    id: int
    name: str


def facts(task: str, categories: list[Category]) -> dict[str, Any]:
    """Return the two facts by which an output says what it holds, as JSON types."""
    return {"task": task, "categories": [[c.id, c.name] for c in categories]}


def task(facts: Mapping[str, Any]) -> str:
    """Return the task of an output by its facts; empty where it has vectors, or nothing yet."""
    found: str = facts.get("task", "")
    return found


def categories(facts: Mapping[str, Any]) -> list[Category]:
    """Return the classes that an output's model knows, by its facts."""
    return [Category(id_, name) for id_, name in facts.get("categories", [])]


def landmarks(facts: Mapping[str, Any]) -> list[str]:
    """Return the names of the points that an output's model finds of each object, by its facts; most find none."""
    return list(facts.get("landmarks", []))


def things(facts: Mapping[str, Any]) -> list[Category]:
    """Return the classes of what there is to see: all but the background of a class map."""
    return [category for category in categories(facts) if category.name != BACKGROUND]
