"""``attrib payout``: a sum of money split by the shares of an audit."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from attrib.ending import ends_in_one_line, warn
from attrib.options import JsonOption

if TYPE_CHECKING:
    from search.audit.payout import Payout

__all__ = ["payout"]

_SHOWN = 40


@ends_in_one_line
def payout(
    audit: Annotated[Path, typer.Argument(metavar="REPORT", help="Folder of a finished audit.")],
    amount: Annotated[str, typer.Option(help="The sum to split, such as 1000 or 99.95.")],
    currency: Annotated[str, typer.Option(help="Its ISO 4217 code, such as EUR.")],
    by: Annotated[
        str, typer.Option(help="Whom to pay: one of the fields that the audit summed by.")
    ] = "creator",
    floor: Annotated[
        str,
        typer.Option(
            help="Payouts below this amount are not paid, but held back for their creators."
        ),
    ] = "0",
    remaining: Annotated[
        Literal["hold", "pro-rata"],
        typer.Option(
            help="The remaining influence, which no listed training image carries: hold it back, "
            "or spread it over all others in proportion to their shares."
        ),
    ] = "hold",
    unknown: Annotated[
        Literal["hold", "pro-rata"],
        typer.Option(
            help="The share of training images with no known creator: hold it back, or spread it "
            "over the known ones in proportion to their shares."
        ),
    ] = "hold",
    out: Annotated[
        Path, typer.Option(help="The CSV file; its audit trail goes beside it, as .json.")
    ] = Path("payout.csv"),
    json: JsonOption = False,
) -> None:
    """Split a sum of money by the shares of an audit, exactly to the minor unit of its currency.

    Payouts and what is held back sum to the amount. Shares are a similarity-based estimate, not a
    causal proof: what they are paid for is for you to agree on.
    """
    from attrib.console import print_json
    from search.audit.apportion import parse_amount, parse_currency
    from search.audit.payout import Policy, read_audited, split
    from search.audit.payout_files import payout_record, write_payout
    from search.audit.payout_names import doubtful_in_words

    money = parse_currency(currency)
    units = parse_amount(amount, money, "--amount")
    policy = Policy(by, remaining, unknown, parse_amount(floor, money, "--floor", zero=True))
    audited = read_audited(audit)
    made = split(audited.lines, units, money, policy)
    trail = write_payout(made, audited, out)
    if doubt := doubtful_in_words(made):
        warn(f"warning: {doubt}")
    if json:
        print_json(payout_record(made, audited))
        return
    _show(made, audited.summary)
    typer.echo(f"{out}, and its audit trail in {trail}")


def _show(made: Payout, summary: Mapping[str, Any]) -> None:
    from attrib.console import counted, table
    from search.audit.payout import limits

    money = made.money
    known = [payee for payee in made.payees if payee.kind == "known"]
    rows: list[list[object]] = []
    for payee in [*known[:_SHOWN], *made.payees[len(known) :]]:
        name = payee.name
        if payee.kind != "known":
            name = f"({'unknown' if payee.kind == 'unknown' else 'remaining influence'})"
        why = payee.reason if payee.held else ""
        rows.append(
            [f"{payee.share:.2%}", money.text(payee.paid), money.text(payee.held), name, why]
        )
    table(
        [
            ("share", "right"),
            ("paid", "right"),
            ("held back", "right"),
            (made.policy.by, "cut"),
            ("why held back", "left"),
        ],
        rows,
        title=f"{money.text(made.amount)} {money.currency} by {made.policy.by}",
    )
    if len(known) > _SHOWN:
        typer.echo(f"and {counted(len(known) - _SHOWN, 'more line')}, see the file")
    paid = sum(payee.paid > 0 for payee in made.payees)
    typer.echo(
        f"{money.text(made.paid)} {money.currency} to {counted(paid, 'payee')}, "
        f"{money.text(made.held)} {money.currency} held back"
    )
    for line in (*made.policy.words(money), limits(summary)):
        typer.echo(line)
