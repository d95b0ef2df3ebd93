"""Splitting a sum of money by shares, exactly: the largest remainder method (Hamilton's).

Everyone gets the whole units of their exact part; the units left over go one each to the largest
remainders. Equal remainders go by place in the list: the caller's order decides ties.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from math import lcm

from ingest.errors import UsageError

__all__ = ["Money", "apportion", "parse_amount", "parse_currency"]

_NUMBER = re.compile(r"[0-9]{1,18}(?:\.[0-9]{1,18})?")


@dataclass(frozen=True)
class Money:
    """A currency and how its amounts are written.

    Attributes:
        currency: ISO 4217 code.
        decimals: of its minor unit: 2 for EUR, 0 for JPY, 3 for KWD (CLDR, by `babel`).
    """

    currency: str
    decimals: int

    def text(self, units: int) -> str:
        """An amount of minor units, such as ``12.30``."""
        whole, part = divmod(units, 10**self.decimals)
        return f"{whole}.{part:0{self.decimals}d}" if self.decimals else str(whole)


def apportion(units: int, shares: Sequence[Fraction]) -> list[int]:
    """Whole numbers that sum to `units`, each within 1 of its exact part.

    Args:
        units: at least 0.
        shares: of any sum above 0, none below 0.
    """
    scale = lcm(*(share.denominator for share in shares))
    weights = [share.numerator * (scale // share.denominator) for share in shares]
    total = sum(weights)
    parts, remainders = [], []
    for weight in weights:
        part, remainder = divmod(units * weight, total)
        parts.append(part)
        remainders.append(remainder)
    left = units - sum(parts)
    for place in sorted(range(len(shares)), key=lambda place: -remainders[place])[:left]:
        parts[place] += 1
    return parts


def parse_currency(code: str, *, current: bool = True) -> Money:
    """A currency by its code, in capitals or not.

    Args:
        code: of ISO 4217.
        current: refuse codes that nobody can be paid in: gold, no currency at all, units of
            account, and money that was abolished. What is legal tender somewhere, with no end to
            it, goes by the CLDR of the installed `babel`, and not by today's date.

    Raises:
        UsageError: there is none of that code, or it is not legal tender anywhere.
    """
    from babel.numbers import get_currency_precision, is_currency

    currency = code.strip().upper()
    if not is_currency(currency):
        raise UsageError(f"{code!r} is no currency: give its ISO 4217 code, such as EUR or JPY")
    if current and currency not in _legal_tender():
        raise UsageError(
            f"{currency} is legal tender nowhere, or no longer: give the code of money that people "
            "are paid in, such as EUR or JPY"
        )
    return Money(currency, get_currency_precision(currency))


@cache
def _legal_tender() -> frozenset[str]:
    from babel.core import get_global

    by_territory: Mapping[str, Sequence[tuple[str, object, object, bool]]]
    by_territory = get_global("territory_currencies")
    return frozenset(
        code
        for currencies in by_territory.values()
        for code, _, until, tender in currencies
        if tender and until is None
    )


def parse_amount(text: str, money: Money, option: str, *, zero: bool = False) -> int:
    """An amount such as ``1000`` or ``99.95``, in minor units.

    Args:
        text: digits, and decimals after a point.
        money: its currency.
        option: named where it will not do.
        zero: whether 0 will do.

    Raises:
        UsageError: it is no such number, not above 0, or has more decimals than the currency.
    """
    if not _NUMBER.fullmatch(text.strip()):
        raise UsageError(
            f"{option} {text!r} will not do: write a number above 0 such as 1000 or 99.95, without "
            "signs or separators"
        )
    units = Fraction(text.strip()) * 10**money.decimals
    if units.denominator != 1:
        decimals = f"{money.decimals} decimals" if money.decimals else "no decimals"
        raise UsageError(f"{option} {text} will not do: {money.currency} has {decimals}")
    if not units and not zero:
        raise UsageError(f"{option} must be above 0")
    return int(units)
