"""Payouts: exact to the minor unit, whatever the shares; names that mean harm; whole errors."""

from __future__ import annotations

import csv
import io
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.errors import RunError, UsageError
from search.audit.apportion import Money, apportion, parse_amount, parse_currency
from search.audit.csv_cells import original, safe_cell
from search.audit.payout import Audited, Handling, Policy, split
from search.audit.payout_files import COLUMNS, payout_csv, payout_record
from search.audit.payout_names import looks_like_nobody

EUR = Money("EUR", 2)


def lines(shares: dict[str, float], unknown: float = 0.0, remaining: float = 0.0) -> list[Any]:
    kinds = [*(("known", name) for name in shares), ("unknown", ""), ("remaining", "")]
    values = [*shares.values(), unknown, remaining]
    return [
        {"field": "creator", "kind": kind, "value": value, "share": share}
        for (kind, value), share in zip(kinds, values, strict=True)
    ]


def paid(amount: int, policy: Policy, *args: Any) -> dict[str, tuple[int, int]]:
    made = split(lines(*args), amount, EUR, policy)
    return {payee.name or payee.kind: (payee.paid, payee.held) for payee in made.payees}


def test_largest_remainder_by_hand() -> None:
    # Exact parts 47.5, 16, 15.8, 12, 6.1, 3.1 of 100.5: the table of every text on the method.
    shares = [Fraction(n) for n in (47_000, 16_000, 15_800, 12_000, 6_100, 3_100)]
    assert apportion(10, shares) == [5, 2, 1, 1, 1, 0]
    assert apportion(0, shares) == [0] * 6


def test_equal_remainders_go_by_name() -> None:
    assert paid(100, Policy(), {"C": 1 / 3, "B": 1 / 3, "A": 1 / 3}) == {
        "A": (34, 0),
        "B": (33, 0),
        "C": (33, 0),
        "unknown": (0, 0),
        "remaining": (0, 0),
    }


POLICIES: list[tuple[Handling, Handling, dict[str, tuple[int, int]]]] = [
    ("hold", "hold", {"A": (30, 0), "B": (10, 0), "unknown": (0, 20), "remaining": (0, 40)}),
    ("pro-rata", "hold", {"A": (50, 0), "B": (17, 0), "unknown": (0, 33), "remaining": (0, 0)}),
    ("hold", "pro-rata", {"A": (45, 0), "B": (15, 0), "unknown": (0, 0), "remaining": (0, 40)}),
    ("pro-rata", "pro-rata", {"A": (75, 0), "B": (25, 0), "unknown": (0, 0), "remaining": (0, 0)}),
]


@pytest.mark.parametrize(("remaining", "unknown", "expected"), POLICIES)
def test_what_becomes_of_remaining_influence_and_unknown_creators(
    remaining: Handling, unknown: Handling, expected: dict[str, tuple[int, int]]
) -> None:
    policy = Policy(remaining=remaining, unknown=unknown)
    assert paid(100, policy, {"A": 0.3, "B": 0.1}, 0.2, 0.4) == expected


def test_with_nobody_to_pay_all_is_held_back() -> None:
    policy = Policy(remaining="pro-rata", unknown="pro-rata")
    assert paid(100, policy, {}, 0.0, 1.0) == {"unknown": (0, 0), "remaining": (0, 100)}
    assert paid(100, policy, {}, 0.25, 0.75) == {"unknown": (0, 100), "remaining": (0, 0)}
    assert paid(100, Policy(), {}, 0.25, 0.75) == {"unknown": (0, 25), "remaining": (0, 75)}


def test_below_the_floor_is_held_back_for_its_creator() -> None:
    assert paid(1000, Policy(floor=101), {"A": 0.8, "B": 0.101, "C": 0.099}) == {
        "A": (800, 0),
        "B": (101, 0),
        "C": (0, 99),
        "unknown": (0, 0),
        "remaining": (0, 0),
    }


def test_reasons_tell_what_was_not_paid_and_why() -> None:
    policy = Policy(floor=200, remaining="pro-rata")
    made = split(lines({"A": 0.5, "B": 0.1, "C": 1e-9}, 0.2, 0.2 - 1e-9), 1000, EUR, policy)
    assert [(payee.name, payee.kind, payee.reason) for payee in made.payees] == [
        ("A", "known", ""),
        ("B", "known", "below the floor"),
        ("C", "known", "less than one minor unit"),
        ("", "unknown", "no known creator"),
        ("", "remaining", "remaining influence: spread over the others"),
    ]


# One draw an example: ten thousand of them are to take seconds. Four bytes a weight.
drawn = st.binary(min_size=16, max_size=60)


@given(drawn)
@settings(max_examples=10_000, deadline=None)
def test_payouts_and_what_is_held_back_sum_to_the_amount(drawn: bytes) -> None:
    head, tail = drawn[:8], drawn[8:]
    amount = 1 + int.from_bytes(head[:5], "big")
    floor = int.from_bytes(head[5:7], "big") ** 2
    policy = Policy(
        remaining="pro-rata" if head[7] & 1 else "hold",
        unknown="pro-rata" if head[7] & 2 else "hold",
        floor=floor,
    )
    found = [int.from_bytes(tail[at : at + 4], "big") for at in range(0, len(tail), 4)]
    total = sum(found) or 1
    shares = [weight / total for weight in found] if any(found) else [1.0, *[0.0] * len(found[1:])]
    known = {f"n{place}": share for place, share in enumerate(shares[2:])}
    made = split(lines(known, *shares[:2]), amount, EUR, policy)
    assert made.paid + made.held == amount
    assert sum((payee.part for payee in made.payees), Fraction(0)) == 1
    for payee in made.payees:
        units = payee.paid + payee.held
        assert abs(units - amount * payee.part) < 1
        assert min(payee.paid, payee.held) == 0 <= units
        assert payee.paid == 0 or payee.paid >= floor
        assert payee.kind == "known" or payee.paid == 0


@pytest.mark.parametrize(
    ("code", "decimals"), [("EUR", 2), ("jpy", 0), ("KWD", 3), ("XOF", 0), (" usd ", 2)]
)
def test_minor_units_are_those_of_the_currency(code: str, decimals: int) -> None:
    assert parse_currency(code) == Money(code.strip().upper(), decimals)


def test_amounts_are_written_with_the_decimals_of_the_currency() -> None:
    texts = [parse_currency(code).text(1205) for code in ("EUR", "JPY", "KWD")]
    assert texts == ["12.05", "1205", "1.205"]
    assert EUR.text(7) == "0.07"
    assert EUR.text(10**40) == "1" + "0" * 38 + ".00"


@pytest.mark.parametrize("text", ["1000", "1000.0", "1000.00", " 1000 ", "1000.000"])
def test_amounts(text: str) -> None:
    assert parse_amount(text, EUR, "--amount") == 100_000


NO_NUMBER = (
    "--amount {!r} will not do: write a number above 0 such as 1000 or 99.95, without signs or "
    "separators"
)
WRONG_AMOUNTS = [
    *(
        (text, "EUR", NO_NUMBER.format(text))
        for text in ("-5", "nan", "NaN", "inf", "1e3", "1,000", "", ".5", "5.", "१२", "1" * 19)
    ),
    ("0", "EUR", "--amount must be above 0"),
    ("0.00", "EUR", "--amount must be above 0"),
    ("1.001", "EUR", "--amount 1.001 will not do: EUR has 2 decimals"),
    ("1.5", "JPY", "--amount 1.5 will not do: JPY has no decimals"),
    ("1.0005", "KWD", "--amount 1.0005 will not do: KWD has 3 decimals"),
]


@pytest.mark.parametrize(("text", "currency", "message"), WRONG_AMOUNTS)
def test_amounts_that_will_not_do(text: str, currency: str, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_amount(text, parse_currency(currency), "--amount")
    assert str(caught.value) == message


@pytest.mark.parametrize("code", ["ZZZ", "BTC", "", "EURO", "€"])
def test_no_currency(code: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_currency(code)
    assert str(caught.value) == (
        f"{code!r} is no currency: give its ISO 4217 code, such as EUR or JPY"
    )


@pytest.mark.parametrize("code", ["XXX", "XAU", "dem", "HRK", "XDR", "CLF", "XTS", "USN"])
def test_codes_that_nobody_can_be_paid_in(code: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_currency(code)
    assert str(caught.value) == (
        f"{code.upper()} is legal tender nowhere, or no longer: give the code of money that people "
        "are paid in, such as EUR or JPY"
    )
    # What was paid in it before it was abolished can still be looked at.
    assert parse_currency(code, current=False).currency == code.upper()


HARMFUL = [
    "=HYPERLINK(\"https://evil.example\")",
    "+1+cmd|' /C calc'!A0",
    "-2",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1",
    "  =1",
    "＝1",
    "x;=1+1",
    "x\t=1",
    "x\n=1",
    'x",=1',
    "x\"\"; \n-1",
    "'=1",
    "\ufeff=1",
]  # fmt: skip


@pytest.mark.parametrize("name", HARMFUL)
def test_no_name_becomes_a_formula(name: str) -> None:
    cell = safe_cell(name)
    assert original(cell) == name
    for separator in (";", ",", "\t", "|", "\n", "\r"):
        for piece in cell.split(separator):
            assert piece.strip(" \"'\u3000")[:1] not in tuple("=+-@＝＋－＠") or piece[:1] == "'"


@pytest.mark.parametrize("name", ["Jürgen O'Neill", "林 和", "A. Smith; B. Jones", "x-y=z", "a@b"])
def test_ordinary_names_stay_as_they_are(name: str) -> None:
    assert safe_cell(name) == name


@given(st.text(st.sampled_from("=-@'\\u0043;\"\n x") | st.characters(), max_size=12))
@settings(max_examples=500, deadline=None)
def test_cells_can_be_turned_back(name: str) -> None:
    cell = safe_cell(name)
    assert original(cell) == name
    assert not cell.lstrip().startswith(("=", "+", "-", "@"))


def audited(found: list[Any]) -> Audited:
    calibrator = {"tau": 0.05, "b": 0.0, "fitted_on": "cases of the tests"}
    summary = {"schema": "attrib-audit/1", "calibrator": calibrator}
    return Audited(found, summary, "m" * 64)


def test_the_csv_opens_and_sums_up() -> None:
    names = {"Jürgen": 0.5, "=1+1": 0.25, 'x\n"y", z': 0.125}
    found = lines(names, 0.0625, 0.0625)
    made = split(found, 100_001, EUR, Policy())
    content = payout_csv(made, audited(found))
    assert content.startswith(b"\xef\xbb\xbfline,field,")
    rows = list(csv.DictReader(io.StringIO(content.decode("utf-8-sig"), newline="")))
    assert tuple(rows[0]) == COLUMNS
    assert [original(row["name"]) for row in rows] == [*names, "", ""]
    total = sum(Fraction(row["paid"]) + Fraction(row["held_back"]) for row in rows)
    assert total == Fraction("1000.01")
    assert rows[1] == {
        "line": "2",
        "field": "creator",
        "kind": "known",
        "name": "'=1+1",
        "share": "0.250000000000",
        "part": "0.250000000000",
        "paid": "250.00",
        "held_back": "0.00",
        "currency": "EUR",
        "reason": "",
        "basis": "similarity-based estimate, not a causal proof",
        "audit": "m" * 64,
    }


def test_no_shares_to_split_by() -> None:
    with pytest.raises(RunError, match="the audit is of no images: there is nothing to split by"):
        split([], 100, EUR, Policy())
    with pytest.raises(UsageError) as caught:
        split(lines({"A": 1.0}), 100, EUR, Policy(by="licence"))
    assert str(caught.value) == (
        "the audit has no shares by 'licence', only by creator: `attrib audit --by FIELD` sums by "
        "any other field of the training images"
    )


@pytest.mark.parametrize("shares", [{"A": 0.5}, {"A": float("nan")}, {"A": 1.5, "B": -0.5}])
def test_shares_that_are_none(shares: dict[str, float]) -> None:
    with pytest.raises(RunError) as caught:
        split(lines(shares), 100, EUR, Policy())
    assert str(caught.value) == (
        "the shares by creator in creators.parquet are none: they must sum to 1"
    )


NOBODY = ["unknown", "Anonymous", "(Unknown)", "Unknown Artist", "various authors", "N/A", "???"]
NOBODY += ["HASH(0x8a4563c)", "&Aacute;ki G. Karlsson", "Johann&#233;s", "no_name", "<null>", " - "]
SOMEBODY = ["Anon Y. Mous", "Nan Goldin", "AT&T", "Smith &Sons; Ltd", "林 和", "A. Unknown-Jones"]
SOMEBODY += ["Author Ann", "Hash (0x1)", "7"]


@pytest.mark.parametrize("name", NOBODY)
def test_names_that_look_like_nobodys(name: str) -> None:
    assert looks_like_nobody(name)


@pytest.mark.parametrize("name", SOMEBODY)
def test_names_that_may_be_somebodys(name: str) -> None:
    assert not looks_like_nobody(name)


def test_equal_amounts_go_by_share_and_then_by_name() -> None:
    # 5.00 EUR: 49.05 and 49.2 cents are both 49, of which the larger share stands first.
    shares = {"A": 0.0981, "B": 0.0984, "D": 0.0984, "C": 0.0984, "E": 0.6067}
    made = split(lines(shares), 500, EUR, Policy())
    assert [(payee.name, payee.paid) for payee in made.payees[:5]] == [
        *(("E", 304), ("B", 49), ("C", 49), ("D", 49), ("A", 49)),
    ]


@pytest.mark.parametrize("calibrator", [{"tau": 0.05, "b": 0.0, "fitted_on": ""}, {}, None])
def test_what_was_never_fitted_is_not_called_calibrated(calibrator: Any) -> None:
    found = lines({"A": 1.0})
    made = split(found, 100, EUR, Policy())
    unfitted = Audited(found, {"calibrator": calibrator}, "m" * 64)
    record, fitted = payout_record(made, unfitted), payout_record(made, audited(found))
    assert "to the generated ones, calibrated, and not what" in fitted["limits"]
    assert "to the generated ones, uncalibrated (nothing was fitted: " in record["limits"]
    content = payout_csv(made, unfitted).decode("utf-8-sig")
    rows = list(csv.DictReader(io.StringIO(content, newline="")))
    assert {row["basis"] for row in rows} == {
        "uncalibrated similarity-based estimate, not a causal proof"
    }
