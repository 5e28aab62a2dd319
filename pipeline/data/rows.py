"""Pictures are decoded and resized once, by several threads, into a file of rows in the cache, kept across runs.

Pillow decodes and resizes without Python's lock, so threads use all cores; the bytes do not depend on their number.
"""

# N pictures, C channels, H W height and width

import hashlib
import json
import os
import shutil
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np

from edgestill.pipeline.cache import cache_folder
from edgestill.pipeline.data import decode
from edgestill.pipeline.data.decode import Header, UnreadableError
from edgestill.pipeline.data.stored import RowFile, StoredImages
from edgestill.pipeline.errors import DataError
from edgestill.pipeline.frozen import digest

RULE = 1  # version of the rules of decoding and of pixels: another one decodes anew
KIND = "images"  # folder of the cache
_ROWS, _DIGESTS, _FACTS = "images.rows", "images.digests", "images.json"
_AHEAD = 2  # chunks of pictures in memory for each thread
_CHUNK, _DIGEST_BYTES, _SAMPLES = 4, 16, 64
_LARGEST_OWN, _STEP, _LARGEST = 256, 32, 224  # sides in pixels

Source = Path | bytes | np.ndarray | None  # a file, its bytes, decoded uint8 [H, W, 1 or 3], or nothing
Tick = Callable[[int, int, str], None]
T = TypeVar("T")

_tick: ContextVar[Tick] = ContextVar("tick", default=lambda done, total, note: None)


@contextmanager
def showing(tick: Tick) -> Iterator[None]:
    """Show with `tick` how many pictures are decoded within."""
    token = _tick.set(tick)
    try:
        yield
    finally:
        _tick.reset(token)


class Fit(NamedTuple):
    """Shape that pictures are fitted to; None is found by looking at all of them."""

    size: tuple[int, int] | None  # height and width
    channels: int | None
    resize: str


class Pictures(NamedTuple):
    """Pictures to decode, in order."""

    names: Sequence[str]  # for people
    sources: Callable[[], Iterable[Source]]  # read one by one, perhaps twice
    content: str  # digest of all that determines the sources


class Rows(NamedTuple):
    """Decoded pictures."""

    images: StoredImages  # of the readable ones
    kept: np.ndarray  # [number of images] int64, place of each among the pictures
    unreadable: dict[int, str]  # place -> reason
    notes: tuple[str, ...]  # sentences about shapes found by looking
    folder: Path


def rows_of(pictures: Pictures, fit: Fit, threads: int | None = None, folder: Path | None = None) -> Rows:
    """Return the pictures as rows; decode them unless the cache has them.

    Args:
        threads: that decode; None: as many as this process has cores.
        folder: that the rows' folder is made in; None: the cache's.

    Raises:
        DataError: none is readable, or the disk has no room.
    """
    key = digest("rows", RULE, list(fit), pictures.content)[:32]
    place = (folder or cache_folder() / KIND) / key
    found = read_rows(place)
    if found is not None:
        return found
    with decode.quiet(), ThreadPoolExecutor(threads or _cores()) as pool:
        chosen, notes = _looked_at(pictures, fit, pool)
        _write(place, pictures, chosen, notes, pool)
    found = read_rows(place)
    if found is None:
        raise DataError(f"{place}, of the cache of decoded images, cannot be read back; is its disk sound?")
    return found


def read_rows(folder: Path) -> Rows | None:
    """Read a folder of rows; None where there is none, or a damaged one."""
    try:
        facts = json.loads((folder / _FACTS).read_text(encoding="utf-8"))
        raw = (folder / _DIGESTS).read_bytes()
        if hashlib.sha256(raw).hexdigest() != facts["digests"]:
            return None
        digests = np.frombuffer(raw, np.uint8).reshape(-1, _DIGEST_BYTES)
        images = StoredImages([RowFile(folder / _ROWS, digests)], facts["shape"])
        unreadable = {int(place): str(reason) for place, reason in facts["unreadable"]}
    except (OSError, ValueError, KeyError, TypeError, DataError):
        return None
    sample = np.unique(np.linspace(0, len(images) - 1, _SAMPLES).astype(np.int64))
    rows = images[sample].permute(0, 2, 3, 1).numpy()
    if any(picture_digest(row) != digests[at].tobytes() for row, at in zip(rows, sample, strict=True)):
        return None
    kept = np.setdiff1d(np.arange(facts["count"]), list(unreadable))
    return Rows(images, kept, unreadable, tuple(facts["notes"]), folder)


def files_content(root: Path, paths: Sequence[Path], names: Sequence[str]) -> str:
    """Digest of what tells that files are the same as before: folder, names, sizes and times of change."""
    return digest(str(root.resolve()), [(name, *_stamp(path)) for path, name in zip(paths, names, strict=True)])


def _stamp(path: Path) -> tuple[int, int]:
    try:
        status = path.stat()
    except OSError:
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _looked_at(pictures: Pictures, fit: Fit, pool: ThreadPoolExecutor) -> tuple[Fit, list[str]]:
    """Find the size and the channels that are not given, by the pictures' headers."""
    if fit.size is not None and fit.channels is not None:
        return fit, []
    headers = [h for h in _mapped(_header, pictures, pool, "looked at") if isinstance(h, Header)]
    if not headers:
        return fit._replace(size=fit.size or (1, 1), channels=fit.channels or 1), []  # all will be unreadable
    notes, (size, channels) = [], (fit.size, fit.channels)
    if size is None:
        size, note = _size_for(headers)
        notes += [note] if note else []
    if channels is None:
        grey = sum(header.is_grey for header in headers)
        channels = 1 if grey == len(headers) else 3
        if 0 < grey < len(headers):
            notes.append(f"{grey:,} of {len(headers):,} pictures are grey, the others coloured; all are taken as RGB")
    return fit._replace(size=size, channels=channels), notes


def _size_for(headers: Sequence[Header]) -> tuple[tuple[int, int], str]:
    sizes = {(header.height, header.width) for header in headers}
    (height, width), *others = sizes
    if not others and max(height, width) <= _LARGEST_OWN:
        return (height, width), ""
    middle = statistics.median(min(header.height, header.width) for header in headers)
    side = min(max(round(middle / _STEP), 1) * _STEP, _LARGEST)
    found = f"{len(sizes):,} sizes" if others else f"{width} x {height} pixels"
    return (side, side), f"the pictures have {found}; they are resized to {side} x {side} (data.size sets another)"


def _write(place: Path, pictures: Pictures, fit: Fit, notes: Sequence[str], pool: ThreadPoolExecutor) -> None:
    assert fit.size is not None
    assert fit.channels is not None
    height, width, channels = *fit.size, fit.channels
    size = height * width * channels
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        _require_room(place.parent, len(pictures.names) * (size + _DIGEST_BYTES))
        with tempfile.TemporaryDirectory(prefix=f".{place.name}-", dir=place.parent) as made:
            folder, digests, unreadable = Path(made), hashlib.sha256(), list[tuple[int, str]]()
            with (folder / _ROWS).open("wb") as rows, (folder / _DIGESTS).open("wb") as told:
                fitted = _mapped(lambda source: _fitted(source, fit), pictures, pool, "pictures decoded")
                for at, found in enumerate(fitted):
                    if isinstance(found, str):
                        unreadable.append((at, found))
                        continue
                    rows.write(found[0])
                    told.write(found[1])
                    digests.update(found[1])
                for file in (rows, told):
                    file.flush()
                    os.fsync(file.fileno())
            facts = {
                "rule": RULE, "shape": [channels, height, width], "count": len(pictures.names),
                "unreadable": unreadable, "digests": digests.hexdigest(), "notes": list(notes),
            }  # fmt: skip
            if len(unreadable) == len(pictures.names):
                raise DataError(*_all_unreadable(pictures, unreadable))
            (folder / _FACTS).write_text(json.dumps(facts), encoding="utf-8")
            if read_rows(place) is None:
                shutil.rmtree(place, ignore_errors=True)  # damaged
            with suppress(OSError):  # another process was faster
                folder.rename(place)
                folder.mkdir()  # for the end of the context to remove
    except OSError as error:
        raise DataError(
            f"decoded images cannot be written to {place.parent} ({error.strerror or error}); EDGESTILL_CACHE names "
            "another folder for them"
        ) from None


def _all_unreadable(pictures: Pictures, unreadable: Sequence[tuple[int, str]]) -> list[str]:
    few = [f"{pictures.names[at]}: {reason}" for at, reason in unreadable[:5]]
    return [f"none of {len(pictures.names):,} pictures can be read", *few]


def _require_room(folder: Path, size: int) -> None:
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"the decoded images take {size / 1e9:,.1f} GB, and {folder} has {free / 1e9:,.1f} GB free; a smaller "
            "data.size takes less, `edgestill cache clear` makes room, EDGESTILL_CACHE names another folder"
        )


def _mapped(work: Callable[[Source], T], pictures: Pictures, pool: ThreadPoolExecutor, note: str) -> Iterator[T]:
    """Yield the work's result for each source, in order, with a few chunks of them in memory."""
    waiting: deque[Future[list[T]]] = deque()
    done, total, tick, last = 0, len(pictures.names), _tick.get(), time.monotonic()

    def finished() -> Iterator[T]:
        nonlocal done, last
        found = waiting.popleft().result()
        done += len(found)
        if time.monotonic() - last > 0.2 or done == total:
            last = time.monotonic()
            tick(done, total, note)
        yield from found

    chunk: list[Source] = []
    for source in pictures.sources():
        chunk.append(source)
        if len(chunk) == _CHUNK:
            waiting.append(pool.submit(lambda part: [work(each) for each in part], chunk))
            chunk = []
            if len(waiting) > _AHEAD * _cores():
                yield from finished()
    waiting.append(pool.submit(lambda part: [work(each) for each in part], chunk))
    while waiting:
        yield from finished()


def _header(source: Source) -> Header | str:
    try:
        if isinstance(source, np.ndarray):
            return Header(source.shape[0], source.shape[1], source.shape[2] == 1)
        return decode.header_of(source if isinstance(source, Path) else _bytes_of(source))
    except UnreadableError as error:
        return str(error)


def _fitted(source: Source, fit: Fit) -> tuple[bytes, bytes] | str:
    """Return a picture's row [C, H, W] and its digest; for an unreadable one the reason."""
    assert fit.size is not None
    assert fit.channels is not None
    try:
        pixels = source if isinstance(source, np.ndarray) else decode.decode(_bytes_of(source))
    except (UnreadableError, MemoryError) as error:
        return str(error) or type(error).__name__
    found = decode.fitted_fast(pixels, fit.channels, *fit.size, fit.resize)
    return found.transpose(2, 0, 1).tobytes(), picture_digest(found)


def _bytes_of(source: Path | bytes | None) -> bytes:
    if source is None:
        raise UnreadableError("nothing is there")
    return source if isinstance(source, bytes) else decode.read_picture(source)


def picture_digest(pixels: np.ndarray) -> bytes:
    """Digest of a fitted picture [H, W, C] and its shape."""
    found = hashlib.blake2b(f"{pixels.shape}".encode(), digest_size=_DIGEST_BYTES)
    found.update(np.ascontiguousarray(pixels).data)
    return found.digest()


def _cores() -> int:
    affinity: Callable[[int], set[int]] | None = getattr(os, "sched_getaffinity", None)
    return len(affinity(0)) if affinity else os.cpu_count() or 1
