"""The names of a model's classes: from a file of one a line, checked against the head, and WordNet's ids of them."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from cvjobs.common.class_labels import spelling
from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted, shortened

MOST = 64 << 20  # bytes
IMAGENET = 1000  # classes
NONE = ("__background__", "N/A")  # what torchvision calls numbers that are no class
WORDNET = re.compile(r"n\d{8}")  # as ImageNet's folders are named


def read(path: str) -> list[str]:
    """Return the class names in a text file (UTF-8), one a line, in the order of the model's classes.

    The file may change under its name, so what a job notes as ``asked`` are these names, not the path.

    Raises:
        WrongUse: the file is missing, larger than 64 MiB or no text, has an empty line before its last name, or a name
            twice.
    """
    try:
        with open(path, "rb") as file:
            content = file.read(MOST + 1)
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise WrongUse(f"The labels file {path} is no UTF-8 text: write one class name a line.") from None
    except OSError as error:
        raise WrongUse(f"Cannot read the labels file {path} ({error.strerror}): name a file with --labels.") from None
    if len(content) > MOST:
        raise WrongUse(f"The labels file {path} is larger than 64 MiB: write one class name a line.")
    names = [line.strip() for line in text.rstrip().split("\n")]
    lines: dict[str, int] = {}
    for number, name in enumerate(names, 1):
        if not name:
            raise WrongUse(f"Line {number} of the labels file {path} is empty: write one class name a line.")
        if name in lines:
            raise WrongUse(
                f"The labels file {path} has {shortened(name)!r} in the lines {lines[name]} and {number}: "
                "write each class once, in the order of the model's classes."
            )
        lines[name] = number
    return names


def for_head(
    classes: int, given: Sequence[str], published: Sequence[str], model: str, given_by: str = "--labels"
) -> list[str]:
    """Return the names of a head's classes: those given with ``--labels``, or the published ones.

    ``classes`` and both lists are without a background class.

    Raises:
        WrongUse: neither list has as many names as the head has classes.
    """
    if given and len(given) != classes:
        raise WrongUse(
            f"{given_by} has {counted(len(given), 'names')} and the weights of {model} have "
            f"{counted(classes, 'classes')}: write one name a line, in the order of the model's classes."
        )
    if not given and len(published) != classes:
        raise WrongUse(
            f"The weights of {model} have {counted(classes, 'classes')} that only you can name: "
            "give --labels FILE with one name a line, in the order of the model's classes."
        )
    return list(given or published)


def wordnet(names: Sequence[str]) -> dict[str, str]:
    """Return WordNet's ids of the names that only one class of ImageNet has, as torchvision, timm or WordNet say them.

    ``tench, Tinca tinca`` and each part of it are names of ``n01440764``; a name that ends with an id in brackets is
    that id.
    """
    found = {name: ended[1] for name in names if (ended := _WITH_ID.fullmatch(name))}
    for subset in ("imagenet-1k", "imagenet-22k"):
        if left := [name for name in names if name not in found]:
            owners = _owners(subset)
            of = {name: owners.get(name, owners.get(spelling(name), ())) for name in left}
            found |= {name: next(iter(ids)) for name, ids in of.items() if len(ids) == 1}
    return found


_WITH_ID = re.compile(rf".*\(({WORDNET.pattern})\)")


def _owners(subset: str) -> dict[str, set[str]]:
    """Return the ids of the classes that have a name, by its spelling."""
    from timm.data.imagenet_info import ImageNetInfo

    described = ImageNetInfo(subset).label_descriptions(as_dict=True)
    assert isinstance(described, dict)
    parts: defaultdict[str, set[str]] = defaultdict(set)
    whole: defaultdict[str, set[str]] = defaultdict(set)
    for number, text in described.items():
        whole[spelling(text)].add(number)
        for part in text.split(","):
            parts[spelling(part)].add(number)
    exact: dict[str, set[str]] = {}
    if len(described) == len(categories := imagenet()):  # which has ImageNet's classes in this order
        exact = {name: {number} for name, number in zip(categories, described, strict=True)}
    spelt = {spelling(name): ids for name, ids in exact.items()}
    return {**parts, **whole, **spelt, **exact}


def coco() -> list[str]:
    """Return torchvision's names of COCO's classes by their numbers from 0, those of ``NONE`` for the unused ones."""
    from torchvision.models.detection import FasterRCNN_ResNet50_FPN_V2_Weights

    names: list[str] = FasterRCNN_ResNet50_FPN_V2_Weights.DEFAULT.meta["categories"]
    return names


def voc() -> list[str]:
    """Return torchvision's names of the classes of Pascal VOC, the background first."""
    from torchvision.models.segmentation import LRASPP_MobileNet_V3_Large_Weights

    names: list[str] = LRASPP_MobileNet_V3_Large_Weights.DEFAULT.meta["categories"]
    return names


def imagenet() -> list[str]:
    """Return torchvision's names of ImageNet's thousand classes, in their usual order."""
    from torchvision.models import MobileNet_V2_Weights

    names: list[str] = MobileNet_V2_Weights.DEFAULT.meta["categories"]
    return names
