"""Pages that a command leaves behind: one self-contained HTML file each, without scripts and without a network.

What the pages say comes from their callers; this package holds the templates and what every template may use.
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

import jinja2

from cvjobs.common import formatting, rates
from cvjobs.html import charts, palette

LONGEST = 10_000  # characters of a name or a sentence: no file has a longer name, and a list may hold any


@cache
def _templates() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("cvjobs.html"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "count": formatting.count,
        "counted": formatting.counted,
        "size": formatting.size,
        "rate": rates.shown,
        "duration": formatting.duration,
        "date": formatting.date,
        "percent": formatting.percent,
        "visible": partial(formatting.shortened, longest=LONGEST),
        "shortened": formatting.shortened,
    }
    environment.globals |= {"line_chart": charts.line, "palette": palette.COLOURS, "heat_colours": palette.HEAT}
    return environment


def render(template: str, **values: Any) -> str:
    """Return a page: a template of ``templates/`` (``report.html``) filled with values, every one of them escaped.

    Control and direction marks show, wherever they come from. Raises jinja2.UndefinedError where the template needs a
    value that is not given.
    """
    return _filled(_templates().get_template(template), values)


def _filled(template: jinja2.Template, values: dict[str, Any]) -> str:
    return formatting.visible_page(template.render(**values))
