"""Has the models of a dataset made by workers, one task each, and waits for them.

The dataset's folder is the truth: a model is made once its record is there and its images are those
of the record. Redis may be emptied at any moment, and this process killed: what has neither a
record nor a sign of life is sent again.
"""

from __future__ import annotations

import hashlib
import secrets
import time
from collections.abc import Callable, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from evaluation.dataset.files import OWNER, record_path, write_text
from evaluation.dataset.plan import ModelPlan
from evaluation.dataset.resume import read_record
from ingest.errors import WorkersError
from workers.app import make_app
from workers.board import Beat
from workers.dataset_board import MODEL_QUEUE, MODEL_TASK, DatasetBoard, ending_of
from workers.dataset_order import ModelOrder
from workers.dispatch import CoordinatorSettings
from workers.lease import Lease

if TYPE_CHECKING:
    from celery import Celery

__all__ = ["ModelWorkers"]

_POLL_S = 0.2
_NO_WORKER_S = 10.0
_REMIND_S = 60.0
_LOSSES_PER_ATTEMPT = 3  # a machine that is lost is seldom the model's fault


class ModelWorkers:
    """What `evaluation.dataset.build.build_dataset` takes as `make`.

    Args:
        redis: address of Redis.
        generator: its folder, which workers must see under the same path, or a repository.
        revision: of the repository.
        exemplars: sources of the library; likewise.
        class_field: of the library.
        settings: how workers are dealt with.
        notice: takes lines for people.

    Raises:
        UsageError: that is no address of Redis.
        WorkersError: it does not answer.
    """

    def __init__(
        self,
        redis: str,
        *,
        generator: str,
        revision: str | None,
        exemplars: Sequence[str],
        class_field: str | None,
        settings: CoordinatorSettings,
        notice: Callable[[str], None],
    ) -> None:
        with closing(DatasetBoard(redis)) as board:
            board.ping()
        self._redis = redis
        self._generator = _absolute(generator)
        self._revision = revision or ""
        self._exemplars = tuple(_absolute(spec) for spec in exemplars)
        self._class_field = class_field
        self._settings = settings
        self._notice = notice

    def __call__(
        self, out: Path, models: Sequence[ModelPlan], advance: Callable[[int], None]
    ) -> None:
        """Have the models made in `out`, whose plan and exemplars are written.

        Raises:
            WorkersError: some failed again and again; all others are made.
            OSError: the disk refuses.
        """
        run = secrets.token_hex(6)
        # Workers of an earlier run, if any are still at it, see that the folder is theirs no more.
        write_text(out / OWNER, run)
        for model in models:
            # One without its images is of no use, and would pass for the new one.
            record_path(out, model.id).unlink(missing_ok=True)
        with (
            closing(DatasetBoard(self._redis)) as board,
            closing(make_app(self._redis)) as app,
        ):
            order = ModelOrder(
                plan=run,
                send="",
                number=0,
                out=str(out.absolute()),
                generator=self._generator,
                revision=self._revision,
                exemplars=self._exemplars,
                class_field=self._class_field,
                lease_s=self._settings.lease_s,
            )
            flights = [_Flight(model) for model in models]
            sending = _Run(out, flights, order, board, app, self._settings, self._notice, advance)
            try:
                sending.run()
            finally:
                with suppress(WorkersError):
                    board.forget(run, [flight.number for flight in flights])


@dataclass
class _Flight:
    """A model that is to be made.

    Attributes:
        send: name of its sending; '' while it is not sent.
        lease: of its last sending.
        not_before: when it may be sent.
        attempts: sendings that failed.
        losses: sendings that were heard of no more.
        reason: of the last failure.
        images: of it that are known to be made.
        end: ``made``, or ``dead`` after too many failures; '' before.
    """

    model: ModelPlan
    send: str = ""
    lease: Lease = field(default_factory=Lease)
    not_before: float = 0.0
    attempts: int = 0
    losses: int = 0
    reason: str = ""
    images: int = 0
    end: str = ""

    @property
    def number(self) -> int:
        return int(self.model.id)


class _Run:
    def __init__(
        self,
        out: Path,
        flights: Sequence[_Flight],
        order: ModelOrder,
        board: DatasetBoard,
        app: Celery,
        settings: CoordinatorSettings,
        notice: Callable[[str], None],
        advance: Callable[[int], None],
    ) -> None:
        self._out = out
        self._flights = flights
        self._order = order
        self._board = board
        self._app = app
        self._settings = settings
        self._notice = notice
        self._advance = advance
        self._away = False
        self._alive_at = time.monotonic()
        self._refusals: set[str] = set()

    def run(self) -> None:
        while left := [flight for flight in self._flights if not flight.end]:
            for flight in left:
                self._look(flight)
            try:
                self._talk([flight for flight in left if not flight.end])
            except WorkersError as exc:
                if not self._away:
                    self._notice(f"{exc}; waiting for it, nothing is lost")
                self._away = True
            time.sleep(_POLL_S)
        if dead := [flight for flight in self._flights if flight.end == "dead"]:
            raise WorkersError(
                f"{len(dead)} of {len(self._flights)} models failed (model {dead[0].model.id}: "
                f"{dead[0].reason}); the same command tries them again"
            )

    def _look(self, flight: _Flight) -> None:
        """Whether the model is made. One that two workers wrote at once is made again."""
        path = record_path(self._out, flight.model.id)
        if not path.is_file():
            return
        record = read_record(self._out, flight.model)
        if record is None:
            return
        for name, digest in record["images"].items():
            if hashlib.sha256((self._out / name).read_bytes()).hexdigest() != digest:
                path.unlink()
                self._lost(flight)
                return
        flight.end = "made"
        self._reach(flight, len(record["images"]))

    def _talk(self, flights: Sequence[_Flight]) -> None:
        sent = [flight for flight in flights if flight.send]
        numbers = [flight.number for flight in sent]
        beats = self._board.beats(self._order.plan, numbers)
        wanted = self._board.wanted(self._order.plan, numbers)
        waiting = self._board.queued()
        now = time.monotonic()
        for flight, beat, send in zip(sent, beats, wanted, strict=True):
            self._judge(flight, beat, send, waiting, now)
        for flight in flights:
            if not flight.end and not flight.send and now >= flight.not_before:
                self._send(flight)
        if self._away:
            self._away = False
            self._notice(f"Redis at {self._board.address} answers again")
        if any(beat is not None for beat in beats):
            self._alive_at = now
        elif sent and now - self._alive_at > _NO_WORKER_S:
            self._notice(
                f"waiting: no worker answers at {self._board.address}; start one with `attrib "
                f"dataset worker`, on any machine that sees this Redis and {self._out}"
            )
            self._alive_at = now + _REMIND_S - _NO_WORKER_S

    def _judge(
        self, flight: _Flight, beat: Beat | None, wanted: str | None, waiting: int, now: float
    ) -> None:
        state = flight.lease.judge(flight.send, beat, wanted, waiting, now, self._settings.lease_s)
        if beat is not None and state == "alive":
            self._reach(flight, beat.images)
            how, why = ending_of(beat)
            if how == "failed":
                flight.attempts += 1
                flight.reason = why
                self._again(flight)
            elif how == "refused":
                if f"{beat.worker}: {why}" not in self._refusals:
                    self._refusals.add(f"{beat.worker}: {why}")
                    self._notice(f"worker {beat.worker} refuses: {why}")
                self._again(flight)
            elif wanted is None:  # Redis was emptied, and its worker told of itself since
                self._board.want(self._order.plan, flight.number, flight.send)
        elif state == "lost":
            self._lost(flight)
        elif state == "unsent":
            flight.send = ""

    def _lost(self, flight: _Flight) -> None:
        flight.losses += 1
        flight.reason = flight.reason or "its worker gave no sign of life any more"
        self._again(flight)

    def _again(self, flight: _Flight) -> None:
        """Have it sent again, or give it up."""
        most = self._settings.max_attempts
        flight.send = ""
        flight.not_before = time.monotonic() + min(60.0, flight.attempts)
        if flight.attempts >= most or flight.losses >= _LOSSES_PER_ATTEMPT * most:
            flight.end = "dead"
            self._notice(
                f"model {flight.model.id} is given up after "
                f"{flight.attempts + flight.losses} attempts: {flight.reason}"
            )

    def _send(self, flight: _Flight) -> None:
        from kombu.exceptions import OperationalError

        flight.send = secrets.token_hex(6)
        flight.lease.begin(time.monotonic())
        self._board.want(self._order.plan, flight.number, flight.send)
        order = replace(self._order, send=flight.send, number=flight.number)
        try:
            self._app.send_task(MODEL_TASK, args=[order.values()], queue=MODEL_QUEUE, retry=False)
        except (OperationalError, OSError) as exc:
            # Not known whether it arrived: it is sent again under another name.
            flight.send = ""
            raise WorkersError(f"Redis at {self._board.address} does not answer") from exc

    def _reach(self, flight: _Flight, images: int) -> None:
        if images > flight.images:
            self._advance(images - flight.images)
            flight.images = images


def _absolute(spec: str) -> str:
    """A path as other processes find it; what is none, such as a URL, as it is."""
    path = Path(spec)
    return str(path.absolute()) if path.exists() else spec
