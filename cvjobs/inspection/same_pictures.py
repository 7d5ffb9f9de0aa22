"""Images that are there several times, byte by byte: in two splits, or in one, perhaps with another label."""

from __future__ import annotations

from collections.abc import Sequence

from cvjobs.inspection.problems import Problems

_ORDER = {"train": 0, "val": 1, "test": 2}


def note(
    paths: Sequence[str],
    hashes: Sequence[bytes | None],
    splits: Sequence[str],
    labels: Sequence[tuple[str, ...]] | None,
    problems: Problems,
) -> None:
    """Note the images whose content is that of an image before them; those of train come first.

    Args:
        paths: The n images.
        hashes: Of their content, None of one that has none.
        splits: Empty where there are none.
        labels: The classes of each, None where these do not count.
        problems: Where they are noted.
    """
    first: dict[bytes, int] = {}
    for at in sorted(range(len(paths)), key=lambda at: (_ORDER.get(splits[at], 3), paths[at])):
        content = hashes[at]
        before = at if content is None else first.setdefault(content, at)
        if before == at:
            continue
        differs = labels is not None and labels[at] != labels[before]
        kind = "leak" if splits[at] != splits[before] else "contradiction" if differs else "double"
        detail = f"in {splits[before]}" if kind == "leak" and splits[before] else ""
        if differs and labels is not None:
            said = f"{_said(labels[at])} here, {_said(labels[before])} there"
            detail = ", ".join(filter(None, [detail, said]))
        problems.add(kind, paths[at], split=splits[at], other=paths[before], detail=detail)


def _said(labels: Sequence[str]) -> str:
    return "|".join(labels) or "no label"
