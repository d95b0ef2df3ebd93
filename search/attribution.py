"""`Attributor`: from features of generated images to `Attribution`."""

from __future__ import annotations

import json
from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import fsum, inf
from typing import Any, NamedTuple

import numpy as np

from embed.calibrator import Calibrator
from ingest.errors import (
    EmptyQueryError,
    ModelMismatchError,
    NothingLeftError,
    RunError,
    UsageError,
)
from search.answer import Attribution, Group, Method, Row
from search.calibration import Normaliser, weights
from search.checks import check_mass
from search.chosen import filter_in_words, matches
from search.fold import PayloadReader, fold_support, until
from search.fold_arrays import fold_arrays
from search.groups import check_field, groups_of
from search.index import INDEXED_FIELDS, Features, Index, IndexInfo, Payload, Where
from search.others import Others, Searched
from search.records import Records
from search.rows import RecordRows, rows_of, share_of
from search.support import Limits, Support, SupportFinder, search_as_allowed

__all__ = ["Attributor"]

_FOLD_WINDOW = 512
_NORM_TOLERANCE = 1e-2
_KEPT = 4  # finders, each with a sample of up to some ten megabytes


@dataclass(frozen=True)
class _Asked:
    """What `attribute` was asked for, see there."""

    k: int
    mass: float | None
    where: Where
    without: Where
    group_by: str
    exact: bool


class _Shown(NamedTuple):
    """rows, their summed unnormalised weight, and 1 minus their summed influence."""

    rows: Sequence[Row]
    weight: float
    remaining: float


class Attributor:
    """Attributes generated images to the training images of one collection.

    The index's sample is kept from the first estimate on, and read again when the number of
    training images changes. Answers depend on the collection, the query and the settings alone, not
    on what was asked before or together.

    Args:
        index: the collection, with features of the `real` mapper.
        model_name: of the attribution model, for the record.
        fingerprint: of the attribution model; that it is also the index's is checked by the caller.
        calibrator: turns similarities into influence.
        support_limit: a support up to this size is fetched whole.
        head: training images taken from the index where the rest is estimated.
        exact_below: collections up to this size are scanned rather than sampled.
        first_limit: of the first range search, see `Limits.first`.
        records: where what is known of the training images is kept from one answer to the next, by
            whoever knows that nothing is put in or taken out meanwhile. The rows of answers are
            made when they are looked at then: see `search.rows.RecordRows`.
    """

    def __init__(
        self,
        index: Index,
        model_name: str,
        fingerprint: str,
        calibrator: Calibrator,
        *,
        support_limit: int = Limits.support,
        head: int = Limits.head,
        exact_below: int = Limits.exact_below,
        first_limit: int = Limits.first,
        records: Records | None = None,
    ) -> None:
        self._index = index
        self._records = records
        self._model_name = model_name
        self._fingerprint = fingerprint
        self._calibrator = calibrator
        self._limits = Limits(
            first=first_limit, support=support_limit, head=head, exact_below=exact_below
        )
        self._info: IndexInfo | None = None
        self._finders: OrderedDict[str, tuple[Searched, SupportFinder]] = OrderedDict()

    def attribute(
        self,
        features: Features,
        names: Sequence[str],
        *,
        k: int = 50,
        mass: float | None = None,
        where: Where | None = None,
        without: Where | None = None,
        group_by: str | None = None,
        exact: bool = False,
    ) -> list[Attribution]:
        """One `Attribution` a generated image; all are searched together.

        Args:
            features: (queries, dim), L2-normalised, of the `synth` mapper.
            names: (queries,) of the generated images.
            k: rows wanted, at least 1.
            mass: end the rows with the one at which their summed influence reaches this, 0..1; the
                rows before it are what they are without it.
            where: which training images may be rows and count in groups. Shares stay shares of the
                whole training set; what is filtered out is in the remaining influence.
            without: answer as if the training images that match were not in the collection. A
                record goes only if it matches itself, whatever its equals do.
            group_by: payload field to sum influence by.
            exact: compare with every training image, whatever it takes.

        Raises:
            EmptyQueryError: k is below 1.
            UsageError: features that are not finite or not normalised, a field that is not
                indexed in a filter or that no training image has, or a `mass` that is no share.
            ModelMismatchError: features of another length than the collection's.
            RunError: the collection is empty; NothingLeftError where `without` is all of it.
            IndexFailedError: the engine failed.
        """
        asked = _Asked(k, mass, dict(where or {}), dict(without or {}), group_by or "", exact)
        self._validate(features, names, asked)
        if not len(names):
            return []
        info = self._state()
        population = self._population(info, asked.without)
        features = np.ascontiguousarray(features, np.float32)
        searched, finder = self._finder(asked.without)
        supports = finder.find(features, population, rows=k, exact=exact)
        shown = self._filtered(searched, features, supports, population, asked)
        return [
            self._answer(name, support, candidates, info, population, asked)
            for name, support, candidates in zip(names, supports, shown, strict=True)
        ]

    def _state(self) -> IndexInfo:
        """State of the collection, read anew where its size changed: it looks at the disk."""
        population = self._index.count()
        if self._info is None or self._info.points != population:
            self._info = self._index.info()
        return self._info

    def _population(self, info: IndexInfo, without: Where) -> int:
        if info.points < 1:
            raise RunError("the collection holds no training images: ingest some first")
        population = self._index.count(without=without) if without else info.points
        if population < 1:
            raise NothingLeftError(
                f"all {info.points:,} training images match {filter_in_words(without)}: without "
                "them none is left to attribute to"
            )
        return population

    def _finder(self, without: Where) -> tuple[Searched, SupportFinder]:
        """What is searched, and its finder, which keeps a sample."""
        name = json.dumps(without, sort_keys=True, default=list)
        if name not in self._finders:
            if len(self._finders) == _KEPT:
                self._finders.popitem(last=False)
            searched = Others(self._index, without) if without else self._index
            self._finders[name] = searched, SupportFinder(searched, self._calibrator, self._limits)
        self._finders.move_to_end(name)
        return self._finders[name]

    def _validate(self, features: Features, names: Sequence[str], asked: _Asked) -> None:
        if asked.k < 1:
            raise EmptyQueryError(f"k must be at least 1, not {asked.k}")
        check_mass(asked.mass)
        if features.ndim != 2 or len(features) != len(names):
            shape = " x ".join(map(str, features.shape))
            raise UsageError(f"features of {len(names)} images are needed, not an array of {shape}")
        dim = self._index.dim
        if features.shape[1] != dim:
            raise ModelMismatchError(
                f"features have {features.shape[1]} numbers but the collection's have {dim}: "
                "query with the model that it was built with"
            )
        norms = np.linalg.norm(np.asarray(features, np.float64), axis=1)
        for name, norm in zip(names, norms, strict=True):
            if not abs(norm - 1) <= _NORM_TOLERANCE:  # NaN is refused here too
                raise UsageError(f"features of {name!r} are not L2-normalised: norm {norm:.4g}")
        for field, values in (*asked.where.items(), *asked.without.items()):
            if field not in INDEXED_FIELDS:
                known = ", ".join(INDEXED_FIELDS)
                raise UsageError(f"cannot filter by {field!r}: the fields to filter by are {known}")
            if isinstance(values, str):
                raise UsageError(f"values to filter {field!r} by must be a list, not {values!r}")

    def _filtered(
        self,
        searched: Searched,
        features: Features,
        supports: Sequence[Support],
        population: int,
        asked: _Asked,
    ) -> list[Support | None]:
        """What rows are taken from where only a head is known: a filtered search.

        The head may hold few training images that match; a filtered search finds the nearest of
        those anywhere. None where the support itself serves.
        """
        shown: list[Support | None] = [None] * len(supports)
        if not asked.where:
            return shown
        partial = [
            query
            for query, support in enumerate(supports)
            if support.size is None or support.size > len(support.ids)
        ]
        if not partial:
            return shown
        limit = min(population, max(4 * asked.k, self._limits.head if asked.group_by else 0))
        found, refused = search_as_allowed(
            searched, features[partial], limit, where=asked.where, exact=asked.exact
        )
        for query, hits in zip(partial, found, strict=True):
            support = supports[query]
            weight = weights(hits.similarities, support.largest, self._calibrator)
            kept = int(np.count_nonzero(weight))
            shown[query] = Support(
                ids=hits.ids[:kept],
                similarities=hits.similarities[:kept],
                weights=weight[:kept],
                largest=support.largest,
                normaliser=support.normaliser,
                method=support.method,
                size=support.size,
                refused=support.refused or refused,
            )
        return shown

    def _answer(
        self,
        name: str,
        support: Support,
        candidates: Support | None,
        info: IndexInfo,
        population: int,
        asked: _Asked,
    ) -> Attribution:
        source = support if candidates is None else candidates
        where, group_by = asked.where, asked.group_by
        total = support.normaliser
        if candidates is not None:  # rows from outside the head must not sum to more than Z
            total = _at_least(total, fsum(source.weights))
        fields = list(dict.fromkeys(["sha256", *where, *([group_by] if group_by else [])]))
        reader = PayloadReader(self._index, source)
        shown = self._record_rows(source, total, info, asked)
        if shown is None:
            if group_by:
                reader.read(range(len(source.ids)), fields)
            shown = self._read_rows(source, reader, total, fields, asked)
        rows, weight, remaining = shown
        groups: tuple[Group, ...] = ()
        if group_by:
            payloads = reader.read(range(len(source.ids)), fields)
            check_field(self._index, payloads.values(), group_by)
            groups = groups_of(source, payloads, group_by, where, total)
        low, high = share_of(weight, total)
        return Attribution(
            query=name,
            rows=rows,
            remaining=remaining,
            remaining_interval=(
                (1 - high, 1 - low) if support.method == "estimated" else (remaining, remaining)
            ),
            method=support.method,
            support=support.size,
            population=population,
            k=asked.k,
            mass=asked.mass,
            exact=asked.exact,
            model=self._model_name,
            fingerprint=self._fingerprint,
            calibrator=_calibrator_record(self._calibrator),
            index=_index_record(info),
            where={field: tuple(values) for field, values in where.items()},
            without={field: tuple(values) for field, values in asked.without.items()},
            group_by=group_by,
            groups=groups,
            groups_remaining=_rest(group.influence for group in groups) if group_by else 0.0,
            note=_note(source.refused, support.method),
        )

    def _record_rows(
        self, source: Support, total: Normaliser, info: IndexInfo, asked: _Asked
    ) -> _Shown | None:
        """Rows from what is kept of the training images; None where that does not serve."""
        if self._records is None or asked.where or asked.group_by:
            return None
        numbers = self._records.numbers(source.ids, info.points)
        if numbers is None:
            return None
        folded = fold_arrays(
            source.weights,
            self._records.pictures[numbers],
            asked.k,
            window=_FOLD_WINDOW,
            total=total.value,
            mass=asked.mass,
        )
        rows = RecordRows.of(self._records, numbers, source.similarities, folded, total)
        return _Shown(rows, fsum(folded.weights.tolist()), _rest(rows.influences.tolist()))

    def _read_rows(
        self,
        source: Support,
        reader: PayloadReader,
        total: Normaliser,
        fields: Sequence[str],
        asked: _Asked,
    ) -> _Shown:
        """Rows from payloads that are read for this answer."""
        where = asked.where

        def keep(payload: Payload) -> bool:
            return matches(payload, where)

        folds = fold_support(
            self._index,
            source,
            reader,
            asked.k,
            fields=fields,
            window=_FOLD_WINDOW,
            keep=keep if where else None,
            enough=inf if asked.mass is None else asked.mass * total.value,
        )
        if asked.mass is not None:
            folds = until(folds, total.value, asked.mass)
        rows = rows_of(source, folds, reader, total)
        return _Shown(
            rows, fsum(fold.weight for fold in folds), _rest(row.influence for row in rows)
        )


def _note(refused: str, method: Method) -> str:
    return f"{method}, because {refused}" if refused else ""


def _rest(shares: Iterable[float]) -> float:
    """1 minus the shares; rounding may leave it just below 0, which is no influence."""
    return max(1 - fsum(shares), 0.0)


def _at_least(total: Normaliser, certain: float) -> Normaliser:
    return Normaliser(
        value=max(total.value, certain),
        low=max(total.low, certain),
        high=max(total.high, certain),
        standard_error=total.standard_error,
    )


def _calibrator_record(calibrator: Calibrator) -> Mapping[str, Any]:
    return {
        "tau": calibrator.tau,
        "b": calibrator.b,
        "fitted": calibrator.fitted,
        "fitted_on": calibrator.fitted_on,
    }


def _index_record(info: IndexInfo) -> Mapping[str, Any]:
    return {
        "backend": info.backend,
        "points": info.points,
        "indexed": info.indexed,
        "dim": info.dim,
        "quantization": info.quantization,
        "ef": info.ef,
        # What a collection takes up now is no setting, and would make equal answers differ.
        **{name: value for name, value in info.details.items() if not name.endswith("_bytes")},
    }
