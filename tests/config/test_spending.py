"""Prices and limits as a user gives them."""

from __future__ import annotations

import pytest

from cvjobs.common.errors import WrongUse
from cvjobs.common.formatting import money
from cvjobs.config.options import BatchOptions
from cvjobs.config.spending import Prices, parse_prices, seconds, spending


@pytest.mark.parametrize(
    ("text", "wanted"),
    [("90", 90), (90, 90), ("1.5", 1.5), ("90s", 90), ("15m", 900), ("2h30m", 9000), ("1d", 86_400), (" 2H ", 7200)],
)
def test_a_duration(text: str | int, wanted: float) -> None:
    assert seconds(text, "--max-time") == wanted


@pytest.mark.parametrize(
    "text", ["", "x", "0", "0s", "-1", "1:30", "2h30", "30m2h", "1e3", "nan", "inf", "99999d", "5 m", "٣", "9" * 5000]
)
def test_what_is_no_duration_is_a_sentence(text: str) -> None:
    with pytest.raises(WrongUse, match=r"^--max-time .* is no duration: write it as in 90s, 15m or 2h30m"):
        seconds(text, "--max-time")


def test_prices_are_of_a_name_or_of_every_machine() -> None:
    prices = parse_prices(("gpu=2.5", "ray.io/x=0.1", "1"))
    assert prices == Prices({"gpu": 2.5, "ray.io/x": 0.1}, 1.0)
    assert prices.of(("eu-1", "gpu")) == ("gpu", 2.5)
    assert prices.of(("other",)) == ("", 1.0)
    assert parse_prices(("gpu=2.5",)).of(("cpu",)) is None
    assert not parse_prices(())
    assert parse_prices(("0",))  # what costs nothing has a price


@pytest.mark.parametrize("text", ["", "x", "=1", "gpu=", "gpu=x", "-1", "nan", "inf", "gpu=-1", "1e9", "gpu 2.5"])
def test_what_is_no_price_is_a_sentence(text: str) -> None:
    with pytest.raises(WrongUse, match="is no price: write what an hour of a machine costs in USD"):
        parse_prices((text,))


def test_a_price_given_twice_and_a_cost_without_a_price() -> None:
    with pytest.raises(WrongUse, match="--price of gpu is given twice"):
        parse_prices(("gpu=1", "gpu=2"))
    with pytest.raises(WrongUse, match="--price of every machine is given twice"):
        parse_prices(("1", "2"))
    with pytest.raises(WrongUse, match="--max-cost needs to know what a machine costs"):
        spending(BatchOptions(source="a", out="b", max_cost=1.0))


def test_money_is_rounded_and_never_to_nothing() -> None:
    told = [money(usd) for usd in (1234.5, 12.5, 0.5, 0.034, 0.00012, 0.0000001, 0.0)]
    assert told == ["1,234 USD", "12.50 USD", "0.50 USD", "0.034 USD", "0.00012 USD", "<0.0001 USD", "0.00 USD"]
