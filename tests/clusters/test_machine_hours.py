"""What machines cost: arithmetic by hand, of machines that come and go."""

from __future__ import annotations

from typing import Any

import pytest

from cvjobs.clusters.allowance import Allowance
from cvjobs.clusters.machine_hours import HEAD, MachineHours, machines, stretched, told_cost
from cvjobs.common.errors import LimitSpent, WrongUse
from cvjobs.config.spending import Spending, parse_prices


class Clock:
    """Seconds since a command began, as a test sets them."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def node(name: str, *, group: str = "", head: bool = False, alive: bool = True) -> dict[str, Any]:
    """A machine as ``ray.nodes()`` has it."""
    labels = {"ray.io/node-id": name, **({"ray.io/node-group": group} if group else {})}
    resources = {"CPU": 2.0, **({HEAD: 1.0} if head else {})}
    return {
        "NodeID": name,
        "Alive": alive,
        "NodeManagerHostname": f"{name}.lan",
        "Labels": labels,
        "Resources": resources,
    }


HEADED = [node("h", group="headgroup", head=True), node("a", group="gpu"), node("b", group="gpu"), node("c")]


def test_this_machine_alone() -> None:
    clock = Clock()
    hours = MachineHours(parse_prices(("2.5",)), clock)
    hours.alone()
    clock.now = 1800.0
    cost = hours.cost()
    assert (cost.usd, cost.hours) == (1.25, 0.5)
    assert str(cost) == "1 machine, 0.5 machine-hours at 2.50 USD an hour: 1.25 USD"
    assert cost.as_dict() == {
        "usd": 1.25,
        "machine_hours": 0.5,
        "machines": [{"name": "", "machines": 1, "machine_hours": 0.5, "usd_per_hour": 2.5, "usd": 1.25}],
    }
    assert hours.cost(until=3600).usd == 2.5
    assert told_cost(stretched(cost.as_dict(), 2)) == "2.50 USD, 1 machine-hour"


def test_without_a_price_there_are_hours_and_no_cost() -> None:
    hours = MachineHours(parse_prices(()), lambda: 3600.0)
    hours.alone()
    assert (hours.cost().usd, hours.cost().hours, hours.cost().as_dict()) == (None, 1.0, {})
    assert str(hours.cost()) == "1 machine, 1 machine-hour"


def test_a_single_price_is_that_of_this_machine_and_of_several_one_must_name_it() -> None:
    hours = MachineHours(parse_prices(("g6.xlarge=0.8",)), lambda: 3600.0)
    hours.alone()
    assert hours.cost().usd == 0.8
    with pytest.raises(WrongUse, match=r"No --price is that of this machine, .*: give one without a name"):
        MachineHours(parse_prices(("a=1", "b=2")), lambda: 0.0).alone()


def test_of_a_cluster_count_machines_with_workers_and_the_head() -> None:
    clock = Clock()
    hours = MachineHours(parse_prices(("headgroup=0.1", "gpu=2.5", "7")), clock)
    hours.see(machines(HEADED), [])
    clock.now = 600.0
    hours.see(machines(HEADED), ["a"])
    clock.now = 3600.0
    # An hour each of the head and of a, which were there when the command began; b and c had no worker.
    assert hours.cost().usd == pytest.approx(0.1 + 2.5)
    assert [(one.name, one.machines, one.hours) for one in hours.cost().of] == [("gpu", 1, 1.0), ("headgroup", 1, 1.0)]


def test_a_machine_counts_from_when_it_came_until_it_is_gone() -> None:
    clock = Clock()
    hours = MachineHours(parse_prices(("2",)), clock)
    hours.see(machines(HEADED[:2]), ["a"])
    clock.now = 1800.0
    hours.see(machines([HEADED[0], {**HEADED[1], "Alive": False}, HEADED[2]]), ["a", "b"])
    clock.now = 3600.0
    # The head for an hour, a for the first half of it, b for the second.
    assert hours.cost().usd == pytest.approx(2 * (1 + 0.5 + 0.5))
    assert hours.going(3600).usd == pytest.approx(2 * 2)


def test_a_machine_without_a_price_is_named_and_a_later_one_costs_as_much_as_the_dearest() -> None:
    clock = Clock()
    hours = MachineHours(parse_prices(("headgroup=0.1", "gpu=2.5")), clock)
    with pytest.raises(WrongUse, match=r"known as c\.lan: give it --price c\.lan=USD, or one without a name"):
        hours.see(machines(HEADED), ["a", "c"])
    hours = MachineHours(parse_prices(("headgroup=0.1", "gpu=2.5")), clock)
    hours.see(machines(HEADED[:2]), ["a"])
    clock.now = 3600.0
    hours.see(machines(HEADED), ["a", "c"])
    clock.now = 7200.0
    assert hours.cost().usd == pytest.approx(2 * 0.1 + 2 * 2.5 + 1 * 2.5)


def test_the_limit_that_comes_first_is_the_one_that_is_told() -> None:
    clock = Clock()
    allowance = Allowance(Spending(prices=parse_prices(("2",)), max_time=3600.0, max_cost=1.0), clock)
    allowance.machines.alone()
    assert (allowance.left(), allowance.allowed(), allowance.limit) == (1800.0, 1800.0, "--max-cost 1.00 USD")
    clock.now = 1700.0
    assert not allowance.over(99.0)
    allowance.reserve = 101.0
    assert allowance.over()
    allowance.reserve = 0.0
    assert allowance.over()  # and stays so
    with pytest.raises(LimitSpent, match=r"^--max-cost 1\.00 USD is over before the first step: getting ready took 28"):
        allowance.check("the first step")


def test_without_a_limit_nothing_is_ever_over() -> None:
    allowance = Allowance(Spending(prices=parse_prices(("1e6",))), lambda: 1e9)
    allowance.machines.alone()
    assert not allowance.over()
    assert (allowance.left(), allowance.limited) == (float("inf"), False)
