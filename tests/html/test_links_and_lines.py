"""Links from a page to the images themselves, and charts of several lines."""

from __future__ import annotations

from pathlib import Path

from cvjobs.html import charts, render
from cvjobs.html.original_links import links


def test_links_are_relative_and_lead_to_the_file(tmp_path: Path) -> None:
    page = tmp_path / "out" / "report.html"
    link = links(str(page), str(tmp_path / "my photos"))
    assert link("a b/c.jpg") == "../my%20photos/a%20b/c.jpg"
    assert link("javascript:alert(1)") == "../my%20photos/javascript%3Aalert%281%29"
    assert link('"><script>.jpg') == "../my%20photos/%22%3E%3Cscript%3E.jpg"
    assert link("bad\\xff.jpg") == "../my%20photos/bad%FF.jpg"
    assert link("https://host/a.jpg") == ""
    assert links(str(page), "", str(tmp_path))("/elsewhere/a.jpg").endswith("../elsewhere/a.jpg")
    assert links(str(page), "s3://bucket/photos")("a.jpg") == ""
    assert links("s3://bucket/out/report.html", "/photos")("a.jpg") == ""


def test_two_losses_are_in_one_chart() -> None:
    both = {"training": [(1, 1.0), (2, 0.5), (3, 0.25)], "validation": [(1, 2.0), (3, 0.5)]}
    chart = charts.lines(both, "Loss", "epoch", "loss")
    assert chart is not None
    assert [each.name for each in chart.series] == ["training", "validation"]
    highest = [min(float(point.split()[1]) for point in each.path[1:].split(" L")) for each in chart.series]
    assert highest[1] < highest[0]  # on the same axis, from the top
    assert [tick.label for tick in chart.x_ticks] == ["1", "2", "3"]
    one = charts.lines({"training": both["training"], "validation": []}, "Loss", "epoch", "loss")
    assert one is not None
    assert len(one.series) == 1
    assert charts.lines({"training": [(1, 1.0)]}, "Loss", "epoch", "loss") is None


def test_a_narrow_screen_shows_numbers() -> None:
    style = render.render("base.html")
    assert "td.meter, th.meter { display: none; }" in style
