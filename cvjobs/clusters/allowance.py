"""What a command may still spend of time and money, and whether it must end now to end before a limit."""

from __future__ import annotations

import math
from collections.abc import Callable

from cvjobs.clusters.machine_hours import Cost, MachineHours
from cvjobs.common.errors import LimitSpent
from cvjobs.common.formatting import duration, money
from cvjobs.config.spending import Spending


class Allowance:
    """The limits of one command; ``clock`` are the seconds since it began.

    ``reserve`` is what ending takes in s, as far as the command has measured it. ``spent`` is set, and stays, once no
    more than that is left.
    """

    def __init__(self, spending: Spending, clock: Callable[[], float]) -> None:
        self.spending, self.clock = spending, clock
        self.machines = MachineHours(spending.prices, clock)
        self.reserve = 0.0
        self.spent = False

    @property
    def limited(self) -> bool:
        """Whether there is a limit."""
        return self.spending.limited

    @property
    def limit(self) -> str:
        """The limit that comes first, as the option that sets it."""
        time, cost = self._time(), self._money()
        if time <= cost:
            return f"--max-time {duration(self.spending.max_time or 0.0)}"
        return f"--max-cost {money(self.spending.max_cost or 0.0)}"

    def left(self) -> float:
        """Return the seconds until the first limit is reached, by what the machines there are now cost; may be < 0."""
        return min(self._time(), self._money())

    def allowed(self) -> float:
        """Return the seconds that the limits allow a command of these machines from its beginning, inf without one."""
        time = math.inf if self.spending.max_time is None else self.spending.max_time
        rate = self.machines.going(3600.0).usd
        return min(time, self.spending.max_cost / rate * 3600) if self.spending.max_cost is not None and rate else time

    def _time(self) -> float:
        return math.inf if self.spending.max_time is None else self.spending.max_time - self.clock()

    def _money(self) -> float:
        if self.spending.max_cost is None:
            return math.inf
        rate = self.machines.going(3600.0).usd or 0.0
        rest = self.spending.max_cost - (self.cost().usd or 0.0)
        return rest / rate * 3600 if rate else math.copysign(math.inf, rest)

    def over(self, more: float = 0.0) -> bool:
        """Return whether to end now: no more than the reserve is left, and ``more`` seconds before the next look."""
        self.spent = self.spent or (self.limited and self.left() <= self.reserve + more)
        return self.spent

    def check(self, before: str) -> None:
        """Raise LimitSpent where a limit is over ``before`` anything could be done."""
        if self.over():
            raise LimitSpent(self.nothing(before))

    def nothing(self, before: str) -> str:
        """Return a sentence about a limit that is over ``before`` something."""
        ready = duration(self.clock())
        ends = f", and ending takes about {duration(self.reserve)}" if self.reserve else ""
        return f"{self.limit} is over before {before}: getting ready took {ready}{ends}; allow more."

    def cost(self) -> Cost:
        """Return what the command cost so far."""
        return self.machines.cost()
