"""What makes two trainings the same one, noted in the run's folder: what is continued, and what is refused."""

from __future__ import annotations

import json
from typing import Any

from cvjobs import context
from cvjobs.errors import WrongUse
from cvjobs.storage import LocalStore
from cvjobs.training import leaving
from cvjobs.training.plan import HISTORY
from cvjobs.training.summary import FILE as SUMMARY

CONFIG = "config.json"


def earlier(store: LocalStore) -> dict[str, Any]:
    """Return what a run was begun with, empty where there is none."""
    try:
        identity: dict[str, Any] = json.loads(store.read(CONFIG))["identity"]
        return identity
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError):
        raise WrongUse(f"{store.place}/{CONFIG} is no run's: choose another -o, or give --overwrite.") from None


def check(store: LocalStore, earlier: dict[str, Any], now: dict[str, Any]) -> None:
    """Raise WrongUse with the difference where a run was begun with other settings or images."""
    different = [name for name in now if earlier.get(name) != now[name]]
    if not different:
        return
    words = {"data": "other images or labels", "classes": "other classes", "weights": "other weights"}
    shown = [
        words.get(name) or f"{name.replace('_', '-')} {_short(earlier.get(name))}, not {_short(now[name])}"
        for name in different[:3]
    ]
    raise WrongUse(
        f"{store.place} was begun with {'; '.join(shown)}: choose another -o, or give --overwrite to begin anew."
    )


def note(store: LocalStore, identity: dict[str, Any], *, anew: bool) -> None:
    """Note what a run is begun or continued with; ``anew`` deletes what an earlier one left.

    Raises:
        WrongUse: the run has a history and no checkpoints.
    """
    if anew:
        store.delete("checkpoints", "tensorboard", SUMMARY, HISTORY, CONFIG)
    leaving.record(store.place, CONFIG, {"identity": identity, "command": "train", "libraries": context.libraries()})
    if store.size(HISTORY) and not store.names("checkpoints"):
        raise WrongUse(
            f"{store.place} has a {HISTORY} and no checkpoints, and training does not silently start over: "
            "bring them back, or give --overwrite."
        )


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text.strip('"') if len(text) <= 60 else f"{text[:57]}..."
