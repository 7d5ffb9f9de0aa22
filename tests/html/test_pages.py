"""Pages: nothing is loaded, nothing a name holds is ever markup, numbers and axes read well, bad images cost little."""

from __future__ import annotations

import base64
import io
import os
import re
import time
import unicodedata
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import jinja2
import pyarrow as pa
import pytest
from page_parser import harmless, macro
from PIL import Image

from cvjobs.common import formatting
from cvjobs.html import charts
from cvjobs.html.render import render
from cvjobs.html.thumbnails import LATE, Thumbnail, thumbnails
from cvjobs.images.decode_children import DecoderServer
from cvjobs.sources.listing import list_source
from cvjobs.sources.reader import LocalSource


@pytest.mark.parametrize(
    "name",
    ["<script>alert(1)</script>.jpg", '" onerror="x.jpg', "a' onload='x", "{{ 7 * 7 }}.jpg", "&lt;b&gt;.jpg"],
)
def test_what_a_name_holds_is_never_markup(name: str) -> None:
    page = harmless(macro("{{ parts.name(n) }}{{ parts.thumbnail(t, n) }}", n=name, t=Thumbnail(reason=name)))
    assert page.text.count(name) == 3
    assert [a["title"] for _, a in page.elements if "title" in a] == [name, name]


def test_no_control_character_of_any_value_comes_onto_a_page() -> None:
    page = macro("{{ parts.table(['what', 'files'], rows, (1,)) }}", rows=[(".e\x1b[31m\u202ex\u200b\x85", 1)])
    assert ".e\\x1b[31m\\u202ex\\u200b\\x85" in page
    assert {c for c in page if unicodedata.category(c) in {"Cc", "Cf"}} <= {"\n"}


def test_a_long_name_loses_its_middle_and_keeps_it_in_the_title() -> None:
    name = "a/" + "b" * 200 + "/photo0001.jpg"
    page = harmless(macro("{{ parts.name(n) }}", n=name))
    shown = page.text[1]  # after the title
    assert len(shown) == formatting.LONGEST
    assert shown.startswith("a/bb")
    assert shown.endswith("b/photo0001.jpg")
    assert [a["title"] for _, a in page.elements if "title" in a] == [name]


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("line\nbreak.jpg", "line\\x0abreak.jpg"),
        ("\x1b[31mred\x00.jpg", "\\x1b[31mred\\x00.jpg"),
        ("gpj.\u202egnp.exe", "gpj.\\u202egnp.exe"),
        ("caf\\xe9.jpg", "caf\\xe9.jpg"),
        ("日本語/été.jpg", "日本語/été.jpg"),
        ("👩\u200d🔬.jpg", "👩\u200d🔬.jpg"),
        ("\udcff.jpg", "\\udcff.jpg"),
    ],
)
def test_every_character_of_a_name_shows(name: str, shown: str) -> None:
    assert formatting.visible(name) == shown


def test_a_missing_value_is_an_error_and_an_unknown_page_too() -> None:
    with pytest.raises(jinja2.UndefinedError):
        macro("{{ nothing }}")
    with pytest.raises(jinja2.TemplateNotFound):
        render("nothing.html")


@pytest.mark.parametrize(
    ("shown", "expected"),
    [
        (formatting.count(1234567), "1,234,567"),
        (formatting.count(0.1234), "0.123"),
        (formatting.count(12.34), "12.3"),
        (formatting.count(float("nan")), "–"),
        (formatting.size(999), "999 bytes"),
        (formatting.size(12_345), "12.3 kB"),
        (formatting.size(12_345_678), "12.3 MB"),
        (formatting.size(999_600_000), "1 GB"),
        (formatting.clock(7.4), "0:07"),
        (formatting.clock(7500), "2:05:00"),
        (formatting.duration(0.423), "0.42 s"),
        (formatting.duration(0.0004), "<0.01 s"),
        (formatting.duration(12.4), "12 s"),
        (formatting.duration(200), "3 min 20 s"),
        (formatting.duration(7500), "2 h 5 min"),
        (formatting.percent(0.004), "<1%"),
        (formatting.percent(0), "0%"),
        (formatting.percent(1), "100%"),
    ],
)
def test_numbers_are_written_for_people(shown: str, expected: str) -> None:
    assert shown == expected


@pytest.mark.parametrize("span", [0.01, 1, 7.3, 59, 61, 3600, 86_400, 1e7])
@pytest.mark.parametrize("highest", [0.003, 1, 17, 999, 123_456])
def test_axes_have_a_few_round_ticks_that_hold_every_point(span: float, highest: float) -> None:
    drawn = charts.lines({"t": [(0, 0), (span / 2, highest), (span, highest / 3)]}, "t", "x", "y", clock=True)
    assert drawn is not None
    assert 2 <= len(drawn.x_ticks) <= 8
    assert 3 <= len(drawn.y_ticks) <= 6
    assert len({tick.label for tick in drawn.y_ticks}) == len(drawn.y_ticks)
    assert drawn.y_ticks[0].at == drawn.bottom
    points = [tuple(map(float, pair.split())) for pair in re.findall(r"[\d.]+ [\d.]+", drawn.series[0].path)]
    assert all(drawn.left <= x <= drawn.right and drawn.top <= y <= drawn.bottom for x, y in points)


def test_a_chart_of_nothing_is_not_drawn() -> None:
    assert charts.lines({"t": []}, "t", "x", "y") is None
    assert charts.lines({"t": [(0, 1)]}, "t", "x", "y") is None
    assert charts.lines({"t": [(0, float("nan")), (1, 1)]}, "t", "x", "y") is None
    assert "<svg" not in harmless_source("{{ parts.line([(0, 1)], 't', 'x', 'y') }}")
    assert "<svg" in harmless_source("{{ parts.line([(0, 0), (1, 0)], 't', 'x', 'y') }}")


def harmless_source(body: str) -> str:
    content = macro(body)
    harmless(content)
    return content


@pytest.fixture(scope="module")
def decoder_server() -> Iterator[DecoderServer]:
    with closing(DecoderServer()) as warm:
        yield warm


def folder(root: Path) -> tuple[LocalSource, pa.Table]:
    listing = list_source(str(root))
    return LocalSource(listing.root, listing.base), listing.images.sort_by("path")


def decoded(image: Thumbnail) -> Image.Image:
    kind, _, content = image.uri.partition(",")
    assert kind == "data:image/jpeg;base64"
    return Image.open(io.BytesIO(base64.b64decode(content)))


def test_thumbnails_keep_the_shape_and_the_order_and_bad_images_have_a_reason(
    tmp_path: Path, decoder_server: DecoderServer
) -> None:
    Image.new("RGB", (640, 480), (200, 30, 30)).save(tmp_path / "a.jpg")
    Image.new("RGB", (100, 1000), (30, 200, 30)).save(tmp_path / "b.png")
    Image.new("RGB", (20, 10), (30, 30, 200)).save(tmp_path / "c.png")
    (tmp_path / "d.jpg").write_text("no image at all")
    (tmp_path / "e.jpg").write_bytes((tmp_path / "a.jpg").read_bytes()[:700])
    (tmp_path / "f.jpg").write_bytes(b"")
    source, rows = folder(tmp_path)
    (tmp_path / "b.png").touch()  # it changed since it was listed
    a, b, c, *bad = thumbnails(source, rows, 30.0, decoder_server=decoder_server)
    assert (a.width, a.height) == (160, 120) == decoded(a).size
    assert (c.width, c.height) == (20, 10) == decoded(c).size
    red, green, _ = decoded(a).getpixel((80, 60))  # type: ignore[misc]
    assert red > 180
    assert green < 60
    assert b.reason == "changed since"
    assert [image.reason for image in bad] == ["not an image", "", "empty file"]  # of one that is cut, what there is
    assert thumbnails(source, rows.slice(0, 0), 1.0) == []


@pytest.mark.slow
def test_the_time_is_kept_whatever_holds_the_images_up(tmp_path: Path, decoder_server: DecoderServer) -> None:
    for name in "abc":
        Image.new("RGB", (64, 48)).save(tmp_path / f"{name}.png")
    source, rows = folder(tmp_path)

    class Slow:
        threads = 8

        def read(self, path: str, size: int, modified: int) -> bytes:
            if path == "b.png":
                time.sleep(5)
            return source.read(path, size, modified)

    began = time.monotonic()
    images = thumbnails(Slow(), rows, 2.0, decoder_server=decoder_server)
    assert time.monotonic() - began < 4.5
    assert [bool(image.uri) for image in images] == [True, False, True]
    assert images[1] == LATE


def test_an_odd_name_is_read_and_many_images_share_the_lanes(tmp_path: Path, decoder_server: DecoderServer) -> None:
    raw = os.fsencode(tmp_path) + b"/caf\xe9\n<i>.png"
    Image.new("RGB", (64, 48)).save(tmp_path / "plain.png")
    os.link(tmp_path / "plain.png", raw)
    for number in range(60):
        os.link(tmp_path / "plain.png", tmp_path / f"n{number:02}.png")
    source, rows = folder(tmp_path)
    images = thumbnails(source, rows, 30.0, decoder_server=decoder_server)
    assert len(images) == 62
    assert all(image.uri for image in images)


def test_a_tick_is_the_time_at_which_it_stands() -> None:
    drawn = charts.lines({"t": [(0, 1), (160, 1)]}, "t", "x", "y", clock=True)
    assert drawn is not None
    assert [tick.label for tick in drawn.x_ticks] == ["0 s", "30 s", "1 min", "1 min 30 s", "2 min", "2 min 30 s"]
