"""Truths made odd: written in another way that means the same, or spoilt so that they may mean nothing any more.

Every function takes a generator of random numbers; the same one makes the same files.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from xml.sax.saxutils import escape

import numpy as np
import numpy.typing as npt
from PIL import Image

from cvjobs.images.masks import rle

Random = np.random.Generator
Record = dict[str, Any]
Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Scene:
    """Images of one size with objects: the image, the number of the class, and x, y, width and height in pixels."""

    images: Sequence[str]
    classes: Sequence[str]
    objects: Sequence[tuple[int, int, tuple[int, int, int, int]]]
    width: int = 200
    height: int = 160


def scene(random: Random) -> Scene:
    """Return a few images with objects of a few classes, some of them without any."""
    images = [f"p{at}.jpg" for at in range(int(random.integers(1, 5)))]
    classes = [["cat", "no", "traffic light", "café"][at] for at in range(int(random.integers(1, 5)))]
    objects = [
        (
            int(random.integers(len(images))),
            int(random.integers(len(classes))),
            (20 * int(random.integers(5)), 20 * int(random.integers(4)), 20 * int(random.integers(1, 5)), 20 + 20 * at),
        )
        for at in range(int(random.integers(1, 4)))
    ]
    return Scene(images, classes, objects)


def chance(random: Random, share: float = 0.5) -> bool:
    return bool(random.random() < share)


def one(random: Random, *choices: Any) -> Any:
    return choices[int(random.integers(len(choices)))]


def coco(of: Scene, random: Random | None = None) -> bytes:
    """Return the scene as COCO's JSON, plain or in one of the ways that tools have."""
    content = _plain_coco(of)
    if random is None:
        return json.dumps(content).encode()
    _other_ids(content, random)
    for annotation in content["annotations"]:
        _other_fields(annotation, of, random)
    if chance(random, 0.2):
        for image in content["images"]:
            image |= {"license": None, "date_captured": "", "extra": {"name": image["file_name"]}}
    categories = content["categories"]
    if chance(random, 0.2):
        categories.insert(0, {"id": 999, "name": "root", "supercategory": "none"})
    if chance(random, 0.2):
        categories.append(copy.deepcopy(one(random, *categories)))
    for records in (categories, content["images"]):
        random.shuffle(records)
    if chance(random):
        content = {"info": {}, "licenses": [], **content}
    text = json.dumps(content, indent=one(random, None, 1), ensure_ascii=chance(random))
    return text.encode(one(random, "utf-8", "utf-8", "utf-8-sig", "utf-16", "utf-32"))


def _plain_coco(of: Scene) -> Record:
    return {
        "images": [
            {"id": at, "file_name": name, "width": of.width, "height": of.height} for at, name in enumerate(of.images)
        ],
        "annotations": [
            {"id": at, "image_id": i, "category_id": c, "bbox": list(b), "area": b[2] * b[3], "iscrowd": 0}
            | {"segmentation": [[b[0], b[1], b[0] + b[2], b[1], b[0] + b[2], b[1] + b[3], b[0], b[1] + b[3]]]}
            for at, (i, c, b) in enumerate(of.objects, 1)
        ],
        "categories": [{"id": at, "name": name} for at, name in enumerate(of.classes)],
    }


def _other_ids(content: Record, random: Random) -> None:
    first = one(random, 0, 1, 1000, (1 << 53) + 1, (1 << 63) - 2)
    ways: list[Callable[[int], Any]] = [lambda at: first + at, lambda at: f"{first + at}", lambda at: f"x{at}"]
    ways += [lambda at: float(1 + at), lambda at: f"{at:04}", lambda at: -1 - at]
    image = one(random, *ways)
    category = one(random, int, float, str, lambda at: at + (1 << 53))
    for records, key, way in (
        ("images", "id", image),
        ("annotations", "image_id", image),
        ("categories", "id", category),
        ("annotations", "category_id", category),
    ):
        for record in content[records]:
            record[key] = way(record[key])


def _other_fields(annotation: Record, of: Scene, random: Random) -> None:
    x, y, w, h = annotation["bbox"]
    mask = np.zeros((of.height, of.width), bool)
    mask[y : y + h, x : x + w] = True
    flat = np.concatenate([[False], mask.T.ravel(), [False]])
    turns = np.flatnonzero(flat[1:] != flat[:-1])
    size = [of.height, of.width]
    counts = np.diff(turns, prepend=0, append=mask.size).tolist()
    annotation["segmentation"] = one(
        random,
        annotation["segmentation"],
        {"size": size, "counts": counts},
        {"size": size, "counts": rle.encode(mask, (0, 0), (of.height, of.width))},
    )
    annotation["iscrowd"] = one(random, 0, None, False, 0.0, "0")
    annotation["area"] = one(random, annotation["area"], None, float(annotation["area"]), str(annotation["area"]))
    annotation["bbox"] = one(random, annotation["bbox"], [float(n) for n in annotation["bbox"]], None, [])
    for key in ("iscrowd", "area", "bbox", "id"):
        if chance(random, 0.15):
            del annotation[key]
    if chance(random, 0.3):
        annotation |= {"attributes": {"occluded": False}, "ignore": 0, "keypoints": [], "score": None}


def results(of: Scene) -> bytes:
    """Return a file of results that finds all of the scene, as `coco` numbers it."""
    plain = _plain_coco(of)
    keys = ("image_id", "category_id", "bbox", "segmentation")
    mask = np.zeros((of.height, of.width), bool)
    outline = {"size": [of.height, of.width], "counts": rle.encode(mask, (0, 0), mask.shape)}
    said = [{key: annotation[key] for key in keys} | {"score": 0.5} for annotation in plain["annotations"]]
    return json.dumps([{**record, "segmentation": outline} for record in said]).encode()


def yolo(of: Scene, folder: Path, random: Random | None = None) -> None:
    """Write the scene as a folder of YOLO's labels."""
    odd = random is not None
    random = random or np.random.default_rng(0)
    part = odd and chance(random, 0.3)
    texts = dict.fromkeys(range(len(of.images)), "")
    for image, class_, (x, y, w, h) in of.objects:
        box = [(x + w / 2) / of.width, (y + h / 2) / of.height, w / of.width, h / of.height]
        texts[image] += _line(class_, box, random if odd else None)
    for at, text in texts.items():
        stem = of.images[at].removesuffix(".jpg")
        place = one(random, "train/labels", "valid/labels") if part else "labels"
        encoding = one(random, "utf-8", "utf-8-sig") if odd else "utf-8"
        end = one(random, "\n", "\r\n", "\n\n", " \t\n") if odd else "\n"
        _put(folder / place / f"{stem}.txt", text.replace("\n", end).encode(encoding))
        if odd and chance(random):
            _put(folder / place.replace("labels", "images") / of.images[at], b"")
    _put(folder / "data.yaml", _yaml(of.classes, random if odd else None))
    if odd and chance(random):
        _put(folder / "README.dataset.txt", b"# 5 images > 2026\nhttps://example.com\n")
        notes = folder / ("train/labels" if (folder / "train").is_dir() else "labels")
        if notes.is_dir():
            _put(notes / "notes.txt", one(random, b"to do\n", b"caf\xe9 \xff\n", b"./images/a.jpg\n"))


def _line(class_: int, box: list[float], random: Random | None) -> str:
    if random is None:
        return f"{class_} {' '.join(f'{number:.9f}' for number in box)}\n"
    x, y, w, h = box
    corners = [x - w / 2, y - h / 2, x + w / 2, y - h / 2, x + w / 2, y + h / 2, x - w / 2, y + h / 2]
    numbers = one(random, box, corners, [*box, 0.5])
    name = one(random, str(class_), f"{class_:.1e}", f"{float(class_)}", f"{class_:02}")
    form = one(random, "{:.9f}", "{:.18e}", "{:.12g}")
    gap = str(one(random, " ", "\t", "  "))
    return gap.join([name, *map(form.format, numbers)]) + "\n"


def _yaml(classes: Sequence[str], random: Random | None) -> bytes:
    listed = "\n".join(f"- {name}" for name in classes)
    numbered = "\n".join(f"  {at}: {name}" for at, name in enumerate(classes))
    text = f"names:\n{listed}\n"
    if random is None:
        return text.encode()
    text = one(random, text, f"names:\n{numbered}\n", json.dumps({"names": list(classes)}), f"nc: 9\n{text}")
    return str(text).encode(one(random, "utf-8", "utf-8-sig", "utf-16"))


def voc(of: Scene, folder: Path, random: Random | None = None) -> None:
    """Write the scene as a folder of VOC's XML."""
    for at, name in enumerate(of.images):
        objects = [(of.classes[c], box) for i, c, box in of.objects if i == at]
        place = folder / "Annotations" if random is not None and chance(random) else folder
        _put(place / f"{name.removesuffix('.jpg')}.xml", _xml(name, objects, random))


def _xml(name: str, objects: Sequence[tuple[str, tuple[int, int, int, int]]], random: Random | None) -> bytes:
    pieces = []
    for class_, (x, y, w, h) in objects:
        form = "{}" if random is None else one(random, "{}", "{}.0", " {}\n", "{}.000e0")
        sides = {"xmin": x, "ymin": y, "xmax": x + w, "ymax": y + h}
        box = [f"<{side}>{form.format(number)}</{side}>" for side, number in sides.items()]
        inside = [f"<name>{escape(class_)}</name>", "<difficult>0</difficult>"]
        if random is not None:
            random.shuffle(box)
            inside[1] = one(random, "", "<difficult/>", "<difficult>0</difficult>", "<difficult> false </difficult>")
            inside += one(random, [], ["<part><name>head</name></part>"], ["<!-- <name>x</name> -->"])
        inside.append(f"<bndbox>{''.join(box)}</bndbox>")
        if random is not None:
            random.shuffle(inside)
        pieces.append(f"<object>{''.join(inside)}</object>\n")
    head = f"<filename>{name}</filename>\n"
    if random is None:
        return f"<annotation>{head}{''.join(pieces)}</annotation>".encode()
    head = one(random, head, "", "<filename/><size/>\n", "<size><width>no</width></size>\n<segmented/>")
    root = one(random, "annotation", 'annotation xmlns="http://example.com/voc"', 'annotation verified="yes"')
    body = f"<{root}>{head}{''.join(pieces)}</annotation>"
    return body.replace("\n", one(random, "\n", "\r\n")).encode(one(random, "utf-8", "utf-8-sig", "utf-16"))


def maps(random: Random, values: Sequence[int]) -> dict[str, Pixels]:
    """Return class maps of a few images, by the names of the images, with at least two values in each."""
    found = {}
    for at in range(int(random.integers(1, 4))):
        ids = random.choice(np.array(values, np.uint8), (int(random.integers(1, 5)), int(random.integers(2, 5))))
        ids.flat[:2] = values[:2]
        found[f"p{at}.jpg"] = np.kron(ids, np.ones((3, 5), np.uint8)).astype(np.uint8)
    return found


def masks(of: dict[str, Pixels], folder: Path, random: Random | None = None) -> None:
    """Write class maps as a folder of PNGs."""
    folder.mkdir(parents=True, exist_ok=True)
    whole = random is not None and chance(random, 0.3)
    for name, pixels in of.items():
        image = Image.fromarray(pixels)
        options: Record = {}
        if random is not None:
            way = one(random, "plain", "palette", "deep", "bits", "interlaced")
            if way == "palette":
                image = Image.fromarray(pixels, "P")
                image.putpalette(random.integers(0, 256, 768).tolist())
            elif way == "deep":
                image = Image.fromarray(pixels.astype(np.uint16))
            elif way == "bits" and pixels.max() < 16:
                options = {"bits": 4}
            options |= {"optimize": chance(random)} if way != "bits" else {}
        image.save(folder / f"{name if whole else name.removesuffix('.jpg')}.png", **options)


ODD: list[Any] = [
    None, True, -1, 0, 0.5, 7, 1e308, float("inf"), float("nan"), (1 << 53) + 1, 1 << 64, 10**400, "", " ", "x", "7",
    "7.0", "nan", "\ud800", "\0", "a\nb", "x" * 5000, [], {}, [[]], [[], []], [[1, 2]], [1], ["x"], {"counts": "x"},
    {"size": [160, 200], "counts": "0" * 9}, {"size": [1 << 40, 1 << 40], "counts": [1]}, {"size": [0, -3]},
    {"size": [160, 200], "counts": [-1, 5]}, {"size": [160, 200], "counts": [1 << 40]}, [[1e9, 0, 5, 5, 1, 1]],
]  # fmt: skip


def spoil_json(content: bytes, random: Random) -> bytes:
    """Return JSON with some values replaced, removed or repeated."""
    whole = json.loads(content)
    for _ in range(int(random.integers(1, 4))):
        within, key = _somewhere(whole, random)
        if key is None:
            return json.dumps(one(random, *ODD)).encode()
        if chance(random, 0.2):
            del within[key]
        elif chance(random, 0.2) and isinstance(within, list):
            within.append(copy.deepcopy(within[key]))
        else:
            within[key] = copy.deepcopy(one(random, *ODD))
    return json.dumps(whole).encode()


def _somewhere(whole: Any, random: Random) -> tuple[Any, Any]:
    """Return a container within nested ones and a key in it; None where the whole is no container."""
    places = list(_places(whole))
    return one(random, *places) if places else (None, None)


def _places(whole: Any) -> Iterator[tuple[Any, Any]]:
    for key in list(whole) if isinstance(whole, dict) else range(len(whole)) if isinstance(whole, list) else ():
        yield whole, key
        if not (isinstance(whole[key], list) and len(whole[key]) > 9):  # long ones are as good as one of their numbers
            yield from _places(whole[key])
        else:
            yield whole[key], len(whole[key]) // 2


WORDS = [
    "0", "1", "-1", "nan", "inf", "1e400", "0.5", "99", "x", ",", "0,5", "<", ">", "</object>", "<object>", "<name>",
    "&amp;", "&x;", "\0", "\ufeff", "caf\xe9", "\u2028", "9" * 400, "1_0", "<bndbox/>", "<![CDATA[", "<!--", "%", "#",
]  # fmt: skip


def spoil_text(content: bytes, random: Random) -> bytes:
    """Return text with some words or numbers replaced, removed or put in."""
    text = content.decode(errors="replace")
    for _ in range(int(random.integers(1, 3))):
        begin = int(random.integers(len(text) + 1))
        end = min(begin + int(random.integers(0, 12)), len(text))
        numbers = list(re.finditer(r"-?[0-9][0-9.e+-]*", text))
        if numbers and chance(random, 0.6):
            begin, end = one(random, *numbers).span()
        text = text[:begin] + one(random, *WORDS) + text[end:]
    return text.encode(errors="replace")


def spoil_bytes(content: bytes, random: Random) -> bytes:
    """Return bytes that are cut, turned, repeated or others."""
    found = bytearray(content)
    way = int(random.integers(5))
    if way == 0:
        return content[: int(random.integers(len(content) + 1))]
    if way == 1:
        for _ in range(int(random.integers(1, 9)) if found else 0):
            found[int(random.integers(len(found)))] ^= 1 << int(random.integers(8))
        return bytes(found)
    if way == 2:
        at = int(random.integers(len(content) + 1))
        return content[:at] + random.bytes(int(random.integers(1, 20))) + content[at:]
    return content + content if way == 3 else b""


def spoil(folder: Path, random: Random) -> None:
    """Spoil some of the files in a folder."""
    files = sorted(file for file in folder.rglob("*") if file.is_file())
    for _ in range(int(random.integers(1, 4))):
        file = one(random, *files)
        content = file.read_bytes()
        ways = [spoil_bytes] if file.suffix == ".png" else [spoil_bytes, spoil_text, spoil_text]
        file.write_bytes(one(random, *ways)(content, random))


def _put(file: Path, content: bytes) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content)
