"""What a worker does with a model of a dataset that comes out of the queue."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from evaluation.dataset.files import OWNER, PLAN, WORK
from evaluation.dataset.plan import Plan, loads_plan
from evaluation.dataset.settings import BuildSettings, settings_of
from ingest.errors import AttribError, UsageError, WorkersError
from workers.board import Beat
from workers.dataset_board import DatasetBoard, ending
from workers.dataset_order import ModelOrder, read_model_order
from workers.stage import NotWantedError
from workers.task import RefusedError

if TYPE_CHECKING:
    from evaluation.dataset.generator import Generator
    from evaluation.dataset.library import Entry

__all__ = ["ModelRunner"]

_LAST_WORDS_S = 60.0


class ModelRunner:
    """Makes one model after another, with the generator loaded once.

    Args:
        board: connection to Redis.
        name: of this worker.
        device: to make models on; None for a GPU where there is one.
    """

    def __init__(self, board: DatasetBoard, name: str, device: str | None) -> None:
        self._board = board
        self._name = name
        self._device = device
        self._generator: tuple[tuple[str, ...], Generator] | None = None
        self._library: tuple[str, dict[str, Entry]] | None = None

    def run(self, values: dict[str, Any]) -> None:
        """Make a model. What goes wrong with it is told to the build.

        Raises:
            RefusedError: it is not the model that is at fault, but this worker.
        """
        try:
            order = read_model_order(values)
        except ValueError as exc:
            raise RefusedError(str(exc)) from exc
        life = _Life(self._board, self._name, order)
        if not life.is_wanted():
            return
        with life.beating():
            try:
                self._make(order, life)
            except NotWantedError:
                life.end("")
            except RefusedError as exc:
                life.end(ending("refused", str(exc)))
                raise
            except AttribError as exc:
                life.end(ending("failed", str(exc)))
            except Exception as exc:
                life.end(ending("failed", f"unexpected {type(exc).__name__}: {exc}"))
            else:
                life.end(ending("done"))

    def _make(self, order: ModelOrder, life: _Life) -> None:
        from evaluation.dataset.make import make_model

        out = Path(order.out)
        try:
            plan = loads_plan((out / PLAN).read_text("utf-8"))
            settings = settings_of(plan.settings)
        except (OSError, ValueError) as exc:
            raise RefusedError(
                f"{out} is not the folder that the build writes to, as seen from here; mount it "
                "under the same path"
            ) from exc
        life.check()
        model = plan.models[order.number]
        try:
            generator = self._generator_for(order, plan, settings)
            entries = self._entries_for(order)
        except AttribError as exc:
            raise RefusedError(str(exc)) from exc
        if lacking := [key for key in model.priors if key not in entries]:
            raise RefusedError(
                f"{lacking[0]} is not in {', '.join(order.exemplars)}, seen from here"
            )
        work = out / WORK / f"{model.id}-{order.send}"
        make_model(out, model, entries, generator, settings, life.advance, work)

    def _generator_for(self, order: ModelOrder, plan: Plan, settings: BuildSettings) -> Generator:
        """The generator of the plan, the same to the last byte.

        Raises:
            RunError: it is not, it cannot be loaded, or a customization does not fit into memory.
        """
        from evaluation.dataset.build import generator_hash, libraries
        from evaluation.dataset.generator import load_generator
        from evaluation.dataset.identity import hub_commit, threads_of
        from evaluation.dataset.memory import check_memory

        commit = plan.generator.get("commit", "")
        adapters_only = settings.customization.method == "lora"
        wanted = (
            *(order.generator, order.revision, plan.generator["sha256"] or commit),
            str(adapters_only),
        )
        if self._generator is None or self._generator[0] != wanted:
            self._generator = None  # two generators may not fit the device
            _same("version of", plan.versions, libraries())
            here = {"sha256": generator_hash(order.generator)}
            _same(f"{order.generator}:", {"sha256": plan.generator["sha256"]}, here)
            generator = load_generator(
                order.generator,
                device=self._device,
                revision=order.revision or None,
                adapters_only=adapters_only,
            )
            here = {"commit": hub_commit(order.generator, order.revision)}
            _same(f"{order.generator}:", {"commit": commit}, here)
            self._generator = wanted, generator
        generator = self._generator[1]
        _same("kind of", {"device": plan.generator["device"]}, {"device": generator.device.type})
        threads = {"threads": plan.generator.get("threads", "")}
        _same("number of", threads, {"threads": "", **threads_of(generator.device.type)})
        check_memory(generator, settings)
        return generator

    def _entries_for(self, order: ModelOrder) -> dict[str, Entry]:
        from evaluation.dataset.library import Library

        if self._library is None or self._library[0] != order.plan:
            library = Library(order.exemplars, class_field=order.class_field)
            self._library = order.plan, {entry.key: entry for entry in library.entries}
        return self._library[1]


class _Life:
    """Signs of life of one sending, and whether it still counts."""

    def __init__(self, board: DatasetBoard, name: str, order: ModelOrder) -> None:
        self._board = board
        self._name = name
        self._order = order
        self._images = 0
        self._stage = "making"
        self._ended = threading.Event()
        self._lost = False

    def is_wanted(self) -> bool:
        """Whether this sending counts, as Redis knows."""
        try:
            return self._board.wanted(self._order.plan, [self._order.number]) == [self._order.send]
        except WorkersError:
            return False  # the build will send it again

    def check(self) -> None:
        """Go on only if the folder is still of the build that sent this.

        Raises:
            NotWantedError: another one writes into it, or the model was given away.
        """
        try:
            owner = (Path(self._order.out) / OWNER).read_text("utf-8")
        except OSError:
            owner = ""
        if self._lost or owner != self._order.plan:
            raise NotWantedError

    def advance(self, images: int) -> None:
        """So many more images are made; the last one is told of before any is put in its place.

        Raises:
            NotWantedError: as `check`.
        """
        self._images += images
        self.check()

    @contextmanager
    def beating(self) -> Iterator[None]:
        """While the model is made."""
        thread = threading.Thread(target=self._run, name="attrib-heartbeat", daemon=True)
        thread.start()
        try:
            yield
        finally:
            self._ended.set()
            thread.join()

    def end(self, stage: str) -> None:
        """Say how it ended; '' for nothing to say, and for a try that nobody waits for."""
        self._ended.set()
        if stage:
            self._stage = stage
            with suppress(WorkersError):  # the build will miss its beats
                self._beat(max(_LAST_WORDS_S, self._order.lease_s))

    def _run(self) -> None:
        while not self._ended.is_set():
            with suppress(WorkersError):
                plan, number = self._order.plan, self._order.number
                wanted = self._board.wanted(plan, [number])[0]
                self._lost |= wanted is not None and wanted != self._order.send
                if not self._lost and not self._ended.is_set():
                    self._beat(self._order.lease_s)
            self._ended.wait(min(3.0, self._order.lease_s / 4))

    def _beat(self, lease_s: float) -> None:
        beat = Beat(self._name, self._order.send, self._images, self._stage)
        self._board.beat(self._order.plan, self._order.number, beat, lease_s)


def _same(what: str, planned: dict[str, str], here: dict[str, str]) -> None:
    """Refuse where another result would come out.

    Raises:
        UsageError: a value differs.
    """
    for name in sorted({*planned, *here}):
        if planned.get(name) != here.get(name):
            raise UsageError(
                f"{what} {name} is {here.get(name) or 'none'} here, and "
                f"{planned.get(name) or 'none'} where the dataset was planned"
            )
