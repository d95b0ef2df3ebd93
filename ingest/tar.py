"""A tar of images in the WebDataset layout, as img2dataset writes it, read front to back."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import ClassVar, Literal

from ingest.errors import RejectReason, SourceError
from ingest.formats import IMAGE_SUFFIXES, has_image_suffix
from ingest.item import DEFAULT_MAX_BYTES, printable
from ingest.metadata import Metadata
from ingest.record import ImageRecord, Reject
from ingest.sidecar import MAX_SIDECAR_BYTES, SIDECAR_SUFFIXES, parse_sidecar
from ingest.storage import FileState, Location, file_name, is_remote, shown
from ingest.tar_members import Member, TarEndedError, members_of

__all__ = ["TarSource", "is_tar_name"]

_TAR_NAME = re.compile(r"(?P<stem>.+?)\.(tar|tar\.gz|tgz)", re.IGNORECASE)

_MAX_IMAGES_HELD = 16


def is_tar_name(name: str) -> bool:
    """Whether a file of that name is read as a tar."""
    return _TAR_NAME.fullmatch(name) is not None


class TarSource:
    """One tar, of this machine or of a store; nothing in it is ever extracted to disk.

    Neighbouring members whose path is the same up to the first dot of the file name are one sample:
    ``000000012.jpg``, ``000000012.json`` and ``000000012.txt``. A key is ``<tar stem>/<sample>``,
    and ``<tar stem>/<sample>.<ending>`` for each image of a sample with several. Hidden files are
    passed over.

    Args:
        state: of a tar in a store, where it was listed: the store is then not asked once more.

    Attributes:
        name: for people.
        kind: always ``tar``.
        max_bytes: larger images are rejected without being read into memory.
    """

    kind: ClassVar[Literal["tar"]] = "tar"

    def __init__(
        self,
        path: Location,
        max_bytes: int = DEFAULT_MAX_BYTES,
        state: FileState | None = None,
    ) -> None:
        self.path = path
        self.name = printable(shown(path))
        self.max_bytes = max_bytes
        self._state = state

    @property
    def stem(self) -> str:
        """The file's name without ``.tar``, the first part of all its keys."""
        match = _TAR_NAME.fullmatch(file_name(self.path))
        return printable(match["stem"] if match else self.path.stem)

    @property
    def signature(self) -> str:
        """Changes whenever the file does: name, size and modification time (or ETag).

        Raises:
            SourceError: when the file is not there.
            StorageError: its store refuses, or cannot be reached.
        """
        name = printable(file_name(self.path))
        if is_remote(self.path):
            from ingest.stored import state_of

            state = self._state or state_of(self.path)
            if state is None:
                raise SourceError(f"no such file or folder: {self.name}")
            return f"{name}:{state.signature}"
        try:
            found = self.path.stat()
        except OSError as exc:
            raise SourceError(f"cannot read {self.name}: {exc.strerror}") from exc
        return f"{name}:{found.st_size:x}.{found.st_mtime_ns:x}"

    def records(self) -> Iterator[ImageRecord | Reject]:
        """The images in the order of the tar, streamed, sample by sample.

        Raises:
            SourceError: when the file is not a tar, holds no image, or ends too early or is
                damaged on the way; then after all images before that point.
            StorageError: its store refuses, or cannot be reached; the tar may well be whole.
        """
        count = 0
        ended: TarEndedError | None = None
        samples = self._samples()
        while True:
            try:
                entries = next(samples, None)
            except TarEndedError as exc:
                ended = exc
                break
            except OSError as exc:
                raise SourceError(f"cannot read {self.name}: {exc.strerror or exc}") from exc
            if entries is None:
                break
            count += len(entries)
            yield from entries
        if ended is not None and str(ended) == "is not a tar file":
            raise SourceError(f"{self.name} is not a tar file") from ended
        if ended is not None:
            raise SourceError(f"{self.name} {ended} after {count} images") from ended
        if not count:
            looked_for = ", ".join(sorted(IMAGE_SUFFIXES))
            raise SourceError(f"no images in {self.name} (looked for {looked_for})")

    def _samples(self) -> Iterator[list[ImageRecord | Reject]]:
        sample: _Sample | None = None
        try:
            for member in members_of(self.path, self._is_wanted):
                split = _split(member.name)
                if split is None:
                    continue
                key, ending = split
                if sample is not None and sample.key != key:
                    yield sample.finish()
                    sample = None
                sample = sample or _Sample(self, key)
                if has_image_suffix(f"_.{ending}"):
                    if len(sample.images) == _MAX_IMAGES_HELD:
                        # Not one sample but any number of images with one beginning.
                        yield sample.finish(goes_on=True)
                    sample.images.append((ending, member))
                elif member.data is not None:
                    sample.add_sidecar(ending, member.data)
        except TarEndedError:
            if sample is not None:
                yield sample.finish()
            raise
        if sample is not None:
            yield sample.finish()

    def _is_wanted(self, name: str, size: int) -> bool:
        split = _split(name)
        if split is None:
            return False
        if has_image_suffix(f"_.{split[1]}"):
            return size <= self.max_bytes
        return _sidecar_suffix(split[1]) is not None and size <= MAX_SIDECAR_BYTES


class _Sample:
    """The members of one sample read so far."""

    def __init__(self, source: TarSource, key: str) -> None:
        self.key = key
        self.images: list[tuple[str, Member]] = []
        self._source = source
        self._sidecars: dict[tuple[str, str], Metadata] = {}
        self._has_several = False

    def add_sidecar(self, ending: str, data: bytes) -> None:
        suffix = _sidecar_suffix(ending)
        if suffix is not None:
            self._sidecars[_stem(ending), suffix] = parse_sidecar(suffix, data)

    def finish(self, goes_on: bool = False) -> list[ImageRecord | Reject]:
        """The images so far, which are then forgotten."""
        self._has_several = self._has_several or goes_on or len(self.images) > 1
        entries = [self._entry(ending, member) for ending, member in self.images]
        self.images.clear()
        self._sidecars = {at: known for at, known in self._sidecars.items() if at[0] == ""}
        return entries

    def _entry(self, ending: str, member: Member) -> ImageRecord | Reject:
        key = f"{self._source.stem}/{printable(self.key)}"
        if self._has_several:
            key += f".{printable(ending)}"
        path = f"{self._source.name}#{printable(member.name)}"
        if member.data is None:
            detail = f"{member.size} bytes, the limit is {self._source.max_bytes}"
            return Reject(key, path, RejectReason.TOO_MANY_BYTES, detail)
        if not member.data:
            return Reject(key, path, RejectReason.EMPTY)
        known = Metadata()
        # An image's own sidecar (``a.left.txt`` for ``a.left.jpg``) before the sample's.
        for stem in dict.fromkeys((_stem(ending), "")):
            for suffix in SIDECAR_SUFFIXES:
                known = known.over(self._sidecars.get((stem, suffix), Metadata()))
        return ImageRecord(
            key=key,
            data=member.data,
            path=path,
            url=known.url,
            caption=known.caption,
            creator=known.creator,
            licence=known.licence,
            extra=known.extra,
        )


def _split(name: str) -> tuple[str, str] | None:
    """(sample key, ending) of a member's name: its path before and behind the first dot of the
    file name. None for hidden files and those without an ending.

    ``.`` and ``..`` in the path mean nothing here, as nothing is extracted, and are left out.
    """
    *folders, file = [part for part in name.split("/") if part not in ("", ".", "..")] or [""]
    stem, dot, ending = file.partition(".")
    if not stem or not ending or not dot:
        return None
    return "/".join([*folders, stem]), ending


def _stem(ending: str) -> str:
    return ending.rpartition(".")[0]


def _sidecar_suffix(ending: str) -> str | None:
    suffix = "." + ending.rpartition(".")[2].lower()
    return suffix if suffix in SIDECAR_SUFFIXES else None
