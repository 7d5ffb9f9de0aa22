"""PASCAL VOC's XML, one file an image: objects with a name and a ``bndbox`` in pixels, taken as they are written.

What is ``difficult`` may be found or not, as in VOC's evaluation.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from xml.parsers import expat

import numpy as np

from cvjobs.common.categories import Category
from cvjobs.evaluation.ground_truth import folder_files
from cvjobs.evaluation.ground_truth.types import BadTruth, Complaint, ObjectTruth, refuse
from cvjobs.evaluation.metrics.objects import Truths

CORNERS = ("xmin", "ymin", "xmax", "ymax")
DEEPEST = 100
FARTHEST = 1e9  # pixels
TRUE = ("1", "1.0", "true", "yes")


def fits(path: Path) -> bool:
    """Return whether a place is a folder with XML files."""
    return path.is_dir() and folder_files.any_below(path, ".xml")


def read(path: Path, masks: bool, names: Sequence[str], bad: Complaint = refuse) -> ObjectTruth:  # noqa: ARG001 - VOC's XML has boxes alone
    """Return the objects of a folder; classes are in the order of ``names``, or of the alphabet. Raises BadTruth."""
    found = folder_files.below(path, ".xml")
    rows: list[tuple[int, str, list[float], bool]] = []
    sizes = []
    for at, file in enumerate(found):
        try:
            root = _parse(file)
            rows += [(at, *row) for row in _objects(file, root, names, bad)]
        except BadTruth as error:
            bad(error)
            root = _Node("", 0)
        sizes.append(_size(root))
    known = list(names) or sorted({row[1] for row in rows})
    position = {name: at for at, name in enumerate(known)}
    corners = np.array([row[2] for row in rows], np.float64).reshape(-1, 4)
    boxes = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
    nothing = np.zeros(len(rows), np.bool_)
    images = [folder_files.name_of(file, path) for file in found]
    return ObjectTruth(
        format="voc",
        names=images,
        endings=folder_files.whole(images),
        categories=[Category(at + 1, name) for at, name in enumerate(known)],
        sizes=sizes,
        objects=Truths(
            image=np.array([row[0] for row in rows], np.int64),
            category=np.array([position[row[1]] for row in rows], np.int64),
            boxes=boxes,
            area=boxes[:, 2] * boxes[:, 3],
            crowd=nothing,
            ignored=np.array([row[3] for row in rows], np.bool_),
            unnumbered=nothing,
        ),
    )


def _size(root: _Node) -> tuple[int, int]:
    """Return the height and width that a file gives, (0, 0) where it gives none."""
    said = root.first("size")
    try:
        height, width = (int(said.text(side)) for side in ("height", "width")) if said else (0, 0)
    except ValueError:
        return 0, 0
    return (height, width) if 0 < height < FARTHEST and 0 < width < FARTHEST else (0, 0)


def _objects(file: Path, root: _Node, names: Sequence[str], bad: Complaint) -> list[tuple[str, list[float], bool]]:
    found = []
    if root.tag != "annotation":
        raise BadTruth(file, root.line, f"is no VOC annotation: it begins with <{root.tag[:40]}>")
    for thing in root.all("object"):
        try:
            found.append(_object(file, thing, names))
        except BadTruth as error:
            bad(error)
    return found


def _object(file: Path, thing: _Node, names: Sequence[str]) -> tuple[str, list[float], bool]:
    name, box = thing.text("name"), thing.first("bndbox")
    if not name or box is None:
        raise BadTruth(file, thing.line, f"has an object without a {'bndbox' if name else 'name'}", "box_bad")
    if names and name not in names:
        raise BadTruth(file, thing.line, f"has an object {name!r}, which --labels does not name", "class_unknown")
    try:
        corners = [float(box.text(side)) for side in CORNERS]
    except ValueError:
        corners = [np.nan]
    if not (np.abs(corners) < FARTHEST).all() or corners[2] < corners[0] or corners[3] < corners[1]:
        raise BadTruth(file, box.line, "has a bndbox without xmin <= xmax and ymin <= ymax", "box_bad")
    return name, corners, thing.text("difficult").lower() in TRUE


@dataclass
class _Node:
    """An element: its tag, the line it begins in, its text and what is in it."""

    tag: str
    line: int
    words: list[str] = field(default_factory=list)
    inside: list[_Node] = field(default_factory=list)

    def all(self, tag: str) -> list[_Node]:
        return [node for node in self.inside if node.tag == tag]

    def first(self, tag: str) -> _Node | None:
        return next(iter(self.all(tag)), None)

    def text(self, tag: str) -> str:
        node = self.first(tag)
        return "".join(node.words).strip() if node else ""


def _parse(file: Path) -> _Node:
    """Return the root element; entities are refused, so nothing expands and nothing else is read."""
    parser = expat.ParserCreate()
    top = _Node("", 0)
    path = [top]

    def begin(named: str, _attributes: dict[str, str]) -> None:
        tag = named.rpartition(":")[2]  # without the prefix of a namespace
        if len(path) > DEEPEST:
            raise BadTruth(file, parser.CurrentLineNumber, f"is nested over {DEEPEST} elements deep")
        node = _Node(tag, parser.CurrentLineNumber)
        path[-1].inside.append(node)
        path.append(node)

    def text(piece: str) -> None:
        path[-1].words.append(piece)

    def entity(*_: object) -> None:
        raise BadTruth(file, parser.CurrentLineNumber, "declares an entity, which no VOC annotation does")

    parser.StartElementHandler = begin
    parser.EndElementHandler = lambda _: path.pop()
    parser.CharacterDataHandler = text
    parser.EntityDeclHandler = entity
    try:
        parser.Parse(folder_files.content(file), True)
    except expat.ExpatError as error:
        raise BadTruth(file, error.lineno, f"is no XML ({expat.ErrorString(error.code)})") from error
    except (LookupError, ValueError) as error:  # an encoding that is unknown, or has letters of several bytes
        raise BadTruth(file, None, f"is no XML that can be read ({error}): save it as UTF-8") from error
    return top.inside[0]
