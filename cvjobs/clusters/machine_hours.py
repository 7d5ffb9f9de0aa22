"""How long a command has which machines, and what they cost: this machine, or those of a Ray cluster.

Of a cluster count the machines that had workers of the command, and its head: each from when it was there, at the
earliest from the beginning of the command, until it is gone or the command ends.
"""

from __future__ import annotations

import math
import socket
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import counted, money
from cvjobs.config.spending import Prices

HEAD = "node:__internal_head__"  # the resource that only Ray's head has
LOOK = 2.0  # s between two looks at the machines of a cluster
_ID = "ray.io/node-id"


@dataclass(frozen=True, kw_only=True)
class Machine:
    """A machine: ``id`` is Ray's, and ``names`` are what a price may call it by: its labels' values, its host name."""

    id: str
    names: tuple[str, ...]
    head: bool = False


def here() -> Machine:
    """Return this machine, as it is known without a cluster."""
    return Machine(id="", names=(socket.gethostname(),), head=True)


def machines(nodes: Iterable[Mapping[str, Any]]) -> list[Machine]:
    """Return the machines of ``ray.nodes()`` that are there."""
    return [
        Machine(
            id=node["NodeID"],
            names=(
                *(value for key, value in node.get("Labels", {}).items() if key != _ID),
                node["NodeManagerHostname"],
            ),
            head=HEAD in node["Resources"],
        )
        for node in nodes
        if node["Alive"]
    ]


@dataclass(frozen=True, kw_only=True)
class MachineCost:
    """Machines of one price: how many there were, their hours together, USD an hour, and USD in all."""

    name: str
    machines: int
    hours: float
    price: float | None

    @property
    def usd(self) -> float:
        """What they cost; 0 without a price."""
        return self.hours * (self.price or 0.0)

    def __str__(self) -> str:
        each = f"{counted(self.machines, 'machines')}{f' ({self.name})' * bool(self.name)}"
        rate = f" at {money(self.price)} an hour" if self.price is not None else ""
        return f"{each}, {hours_told(self.hours)}{rate}"


def hours_told(hours: float) -> str:
    """Return machine hours with three significant digits: 0.0123 h, 1.23 h, 1,234 h."""
    text = f"{hours:,.0f}" if hours >= 100 else f"{hours:.3g}" if hours >= 0.0001 or not hours else "<0.0001"
    return f"{text} machine-hour{'s' * (text != '1')}"


@dataclass(frozen=True)
class Cost:
    """What a command's machines cost, the dearest first; ``usd`` None where no price was given."""

    of: tuple[MachineCost, ...] = ()

    @property
    def usd(self) -> float | None:
        """USD in millionths."""
        return round(sum(one.usd for one in self.of), 6) if any(one.price is not None for one in self.of) else None

    @property
    def hours(self) -> float:
        """Machine hours, rounded to a third of a second."""
        return round(sum(one.hours for one in self.of), 4)

    def as_dict(self) -> dict[str, Any]:
        """Return the record as JSON types; empty without a price."""
        if self.usd is None:
            return {}
        rows = [
            {
                "name": one.name,
                "machines": one.machines,
                "machine_hours": round(one.hours, 4),
                "usd_per_hour": one.price,
                "usd": round(one.usd, 6),
            }
            for one in self.of
        ]
        return {"usd": self.usd, "machine_hours": self.hours, "machines": rows}

    def __str__(self) -> str:
        parts = "; ".join(map(str, self.of))
        return parts if self.usd is None else f"{parts}: {money(self.usd)}"


def told_cost(record: Mapping[str, Any]) -> str:
    """Return the record of ``Cost.as_dict``, in words."""
    return f"{money(record['usd'])}, {hours_told(record['machine_hours'])}"


def stretched(record: Mapping[str, Any], factor: float) -> dict[str, Any]:
    """Return the record of ``Cost.as_dict`` for so many times the time."""
    rows = [
        {**row, "machine_hours": round(row["machine_hours"] * factor, 4), "usd": round(row["usd"] * factor, 6)}
        for row in record.get("machines", [])
    ]
    whole = {name: round(record[name] * factor, digits) for name, digits in (("usd", 6), ("machine_hours", 4)) if rows}
    return {**whole, "machines": rows} if rows else {}


@dataclass
class _Span:
    """When a machine was there, in s since the command began; ``end`` None while it is."""

    machine: Machine
    begin: float
    end: float | None = None


@dataclass
class MachineHours:
    """The machines of one command, as they come and go; ``clock`` are the seconds since it began."""

    prices: Prices
    clock: Callable[[], float]
    _spans: dict[str, _Span] = field(default_factory=dict)
    _worked: set[str] = field(default_factory=set)
    _looked: float = -math.inf

    def alone(self) -> None:
        """Let this machine be the only one; a single price is its own, whatever it calls it."""
        machine = here()
        if self.prices and self.prices.of(machine.names) is None:
            if len(self.prices.named) > 1:
                raise WrongUse(
                    f"No --price is that of this machine, {machine.names[0]}: give one without a name, as in "
                    f"--price {next(iter(self.prices.named.values())):g}."
                )
            machine = Machine(id="", names=tuple(self.prices.named), head=True)
        self._spans = {"": _Span(machine, 0.0)}

    def look(self, nodes: Collection[Mapping[str, Any]], working: Iterable[str]) -> None:
        """As ``see``, of what ``ray.nodes()`` has returned, nothing where it has not yet; cheap to call often."""
        if nodes and time.monotonic() - self._looked >= LOOK:
            self._looked = time.monotonic()
            self.see(machines(nodes), working)

    def see(self, there: Collection[Machine], working: Iterable[str]) -> None:
        """Note which machines are there now, and the ids of those on which workers are.

        Raises WrongUse where one that counts has no price when the first workers are there; one that comes later costs
        as much as the dearest.
        """
        now, first, none = self.clock(), not self._spans, not self._worked
        self._worked.update(working)
        ids = {machine.id for machine in there}
        for machine in there:
            self._spans.setdefault(machine.id, _Span(machine, 0.0 if first else now))
        for span in self._spans.values():
            if span.machine.id in ids:
                span.end = None
            elif span.end is None:
                span.end = now
        if none and self._worked:
            self._check()

    def _check(self) -> None:
        for span in self._spans.values():
            machine = span.machine
            if self.prices and (machine.head or machine.id in self._worked) and self.prices.of(machine.names) is None:
                known = ", ".join(dict.fromkeys(machine.names))
                raise WrongUse(
                    f"No --price is that of a machine of the cluster, known as {known}: give it --price "
                    f"{machine.names[0]}=USD, or one without a name, which is that of every other machine."
                )

    def _price(self, machine: Machine) -> tuple[str, float | None]:
        found = self.prices.of(machine.names)
        if found is None and self.prices:
            return machine.names[0], max(self.prices.named.values())
        return found or ("", None)

    def _counted(self) -> list[_Span]:
        return [span for span in self._spans.values() if span.machine.head or span.machine.id in self._worked]

    def cost(self, until: float | None = None) -> Cost:
        """Return what the machines cost so far, or ``until`` so many seconds since the command began."""
        now = self.clock() if until is None else until
        rows: dict[tuple[str, float | None], list[float]] = {}
        for span in self._counted():
            length = max((now if span.end is None else min(span.end, now)) - span.begin, 0.0)
            rows.setdefault(self._price(span.machine), []).append(length / 3600)
        found = [
            MachineCost(name=name, machines=len(hours), hours=sum(hours), price=price)
            for (name, price), hours in rows.items()
        ]
        return Cost(tuple(sorted(found, key=lambda one: -one.usd)))

    def going(self, seconds: float) -> Cost:
        """Return what the machines that are there now cost in so many seconds."""
        rows: dict[tuple[str, float | None], int] = {}
        for span in self._counted():
            if span.end is None:
                price = self._price(span.machine)
                rows[price] = rows.get(price, 0) + 1
        found = [
            MachineCost(name=name, machines=count, hours=count * seconds / 3600, price=price)
            for (name, price), count in rows.items()
        ]
        return Cost(tuple(sorted(found, key=lambda one: -one.usd)))
