"""Pages taken apart: their elements and text, and that they load, run and link to nothing but images beside them."""

from __future__ import annotations

import re
from html.parser import HTMLParser

ALLOWED = {"html", "head", "meta", "title", "style", "body", "main", "footer", "h1", "h2", "h3", "p", "div", "span"}
ALLOWED |= {"b", "i", "table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "figure", "figcaption", "img"}
ALLOWED |= {"svg", "line", "path", "circle", "text", "ul", "li", "code", "strong", "rect", "details", "summary", "a"}


class Page(HTMLParser):
    """A page taken apart: its elements, and its text by line."""

    def __init__(self, content: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []
        self._open: list[str] = []
        self.feed(content)
        self.close()
        assert self._open == [], "every element is closed"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in ("meta", "img"):
            self._open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self._open[-1:] != ["style"] and data.strip():
            self.text.append(" ".join(data.split()))


def harmless(content: str) -> Page:
    """Take a page apart that loads nothing, runs nothing and links to nothing but files, relative to where it is."""
    page = Page(content)
    assert {tag for tag, _ in page.elements} <= ALLOWED
    for tag, attributes in page.elements:
        assert not any(name.startswith("on") or name in ("srcset", "action") for name in attributes)
        if "href" in attributes:
            assert tag == "a"
            assert re.fullmatch(r"[^/:][^:]*", str(attributes["href"])), attributes
        if "src" in attributes:
            assert str(attributes["src"]).startswith(("data:image/jpeg;base64,", "data:image/png;base64,")), tag
    policies = [a["content"] for _, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    assert policies == ["default-src 'none'; style-src 'unsafe-inline'; img-src data:"]
    style = content.partition("<style>")[2].partition("</style>")[0]
    assert "@import" not in style
    assert "url(" not in style
    return page


def macro(body: str, **values: object) -> str:
    """Render a page whose content is a call of a macro."""
    from cvjobs.html import render

    style = '{% block style %}{% include "overlays.css" %}{% endblock %}'
    source = '{% extends "base.html" %}{% import "parts.html" as parts %}' + style
    source += "{% block content %}" + body + "{% endblock %}"
    return render._filled(render._templates().from_string(source), values)
