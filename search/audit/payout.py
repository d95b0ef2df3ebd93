"""Payouts: a sum of money split by the shares of an audit, to the minor unit of its currency.

Shares are taken from creators.parquet as the exact fractions that their numbers are, and divided by
their sum. What is left for the remaining influence and for training images of no known creator is
held back, or spread over the others pro rata; payouts and what is held back sum to the amount.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import fsum, isfinite
from pathlib import Path
from typing import Any, Literal, TypeAlias

from ingest.errors import RunError, UsageError
from search.audit.apportion import Money, apportion
from search.audit.finished import read_creators, read_summary
from search.audit.manifest import check_file, read_manifest
from search.audit.payload_fields import name_in_tables
from search.audit.tables import CREATORS, SUMMARY

__all__ = [
    "Audited",
    "Handling",
    "Payee",
    "Payout",
    "Policy",
    "is_calibrated",
    "limits",
    "read_audited",
    "split",
]

Handling: TypeAlias = Literal["hold", "pro-rata"]

_LIMITS = (
    "A similarity-based estimate, not a causal proof: shares say how similar training images are "
    "to the generated ones, {}, and not what the generator would have made without them."
)
_UNCALIBRATED = (
    "uncalibrated (nothing was fitted: how fast influence falls with similarity is a default)"
)

_ROUNDING = 1e-6


@dataclass(frozen=True)
class Policy:
    """What is done with what nobody can be paid for, or with what is too little.

    Attributes:
        by: field of creators.parquet whose values are paid.
        remaining: influence that no listed training image carries: held back, or spread over known
            and unknown creators in proportion to their shares.
        unknown: share of training images without a value: held back, or spread over the known ones.
        floor: minor units; a payout below is held back for its creator, and given to nobody else.
    """

    by: str = "creator"
    remaining: Handling = "hold"
    unknown: Handling = "hold"
    floor: int = 0

    def words(self, money: Money) -> list[str]:
        """The policy as sentences, for those who are paid by it."""
        held = "is held back"
        remaining = (
            "is spread over all others in proportion to their shares"
            if self.remaining == "pro-rata"
            else held
        )
        unknown = (
            f"is spread over the known values of {self.by} in proportion to their shares"
            if self.unknown == "pro-rata"
            else held
        )
        lines = [
            f"The remaining influence, which no listed training image carries, {remaining}.",
            f"The share of training images with no known {self.by} {unknown}.",
            "Amounts are rounded to whole minor units by the largest remainder method; equal "
            "remainders go by name.",
        ]
        if self.floor:
            lines.append(
                f"What comes to less than {money.text(self.floor)} {money.currency} is not paid: "
                "it is held back for the one it belongs to, and given to nobody else."
            )
        return lines


@dataclass(frozen=True)
class Payee:
    """One line of a payout.

    Attributes:
        kind: known, unknown or remaining, as in creators.parquet.
        name: '' unless kind is known.
        share: as in creators.parquet.
        part: of the amount, exactly, after the policy and before rounding.
        paid, held: minor units; one of them is 0.
        reason: why it is held, or why an unpaid line has nothing; '' where it is paid.
    """

    kind: str
    name: str
    share: float
    part: Fraction
    paid: int
    held: int
    reason: str


@dataclass(frozen=True)
class Payout:
    """A split amount.

    Attributes:
        money: the currency.
        amount: minor units; the sum of all that is paid and held.
        policy: how it was split.
        payees: known ones, the largest amount first, among equal amounts the largest share, and
            then by name; then unknown, then remaining.
    """

    money: Money
    amount: int
    policy: Policy
    payees: tuple[Payee, ...]

    @property
    def paid(self) -> int:
        """Minor units, over all payees."""
        return sum(payee.paid for payee in self.payees)

    @property
    def held(self) -> int:
        """Minor units, over all payees."""
        return sum(payee.held for payee in self.payees)


@dataclass(frozen=True)
class Audited:
    """What a payout rests on.

    Attributes:
        lines: of creators.parquet.
        summary: of the audit.
        manifest_sha256: of its manifest, which stands for the whole audit.
    """

    lines: Sequence[Mapping[str, Any]]
    summary: Mapping[str, Any]
    manifest_sha256: str


def read_audited(out: Path) -> Audited:
    """The shares of an audit, once its manifest vouches for them.

    Raises:
        RunError: no finished audit; its shares or summary are not those of its manifest.
    """
    manifest = read_manifest(out)
    for name in (CREATORS, SUMMARY):
        if wrong := check_file(out, name, manifest.files[name]):
            raise RunError(f"{out} cannot be paid by: {wrong}; see `attrib audit verify {out}`")
    return Audited(read_creators(out), read_summary(out), manifest.sha256)


def limits(summary: Mapping[str, Any]) -> str:
    """What the shares of an audit are and are not, as a sentence for those who are paid by them."""
    return _LIMITS.format("calibrated" if is_calibrated(summary) else _UNCALIBRATED)


def is_calibrated(summary: Mapping[str, Any]) -> bool:
    """Whether the audit's calibrator was ever fitted."""
    calibrator = summary.get("calibrator")
    return isinstance(calibrator, Mapping) and bool(calibrator.get("fitted_on"))


def split(lines: Sequence[Mapping[str, Any]], amount: int, money: Money, policy: Policy) -> Payout:
    """Split `amount` minor units by the shares of one field.

    Args:
        lines: of creators.parquet; those of other fields than the policy's do not count.

    Raises:
        UsageError: the audit has no shares by that field.
        RunError: an audit of no images, or shares that are none.
    """
    chosen = _chosen(lines, policy.by)
    exact = [Fraction(line["share"]) for line in chosen]
    parts = _parts([line["kind"] for line in chosen], exact, policy)
    units = apportion(amount, parts)
    payees = [
        _payee(line, part, unit, policy)
        for line, part, unit in zip(chosen, parts, units, strict=True)
    ]
    known = [payee for payee in payees if payee.kind == "known"]
    # Stable: equal ones stay by name.
    known.sort(key=lambda payee: (-(payee.paid + payee.held), -payee.share))
    return Payout(money, amount, policy, (*known, *payees[len(known) :]))


def _chosen(lines: Sequence[Mapping[str, Any]], by: str) -> list[Mapping[str, Any]]:
    """Known values by name, then the unknown line, then the remaining one: the order of ties."""
    by = name_in_tables(by)
    fields = list(dict.fromkeys(line["field"] for line in lines))
    if not fields:
        raise RunError("the audit is of no images: there is nothing to split by")
    if by not in fields:
        raise UsageError(
            f"the audit has no shares by {by!r}, only by {', '.join(fields)}: `attrib audit --by "
            "FIELD` sums by any other field of the training images"
        )
    kinds = ("known", "unknown", "remaining")
    chosen = [line for line in lines if line["field"] == by]
    shares = [line["share"] for line in chosen]
    if (
        not all(line["kind"] in kinds for line in chosen)
        or not all(isinstance(share, float) and isfinite(share) and share >= 0 for share in shares)
        or abs(fsum(shares) - 1) > _ROUNDING
    ):
        raise RunError(f"the shares by {by} in {CREATORS} are none: they must sum to 1")
    return sorted(chosen, key=lambda line: (kinds.index(line["kind"]), line["value"]))


def _parts(kinds: Sequence[str], shares: Sequence[Fraction], policy: Policy) -> list[Fraction]:
    """Parts of the amount, which sum to 1. Where there is nobody to spread over, nothing is."""
    sums = {kind: Fraction(0) for kind in ("known", "unknown", "remaining")}
    for kind, share in zip(kinds, shares, strict=True):
        sums[kind] += share
    total = sum(sums.values(), Fraction(0))
    factors = dict.fromkeys(sums, 1 / total)
    if policy.remaining == "pro-rata" and (others := sums["known"] + sums["unknown"]):
        factors = {"known": 1 / others, "unknown": 1 / others, "remaining": Fraction(0)}
    if policy.unknown == "pro-rata" and sums["known"]:
        factors["known"] *= (sums["known"] + sums["unknown"]) / sums["known"]
        factors["unknown"] = Fraction(0)
    return [share * factors[kind] for kind, share in zip(kinds, shares, strict=True)]


def _payee(line: Mapping[str, Any], part: Fraction, units: int, policy: Policy) -> Payee:
    kind = str(line["kind"])
    if kind != "known":
        held_back = f"no known {policy.by}" if kind == "unknown" else "remaining influence"
        reason = held_back if part or not line["share"] else f"{held_back}: spread over the others"
        return Payee(kind, "", line["share"], part, 0, units, reason)
    name = str(line["value"])
    if 0 < units < policy.floor:
        return Payee(kind, name, line["share"], part, 0, units, "below the floor")
    reason = "" if units else "less than one minor unit"
    return Payee(kind, name, line["share"], part, units, 0, reason)
