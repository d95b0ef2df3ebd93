"""Payees whose names look like nobody's: placeholders, and what a program left behind for a name.

A hint to whoever pays, no more: no split goes by it, since somebody may well be called so.
"""

from __future__ import annotations

import re
from html import unescape
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from search.audit.payout import Payee, Payout

__all__ = ["doubtful", "doubtful_in_words", "looks_like_nobody"]

_PLACEHOLDERS = frozenset(
    {"anon", "anonymous", "artist", "author", "creator", "default", "deleted", "n/a", "nan", "nil"}
    | {"no name", "nobody", "none", "not available", "not known", "null", "tba", "tbd"}
    | {"undefined", "unknown", "unnamed", "unspecified", "untitled", "user", "various"}
)
_ROLE = re.compile(r" (?:artist|author|contributor|creator|people|person|user)s?$")
_ENTITY = re.compile(r"&(?:[A-Za-z][A-Za-z0-9]{1,31}|#[0-9]{1,7}|#[xX][0-9A-Fa-f]{1,6});")
_REFERENCE = re.compile(r"\b(?:ARRAY|CODE|GLOB|HASH|REF|SCALAR)\(0x[0-9A-Fa-f]+\)")
_AROUND = " .,:;!?-*'\"()[]{}<>"
_NAMED = 3


def looks_like_nobody(name: str) -> bool:
    """Whether a name is none that a person, or anyone who can be paid, goes by.

    So are placeholders (`unknown`, `N/A`), alone or before a word for what people are (`Unknown
    Artist`, `various authors`), whatever their case and the brackets around them; names without a
    letter or digit; HTML entities that were not decoded; references of Perl that were printed.
    """
    if any(unescape(found) != found for found in _ENTITY.findall(name)) or _REFERENCE.search(name):
        return True
    if not any(character.isalnum() for character in name):
        return True
    plain = " ".join(name.casefold().replace("_", " ").split()).strip(_AROUND)
    return plain in _PLACEHOLDERS or _ROLE.sub("", plain) in _PLACEHOLDERS


def doubtful(payout: Payout) -> list[Payee]:
    """The known payees with such names, in order of the payout."""
    known = (payee for payee in payout.payees if payee.kind == "known")
    return [payee for payee in known if looks_like_nobody(payee.name)]


def doubtful_in_words(payout: Payout) -> str:
    """A line for whoever pays; '' where no name is in doubt."""
    found = doubtful(payout)
    if not found:
        return ""
    names = ", ".join(repr(payee.name) for payee in found[:_NAMED])
    if len(found) > _NAMED:
        names += f" and {len(found) - _NAMED:,} more"
    units = sum(payee.paid + payee.held for payee in found)
    told = (
        "names look like nobody's and come"
        if len(found) > 1
        else "name looks like nobody's and comes"
    )
    return (
        f"{len(found):,} {told} to {payout.money.text(units)} {payout.money.currency}: {names}; "
        "correct them in the collection and audit again, or see to it yourself"
    )
