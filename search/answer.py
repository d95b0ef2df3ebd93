"""The answer to a query: `Attribution`, its rows and its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, TypeAlias

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Attribution", "Group", "Interval", "Method", "Owner", "Row"]

Method: TypeAlias = Literal["exact", "complete", "estimated"]
"""exact: every training image was compared. complete: a range search down to the similarity below
which influence is 0. estimated: the nearest ones exactly, the rest from a uniform sample."""

Interval: TypeAlias = tuple[float, float]
"""Lower and upper end at 95 % confidence; both ends equal the value unless `estimated`."""


_PLAIN = (
    *("query", "remaining", "method", "support", "population", "k", "mass", "model"),
    *("fingerprint", "calibrator", "index", "group_by", "groups_remaining", "note"),
)
_PLAIN_OF_ROW = ("rank", "similarity", "influence", "sha256", "width", "height")


@dataclass(frozen=True)
class Owner:
    """One record of a training image; equal images (same sha256) have one owner each."""

    id: str
    key: str
    dataset: str = ""
    creator: str = ""
    licence: str = ""
    url: str = ""
    path: str = ""
    caption: str = ""


@dataclass(frozen=True)
class Row:
    """One training image (equal ones folded into one) and the influence that it carries.

    Attributes:
        rank: 1-based.
        similarity: cosine of the `synth` feature of the query and the `real` feature of the image.
        influence: share of the whole training set's influence, 0..1; summed over equal images.
        interval: of `influence`.
        owners: every record of this image, at least one, the first being the one shown.
        width, height: pixels of the training image; 0 where unknown.
    """

    rank: int
    similarity: float
    influence: float
    interval: Interval
    owners: tuple[Owner, ...]
    sha256: str = ""
    width: int = 0
    height: int = 0
    payload: Mapping[str, Any] = field(default_factory=dict, repr=False)

    @property
    def key(self) -> str:
        """Key of the first owner."""
        return self.owners[0].key

    @property
    def creators(self) -> tuple[str, ...]:
        """The different creators, '' for unknown, in order of the owners."""
        return tuple(dict.fromkeys(owner.creator for owner in self.owners))


def _row_dict(row: Row) -> dict[str, Any]:
    plain = {name: value for name, value in vars(row).items() if name != "payload"}
    return {**plain, "owners": tuple(dict(vars(owner)) for owner in row.owners)}


@dataclass(frozen=True)
class Group:
    """Influence summed over the support by a payload field; `value` is '' where it is unknown."""

    value: str
    influence: float
    interval: Interval
    images: int


@dataclass(frozen=True)
class Attribution:
    """Who influenced a generated image, and by how much.

    Attributes:
        query: name of the generated image.
        rows: most influential first; at most `k`. A tuple, but where an audit asks.
        remaining: 1 minus the influence of the rows.
        remaining_interval: of `remaining`.
        method: how the shares were computed, see `Method`.
        support: training images with influence above 0; None where it is not known exactly.
        population: training images in the collection, less those of `without`.
        k: rows asked for.
        mass: the rows end with the one at which their influence reaches this; None for all `k`.
        exact: whether comparing with every training image was asked for; `method` says what was
            done.
        groups: of `group_by`, over the whole support where it was fetched whole (always where
            `method` is `complete`), else over the nearest ones that were; the rest is in
            `groups_remaining`.
        where: the filter on rows; shares are always of the whole training set.
        without: which training images the answer takes not to be there: neither rows nor in the
            shares of the others; empty for none.
        model: name of the attribution model.
        fingerprint: of the whole model; `calibrator`: tau, b, whether fitted and on what.
        index: backend, collection and the settings that decide recall (ef, quantization).
        note: why the method is not the one that was asked for, or would be better; '' else.
    """

    query: str
    rows: Sequence[Row]
    remaining: float
    remaining_interval: Interval
    method: Method
    support: int | None
    population: int
    k: int
    model: str
    fingerprint: str
    calibrator: Mapping[str, Any]
    index: Mapping[str, Any]
    where: Mapping[str, Sequence[str]] = field(default_factory=dict)
    without: Mapping[str, Sequence[str]] = field(default_factory=dict)
    mass: float | None = None
    exact: bool = False
    group_by: str = ""
    groups: tuple[Group, ...] = ()
    groups_remaining: float = 0.0
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The whole answer as JSON values."""
        # Not `asdict`: its deep copies took 2 ms for 50 rows, a fifth of a whole answer.
        answer = dict(vars(self))
        answer["rows"] = tuple(_row_dict(row) for row in self.rows)
        answer["groups"] = tuple(dict(vars(group)) for group in self.groups)
        for name in ("calibrator", "index", "where", "without"):
            answer[name] = dict(answer[name])
        return answer

    @classmethod
    def from_dict(cls, body: Mapping[str, Any]) -> Attribution:
        """The answer that `to_dict` and JSON were made from, but for its rows' payloads."""
        given = {name: body[name] for name in _PLAIN}
        return cls(
            **given,
            exact=bool(body.get("exact", False)),  # older services do not say
            rows=tuple(
                Row(
                    **{name: row[name] for name in _PLAIN_OF_ROW},
                    interval=_interval(row["interval"]),
                    owners=tuple(Owner(**owner) for owner in row["owners"]),
                )
                for row in body["rows"]
            ),
            groups=tuple(
                Group(
                    group["value"],
                    group["influence"],
                    _interval(group["interval"]),
                    group["images"],
                )
                for group in body["groups"]
            ),
            remaining_interval=_interval(body["remaining_interval"]),
            where={field: tuple(values) for field, values in body["where"].items()},
            without={field: tuple(values) for field, values in body["without"].items()},
        )

    def to_pandas(self) -> pd.DataFrame:
        """One line a row; columns rank, key, creator, licence, influence, similarity, ...

        Raises:
            ModuleNotFoundError: pandas is not installed (``pip install 'attrib[pandas]'``).
        """
        import pandas as pd

        columns = ["rank", "key", "creator", "licence", "influence", "influence_low"]
        columns += ["influence_high", "similarity", "caption", "url", "path", "sha256", "owners"]
        lines = [
            {
                "rank": row.rank,
                "key": row.key,
                "creator": "; ".join(filter(None, row.creators)),
                "licence": row.owners[0].licence,
                "influence": row.influence,
                "influence_low": row.interval[0],
                "influence_high": row.interval[1],
                "similarity": row.similarity,
                "caption": row.owners[0].caption,
                "url": row.owners[0].url,
                "path": row.owners[0].path,
                "sha256": row.sha256,
                "owners": len(row.owners),
            }
            for row in self.rows
        ]
        return pd.DataFrame(lines, columns=columns)

    def __repr__(self) -> str:
        lines = [
            f"Attribution of {self.query!r} to {self.population:,} training images "
            f"({self.method}, model {self.model})"
        ]
        for row in self.rows[:10]:
            creator = "; ".join(filter(None, row.creators)) or "unknown"
            numbers = f"{row.rank:4d}  {row.influence:7.2%}  {row.similarity:6.3f}"
            lines.append(f"{numbers}  {row.key}  ({creator})")
        if len(self.rows) > 10:
            lines.append(f"      ... {len(self.rows) - 10} more rows")
        lines.append(f"      {self.remaining:7.2%}  remaining influence")
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        from html import escape

        body = "".join(
            f"<tr><td>{row.rank}</td><td>{row.influence:.2%}</td><td>{row.similarity:.3f}</td>"
            f"<td>{escape(row.key)}</td>"
            f"<td>{escape('; '.join(filter(None, row.creators)) or 'unknown')}</td>"
            f"<td>{escape(row.owners[0].caption)}</td></tr>"
            for row in self.rows
        )
        return (
            f"<table><caption>{escape(self.query)}: {self.method}, model {escape(self.model)}, "
            f"{self.population:,} training images</caption><thead><tr><th>#</th><th>influence</th>"
            "<th>similarity</th><th>training image</th><th>creator</th><th>caption</th></tr>"
            "</thead>"
            f"<tbody>{body}</tbody><tfoot><tr><td></td><td>{self.remaining:.2%}</td>"
            "<td colspan=4>remaining influence</td></tr></tfoot></table>"
        )


def _interval(ends: Sequence[float]) -> Interval:
    low, high = ends
    return low, high
