"""What the licences of models allow: each identifier is classified by a table, and what none names is unknown."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from cvjobs.common.errors import WrongUse
from cvjobs.common.progress import tell

Use = Literal["free", "noncommercial", "research", "own", "unknown"]
OPTION = "--accept-licence"
NONE, YOURS, UNKNOWN = "none", "yours", "unknown"


@dataclass(frozen=True, kw_only=True)
class Terms:
    """What a licence is for: its ``use``, and what it forbids as the end of a sentence, empty where that is nothing.

    ``asks`` is what else it asks of who uses or passes on the weights. What forbids something is to be accepted.
    """

    use: Use
    forbids: str = ""
    asks: str = ""


@dataclass(frozen=True, kw_only=True)
class Licence:
    """The licences of a model by their identifiers, as SPDX has them where it does, else as the publisher says.

    ``weights`` may be ``none`` (nothing is published), ``yours`` (a file or run of one's own) or ``unknown``.
    """

    code: str
    weights: str

    @property
    def terms(self) -> Terms:
        """What the licence of the weights is for."""
        return terms(self.weights)

    @property
    def use(self) -> Use:
        """``free``, ``noncommercial``, ``research``, ``own`` (with terms of its own) or ``unknown``."""
        return self.terms.use

    @property
    def short(self) -> str:
        """The licence of the weights, and what kind it is where it is not free, as a list shows it."""
        told = _TOLD.get(self.use, "")
        return {NONE: "no weights", YOURS: "your own"}.get(self.weights, self.weights) + (f" ({told})" if told else "")

    @property
    def words(self) -> str:
        """The licences as a person reads them."""
        told = {NONE: "no published weights", YOURS: "weights of your own"}.get(self.weights)
        return f"code {self.code}, {told or f'weights {self.short}'}"

    def record(self) -> dict[str, str]:
        """Return the licences as JSON types, for what is made with the model."""
        return {"code": self.code, "weights": self.weights, "use": self.use}


UNSAID = Licence(code=UNKNOWN, weights=UNKNOWN)
_TOLD = {"noncommercial": "non-commercial", "research": "research only", "own": "terms of its own"}
_FREE = Terms(use="free")
_NONCOMMERCIAL = Terms(use="noncommercial", forbids="forbids commercial use", asks="attribution")
_RESEARCH = Terms(use="research", forbids="allows research alone, and forbids commercial use")
_APPLE = Terms(use="own", asks="its text and Apple's notices with what is passed on, and no use of Apple's names")
_UNKNOWN = Terms(use="unknown", forbids="is unknown, and without one nothing is allowed")
# As SPDX spells those that allow any use; what asks for the source of what is passed on forbids no use either.
FREE = (
    *("0BSD", "AFL-3.0", "Apache-2.0", "Artistic-2.0", "BSD-2-Clause", "BSD-3-Clause", "BSD-3-Clause-Clear", "BSL-1.0"),
    *("CC0-1.0", "CDLA-Permissive-2.0", "ECL-2.0", "ISC", "MIT", "MIT-0", "NCSA", "PDDL-1.0", "Unlicense", "Zlib"),
    *("AGPL-3.0", "AGPL-3.0-only", "AGPL-3.0-or-later", "GPL-2.0", "GPL-2.0-only", "GPL-3.0", "GPL-3.0-only"),
    *("GPL-3.0-or-later", "LGPL-2.1", "LGPL-3.0", "LGPL-3.0-only", "LGPL-3.0-or-later", "MPL-2.0"),
)
# Read on the publishers' pages, in 2026. Where the text was not to be had, `forbids` says so.
OWN = {
    # Meta's, for research that is not commercial: SEER (vissl, projects/SEER/MODEL_LICENSE.md), EUPE and others.
    "seer-license": Terms(
        use="research", forbids="allows non-commercial research alone, and no surveillance, biometrics or military use"
    ),
    "fair-noncommercial-research-license": Terms(use="research", forbids="allows non-commercial research alone"),
    # Apple's Machine Learning Research Model licence: MobileCLIP and others.
    "apple-amlr": _RESEARCH,
    "apple-amlr-model": _RESEARCH,
    # NVIDIA's source code licence: SegFormer and others.
    "nvidia-source-code-license": _RESEARCH,
    # Apple's sample code licence, also under the names of the repositories that have it.
    "apple-ascl": _APPLE,
    "cvnets-license": _APPLE,
    "fastvit-license": _APPLE,
    "mobileone-license": _APPLE,
    "dinov3-license": Terms(
        use="own",
        forbids="forbids military, weapons, nuclear and espionage use",
        asks="its text with what is passed on, and to be named in publications",
    ),
    "gemma": Terms(
        use="own",
        forbids="forbids what Google's Gemma prohibited use policy lists",
        asks="its terms, and those limits, with what is passed on",
    ),
    "nvidia-open-model-license": Terms(
        use="own",
        forbids="ends where guardrails are bypassed, and forbids what NVIDIA's Trustworthy AI terms do",
        asks="its text and a notice with what is passed on",
    ),
    "sapiens2-license": Terms(use="own", forbids="has limits of Meta's own, which its LICENSE.md lists"),
    "qwen-community-1.0": Terms(use="own", forbids="has limits of Alibaba's own, such as on the number of users"),
    "pml-1.0": Terms(use="own", forbids="forbids use beyond what Roboflow's Platform Model License allows"),
    "sam-license": Terms(
        use="own",
        forbids="forbids military, weapons, nuclear and espionage use",
        asks="its text with what is passed on",
    ),
    "openrail": Terms(use="own", forbids="forbids the uses that its attachment lists"),
    "openrail++": Terms(use="own", forbids="forbids the uses that its attachment lists"),
    "creativeml-openrail-m": Terms(use="own", forbids="forbids the uses that its attachment lists"),
}
_SPDX = {name.lower(): name for name in FREE}
_TABLE: dict[str, Terms] = {
    **dict.fromkeys((NONE, YOURS), _FREE),
    **dict.fromkeys(_SPDX, _FREE),
    **OWN,
    UNKNOWN: _UNKNOWN,
}
_WORST: tuple[Use, ...] = ("free", "own", "noncommercial", "research", "unknown")


def classified(name: str) -> bool:
    """Return whether the table or the rule for Creative Commons names a licence; ``unknown`` is one of the names."""
    key = name.lower()
    return key in _TABLE or _creative(key) is not None


def terms(name: str) -> Terms:
    """Return what a licence is for, by its identifier or an expression of SPDX; what nothing names is unknown.

    Of licences that hold together (``AND``) the strictest counts, of those to choose from (``OR``) the freest.
    """
    return max(map(_one, _chosen(name)), key=_strictness)


def restrictive(name: str) -> list[str]:
    """Return the licences of an expression that forbid something: one that is to be accepted is one of them."""
    return [part for part in _chosen(name) if _one(part).forbids]


def _chosen(name: str) -> list[str]:
    """Return the licences of an expression that hold together, of the freest choice that it leaves."""
    choices = [[part.strip("() ") for part in choice.split(" AND ")] for choice in name.split(" OR ")]
    return min(choices, key=lambda parts: max(_strictness(_one(part)) for part in parts))


def _one(name: str) -> Terms:
    key = name.removeprefix("LicenseRef-").lower()
    return _TABLE.get(key) or _creative(key) or _UNKNOWN


def _strictness(found: Terms) -> tuple[bool, int]:
    return bool(found.forbids), _WORST.index(found.use)


def _creative(key: str) -> Terms | None:
    """Return what the name of a Creative Commons licence says: NC is for no commercial use, ND for none changed."""
    if not re.fullmatch(r"cc-by(-(nc|nd|sa))*(-\d\.\d)?", key):
        return None
    parts = key.split("-")
    if "nc" in parts:
        return _NONCOMMERCIAL
    return Terms(use="own", forbids="forbids passing on what is changed") if "nd" in parts else _FREE


def spelt(name: str | None) -> str:
    """Return a publisher's name of a licence as SPDX spells it, where SPDX has it; ``unknown`` for none."""
    key = (name or "").strip().lower()
    if key in ("", "other", UNKNOWN):
        return UNKNOWN
    return _SPDX.get(key) or (key.upper() if _creative(key) else key)


def check(licence: Licence, model: str, accepted: Sequence[str], *, begun: bool) -> None:
    """Refuse weights whose licence forbids something that is not accepted; where results are begun it is only said.

    Args:
        licence: that of the weights which are to be loaded.
        model: its name.
        accepted: the names of the licences that the user accepts, in any case of letters.
        begun: whether there are results of this model already, which go on.

    Raises:
        WrongUse: the licence is to be accepted first.
    """
    known = {name.lower() for name in accepted}
    missing = [name for name in restrictive(licence.weights) if name.lower() not in known]
    if not missing:
        return
    named = "" if missing == [UNKNOWN] else f", {', '.join(missing)},"
    said = f"The licence of the weights of {model}{named} {licence.terms.forbids}"
    flags = " ".join(f"{OPTION} {shlex.quote(name)}" for name in missing)
    if begun:
        tell(f"{said}: what was begun with them goes on; {flags} says that you accept it.")
        return
    raise WrongUse(f"{said}: choose another model, or accept that with {flags}.")
