"""How pages and terminals show numbers, times and names: short, in the reader's units, harmless whatever they hold."""

from __future__ import annotations

import math
import time
import unicodedata

LONGEST = 48
# The words of what one is, where it is not the one of many without its last letter.
_ONE = {"queries": "query", "copies": "copy", "classes": "class", "boxes": "box"}
_ONE |= {"have": "has", "are": "is", "were": "was", "their": "its", "do": "does"}
_VERBS = {"belong", "remain", "score"}
_JOINERS = "\u200c\u200d"  # without them many scripts and emoji fall apart
# A spreadsheet computes a cell that begins so; the last four are the full-width ones. The apostrophe is what marks it.
_FORMULA = tuple("=+-@\t\r\n'＝＋－＠")  # noqa: RUF001
_UNSEEN = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})


def count(number: float) -> str:
    """Return a number with thousands separators, and a fraction of at most three significant digits."""
    if not math.isfinite(number):
        return "–"
    if number == round(number) or abs(number) >= 100:
        return f"{number:z,.0f}"
    return f"{number:,.1f}" if abs(number) >= 10 else f"{number:.3g}"


def counted(number: float, things: str) -> str:
    """Return how many there are of ``images``, ``chunks of images`` or ``images have``: 1 image has, 0 images have."""
    if number == 1:
        first, *rest = things.split(" ")
        verbs = [_ONE.get(word, f"{word}s" if word in _VERBS else word) for word in rest[:1]]
        things = " ".join([_ONE.get(first, first.removesuffix("s")), *verbs, *rest[1:]])
    return f"{count(number)} {things}"


def brief(number: float) -> str:
    """Return a number for an axis: 950, 12k, 2.5M."""
    for unit in ("", "k", "M", "G"):
        if abs(number) < 1000 or unit == "G":
            break
        number /= 1000
    return f"{number:,.4g}{unit}"


def size(number: float) -> str:
    """Return a number of bytes in decimal units."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if abs(number) < 999.5:
            return f"{number:,.0f} {unit}" if unit == "bytes" else f"{number:.3g} {unit}"
        number /= 1000
    return f"{number:,.1f} TB"


def duration(seconds: float) -> str:
    """Return seconds as a person says them: 0.42 s, 12 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 10:
        return "<0.01 s" if 0 < seconds < 0.01 else f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    if minutes < 60:
        return f"{minutes} min {rest} s" if rest else f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    return f"{hours:,} h {minutes} min" if minutes else f"{hours:,} h"


def money(usd: float) -> str:
    """Return US dollars as a person says them: 1,234 USD, 12.50 USD, 0.034 USD; what is small stays visible."""
    if usd >= 1000:
        return f"{usd:,.0f} USD"
    if usd >= 0.1 or usd == 0:
        return f"{usd:.2f} USD"
    return f"{usd:.2g} USD" if usd >= 0.0001 else "<0.0001 USD"


def clock(seconds: float) -> str:
    """Return seconds as a clock shows them: 0:07, 3:20, 2:05:00."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def date(stamp: float) -> str:
    """Return a time (s since 1970) in the zone of the machine that makes the page: 2026-11-22 16:40 UTC."""
    return time.strftime("%Y-%m-%d %H:%M %Z", time.localtime(stamp)).strip()


def percent(share: float) -> str:
    """Return a share (0..1) in percent; what is small and not nothing stays visible."""
    return f"{100 * share:.0f}%" if share == 0 or share >= 0.01 else "<1%"


def visible(text: str) -> str:
    r"""Return text in which every character shows: control and direction marks as ``\x0a`` or ``\u202e``."""
    return "".join(_shown(c) if unicodedata.category(c) in _UNSEEN else c for c in text)


def without_controls(text: str, besides: str = "") -> str:
    r"""Return text in which control characters are ``\x1b`` and the like, but for those of ``besides``."""
    if text.isprintable():
        return text
    return "".join(_shown(c) if unicodedata.category(c) == "Cc" and c not in besides else c for c in text)


def marked(cell: str) -> str:
    """Return a cell of a CSV with an apostrophe before what a spreadsheet would compute."""
    return f"'{cell}" if cell.startswith(_FORMULA) or cell.lstrip().startswith(_FORMULA) else cell


def unmarked(cell: str) -> str:
    """Return the cell that ``marked`` was given."""
    return cell[1:] if cell.startswith("'") and marked(cell[1:]) != cell[1:] else cell


def visible_lines(text: str) -> str:
    """Return text for a terminal or a log: visible but for the ends of its lines, and tabs."""
    return "\n".join("\t".join(map(visible, line.split("\t"))) for line in text.split("\n"))


def visible_page(text: str) -> str:
    """Return what ``visible_lines`` returns, of many megabytes at once."""
    unseen = {c for c in set(text) - {"\n", "\t"} if unicodedata.category(c) in _UNSEEN}
    return text.translate({ord(c): _shown(c) for c in unseen}) if unseen else text


def _shown(character: str) -> str:
    code = ord(character)
    if character in _JOINERS:
        return character
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def shortened(text: str, longest: int = LONGEST) -> str:
    """Return visible text of at most ``longest`` characters: the middle of a longer one is left out."""
    if len(text) > 2 * longest:
        text = text[:longest] + text[-longest:]  # all that can remain of a name that is a megabyte
    text = visible(text)
    if len(text) <= longest:
        return text
    tail = longest * 3 // 5
    return f"{text[: longest - tail - 1]}…{text[len(text) - tail :]}"
