"""What is drawn over pictures: boxes where they are, masks pixel by pixel, tags that never cover one another."""

from __future__ import annotations

import base64
import io

import numpy as np
import numpy.typing as npt
import pytest
from page_parser import harmless, macro
from PIL import Image
from pycocotools import mask as coco

from cvjobs.html import overlays, palette
from cvjobs.html.overlays import Overlay, Shape
from cvjobs.html.thumbnails import Thumbnail

PHOTO = Thumbnail("data:image/jpeg;base64,AAAA", 100, 50)


def shape(*box: float, category_id: int = 1, label: str = "cat", score: float | None = 0.5, rle: str = "") -> Shape:
    assert len(box) == 4
    return Shape(category_id=category_id, label=label, box=box, score=score, rle=rle)


def encode(mask: npt.NDArray[np.bool_]) -> str:
    counts: bytes = coco.encode(np.asfortranarray(mask, np.uint8))["counts"]
    return counts.decode()


def decoded(uri: str) -> npt.NDArray[np.uint8]:
    kind, _, content = uri.partition(",")
    assert kind == "data:image/png;base64"
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(content))).convert("RGBA"))


def test_boxes_are_brought_to_the_picture_and_stay_inside_it() -> None:
    drawn = overlays.draw([shape(200, 100, 600, 300), shape(-50, 390, 2000, 900)], (400, 1000), (40, 100))
    first, second = drawn.boxes
    assert (first.x, first.y, first.width, first.height) == (20, 10, 40, 20)
    assert (second.x, second.y, second.width, second.height) == (0, 39, 100, 1)
    assert first.hint == "cat 0.50"
    assert Overlay.load(drawn.record()) == drawn


def test_landmarks_are_dots_inside_of_the_picture_and_smaller_in_small_boxes() -> None:
    points = ((200.0, 100.0), (300.0, 200.0), (-1.0, 5.0), (float("nan"), 5.0))
    large, small = (
        Shape(category_id=1, label="face", box=box, points=points) for box in ((0, 0, 800, 400), (200, 100, 320, 220))
    )
    drawn = overlays.draw([large, small], (400, 1000), (400, 1000))
    assert [(dot.x, dot.y) for dot in drawn.dots] == [(200, 100), (300, 200)] * 2
    assert drawn.dots[0].radius == pytest.approx(1000 / 160, abs=0.06)
    tiny = overlays.draw([small], (400, 1000), (40, 100))
    assert tiny.dots[0].radius == 0.6  # of a box of 12 pixels
    assert Overlay.load(drawn.record()) == drawn
    before = {name: value for name, value in drawn.record().items() if name != "dots"}
    assert Overlay.load(before).dots == ()


def test_boxes_of_no_place_are_left_out_and_flat_ones_are_still_seen() -> None:
    drawn = overlays.draw([shape(float("nan"), 0, 5, 5), shape(30, 5, 30, 5)], (50, 100), (50, 100))
    assert [(box.x, box.y, box.width, box.height) for box in drawn.boxes] == [(30, 5, 1, 1)]
    assert drawn.more == 1


def test_many_boxes_are_counted_and_not_drawn() -> None:
    shapes = [shape(i, i, i + 40, i + 30, score=1 - i / 1000) for i in range(300)]
    drawn = overlays.draw(shapes, (400, 400), (320, 320))
    assert len(drawn.boxes) == overlays.MOST
    assert drawn.more == 300 - overlays.MOST
    page = macro("{{ parts.picture(image, 'a.jpg', over) }}", image=PHOTO, over=drawn)
    assert "250 more boxes" in " ".join(harmless(page).text)
    assert len(page) < 25_000


def test_tags_do_not_cover_one_another_nor_the_picture() -> None:
    random = np.random.default_rng(0)
    corners = np.sort(random.uniform(0, 240, (60, 2, 2)), axis=1)
    shapes = [shape(*c.ravel().tolist(), label="zebra" * int(n)) for c, n in zip(corners, range(60), strict=True)]
    tags = overlays.draw(shapes, (240, 240), (240, 240)).tags
    assert 3 <= len(tags) < 20
    lines = sorted((tag.top, tag.left) for tag in tags)
    near = [(a, b) for i, a in enumerate(lines) for b in lines[i + 1 :] if b[0] - a[0] < 100 * overlays.LINE / 240]
    assert all(a[1] != b[1] for a, b in near)


@pytest.mark.parametrize("label", ["<script>alert(1)</script>", '" onload="x', "=1+1", "line\nbreak", "\udcff"])
def test_what_a_label_holds_is_never_markup(label: str) -> None:
    drawn = overlays.draw([shape(10, 20, 60, 45, label=label)], (50, 100), (50, 100))
    body = "{{ parts.picture(image, 'a.jpg', over) }}{{ parts.legend([(3, label, '7')]) }}"
    harmless(macro(body, image=PHOTO, over=drawn, label=label))


@pytest.mark.parametrize("size", [(37, 53), (1, 9), (200, 3)])
def test_a_mask_of_the_pictures_size_is_drawn_pixel_by_pixel(size: tuple[int, int]) -> None:
    random = np.random.default_rng(1)
    for share in (0.0, 0.03, 0.5, 1.0):
        mask = random.random(size) < share
        box = (0.0, 0.0, float(size[1]), float(size[0]))
        uri = overlays.draw([shape(*box, category_id=4, rle=encode(mask))], size, size).mask
        assert bool(uri) == mask.any()
        if uri:
            pixels = decoded(uri)
            np.testing.assert_array_equal(pixels[..., 3] > 0, mask)
            assert (pixels[mask][:, :3] == palette.rgb(4)).all()


def test_a_large_mask_is_reduced_and_the_best_shape_is_on_top() -> None:
    mask = np.zeros((3000, 4000), np.bool_)
    mask[1000:2000, 1000:3000] = True
    below = np.zeros_like(mask)
    below[:, 2000:] = True
    shapes = [shape(1000, 1000, 3000, 2000, category_id=2, rle=encode(mask))]
    shapes.append(shape(2000, 0, 4000, 3000, category_id=3, rle=encode(below)))
    pixels = decoded(overlays.draw(shapes, mask.shape, (240, 320)).mask)
    assert pixels.shape == (240, 320, 4)
    assert tuple(pixels[120, 100, :3]) == tuple(pixels[120, 230, :3]) == palette.rgb(2)
    assert tuple(pixels[20, 230, :3]) == palette.rgb(3)
    assert pixels[20, 20, 3] == 0
    assert 0 < pixels[120, 120, 3] < 200 < pixels[80, 120, 3]


@pytest.mark.parametrize("rle", ["~", "no mask", "0", "\x00\xff", "P" * 50, "é日", "1" * 5000, "oooooooooooooooo0"])
def test_a_string_that_is_no_mask_draws_none(rle: str) -> None:
    drawn = overlays.draw([shape(0, 0, 100, 50, rle=rle)], (50, 100), (50, 100))
    assert len(drawn.boxes) == 1
    assert drawn.mask == ""


def png(ids: npt.NDArray[np.integer]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(ids).save(file, "PNG")
    return file.getvalue()


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_class_map_is_reduced_and_coloured_by_class(kind: type[np.integer]) -> None:
    ids = np.zeros((300, 400), kind)
    ids[:, 200:] = 21
    ids[200:] = 250
    pixels = decoded(overlays.colour_map(png(ids), [1, 21], (30, 40)).mask)
    assert pixels.shape == (30, 40, 4)
    assert tuple(pixels[5, 30, :3]) == palette.rgb(21)
    assert (pixels[:20, 20:, 3] > 0).all()
    assert (pixels[:, :20, 3] == 0).all()
    assert (pixels[20:, :, 3] == 0).all()


def test_what_is_no_class_map_is_refused() -> None:
    photo = io.BytesIO()
    Image.new("RGB", (4, 4)).save(photo, "PNG")
    for content in (b"", b"garbage", photo.getvalue(), png(np.zeros((9, 9), np.uint8))[:40]):
        with pytest.raises((ValueError, OSError)):
            overlays.colour_map(content, [1], (4, 4))


def test_colours_of_classes_are_fixed_and_readable() -> None:
    assert len(set(palette.COLOURS)) == len(palette.COLOURS)
    assert palette.place(3) == palette.place(3 + len(palette.COLOURS))
    for number in range(len(palette.COLOURS)):
        red, green, blue = (((v / 255 + 0.055) / 1.055) ** 2.4 for v in palette.rgb(number))
        light = 0.2126 * red + 0.7152 * green + 0.0722 * blue
        assert (light + 0.05) / (0.0056 + 0.05) > 4.5, "dark letters are read on it"
