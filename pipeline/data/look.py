"""A look at a data set before anything is paid for: counts by class, and findings that make figures wrong.

Every image is read once, a few at a time; texts are in memory anyway. Nothing is chosen by what is found.
"""

# N examples of a part, C channels, H W height and width

import base64
import hashlib
import io
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import torch

from edgestill.pipeline.data.datasets.base import Examples, LabelledImages, LabelledTexts
from edgestill.pipeline.data.pixels import resized
from edgestill.pipeline.data.stored import StoredImages
from edgestill.pipeline.data.tokens import Coder
from edgestill.pipeline.figures import listing
from edgestill.pipeline.frozen import Frozen
from edgestill.pipeline.input_kind.base import PADDING

_FLAT = 2.0  # standard deviation of an image's bytes below which there is nothing to see
_NAMED, _AT_ONCE = 5, 64
_STRIPS, _IN_STRIP, _SIDE = 12, 8, 48  # classes shown, pictures of each, and the longest side of one in pixels
_ENCODED = 2000  # texts, to count those that are cut


class Finding(Frozen):
    """Something found in the data, in a sentence."""

    name: str
    count: int
    sentence: str
    is_caution: bool = True  # it makes figures wrong, or needs a setting


class DataLook(Frozen):
    """Findings of a look at the data."""

    counts: dict[str, tuple[int, ...]]  # examples of each class, by split
    findings: tuple[Finding, ...] = ()
    strips: dict[str, str] = {}  # some pictures of a class side by side, PNG as base64, by label
    texts: dict[str, tuple[str, ...]] = {}  # some texts, by label


class Part(NamedTuple):
    """One split of the data: some examples of a source."""

    role: str
    examples: Examples
    places: np.ndarray  # [N] positions in the source

    @property
    def targets(self) -> np.ndarray:
        found: np.ndarray = self.examples.targets[self.places]
        return found

    def name_of(self, place: int) -> str:
        """Name an example for a person."""
        number = int(self.places[place])
        return self.examples.names[number] if self.examples.names else f"{self.role} {number}"


class _Seen(NamedTuple):
    """Facts of each example of a part, [N]."""

    digests: list[bytes]
    flat: np.ndarray  # bool, nearly one colour
    grey: np.ndarray  # bool, equal channels


def look_at(
    parts: Sequence[Part],
    labels: Sequence[str],
    coder: Coder | None = None,
    pool: np.ndarray | StoredImages | None = None,
) -> DataLook:
    """Look at all splits: `train` first, and those carved from it before those of their own files.

    Args:
        pool: [N, C, H, W] images without labels, which the student learns too.
    """
    seen = {part.role: _seen(part) for part in parts}
    findings = [
        *_shared(parts, seen),
        *(_in_pool(parts, seen, pool) if pool is not None else ()),
        *_contradictions(parts, seen, labels),
        *_lacking(parts, labels),
        *_by_image(parts, seen),
        *(_cut(parts[0], coder) if coder is not None else ()),
    ]
    counts = {p.role: tuple(np.bincount(p.targets, minlength=len(labels)).tolist()) for p in parts}
    return DataLook(counts=counts, findings=tuple(findings), **_samples(parts[0], labels))


def _seen(part: Part) -> _Seen:
    if isinstance(part.examples, LabelledTexts):
        texts = part.examples.texts
        digests = [_digest(texts[n].encode("utf-8", "surrogatepass")) for n in part.places]
        nothing = np.zeros(len(part.places), bool)
        return _Seen(digests, nothing, nothing)
    digests, flat, grey = [], [], []
    for pixels in _chunks(part):
        digests += [_digest(np.ascontiguousarray(image).tobytes()) for image in pixels]
        scaled = pixels.reshape(len(pixels), -1).astype(np.float32) * (1 if pixels.dtype == np.uint8 else 255)
        flat.append(scaled.std(1) < _FLAT)
        grey.append((pixels == pixels[:, :1]).all((1, 2, 3)))
    return _Seen(digests, np.concatenate(flat), np.concatenate(grey))


def _chunks(part: Part) -> Iterator[np.ndarray]:
    assert isinstance(part.examples, LabelledImages)
    images = part.examples.images
    for start in range(0, len(part.places), _AT_ONCE):
        index = part.places[start : start + _AT_ONCE]
        yield images[torch.from_numpy(index)].numpy() if isinstance(images, StoredImages) else images[index]


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _shared(parts: Sequence[Part], seen: Mapping[str, _Seen]) -> Iterator[Finding]:
    """Find examples of validation and test that an earlier split has too."""
    known: dict[bytes, tuple[str, str]] = {}
    for part in parts:
        places = [n for n, d in enumerate(seen[part.role].digests) if d in known and known[d][0] != part.role]
        if places and part.role in ("validation", "test"):
            first = places[0]
            role, name = known[seen[part.role].digests[first]]
            yield Finding(
                name="shared",
                count=len(places),
                sentence=f"{_share(len(places), part)} {part.role} examples are in an earlier split too, such as "
                f"{part.name_of(first)}, which is {name} in {role}: accuracy there is too high; remove the copies",
            )
        for n, digest in enumerate(seen[part.role].digests):
            known.setdefault(digest, (part.role, part.name_of(n)))


def _in_pool(parts: Sequence[Part], seen: Mapping[str, _Seen], pool: np.ndarray | StoredImages) -> Iterator[Finding]:
    """Find examples of validation and test among the images without labels."""
    whole = Part("unlabelled", LabelledImages(pool, np.zeros(len(pool), np.int64)), np.arange(len(pool)))
    learnt = set(_seen(whole).digests)
    for part in parts:
        places = [n for n, digest in enumerate(seen[part.role].digests) if digest in learnt]
        if places and part.role in ("validation", "test"):
            yield Finding(
                name="shared with unlabelled",
                count=len(places),
                sentence=f"{_share(len(places), part)} {part.role} examples are among those without labels too, such "
                f"as {part.name_of(places[0])}: accuracy there is too high; remove the copies",
            )


def _contradictions(parts: Sequence[Part], seen: Mapping[str, _Seen], labels: Sequence[str]) -> Iterator[Finding]:
    first: dict[bytes, tuple[int, str]] = {}
    found = []
    for part in parts:
        for n, (digest, target) in enumerate(zip(seen[part.role].digests, part.targets.tolist(), strict=True)):
            other, name = first.setdefault(digest, (target, part.name_of(n)))
            if other != target:
                found.append(f"{name} is {labels[other]!r} and {part.name_of(n)} {labels[target]!r}")
    if found:
        yield Finding(
            name="contradictions",
            count=len(found),
            sentence=f"{len(found):,} examples have the content of another and a different label, such as {found[0]}; "
            "mend one of the labels",
        )


def _lacking(parts: Sequence[Part], labels: Sequence[str]) -> Iterator[Finding]:
    """Find classes that are learnt, and of which a later split has no example."""
    learnt = np.bincount(parts[0].targets, minlength=len(labels)) > 0
    for part in parts:
        absent = np.flatnonzero(learnt & (np.bincount(part.targets, minlength=len(labels)) == 0)).tolist()
        if absent:
            yield Finding(
                name="lacking",
                count=len(absent),
                sentence=f"{part.role} has no example of {_few([repr(labels[k]) for k in absent])}: its figures say "
                "nothing of them; add some",
            )


def _by_image(parts: Sequence[Part], seen: Mapping[str, _Seen]) -> Iterator[Finding]:
    if not isinstance(parts[0].examples, LabelledImages):
        return
    total = sum(len(part.places) for part in parts)
    flat = [part.name_of(n) for part in parts for n in np.flatnonzero(seen[part.role].flat).tolist()]
    if flat:
        yield Finding(
            name="flat",
            count=len(flat),
            sentence=f"{len(flat):,} of {total:,} images are of nearly one colour, such as {_few(flat)}; look at them",
        )
    grey = sum(int(seen[part.role].grey.sum()) for part in parts)
    if parts[0].examples.images.shape[1] == 3 and 0 < grey < total:
        yield Finding(
            name="grey",
            count=grey,
            sentence=f"{grey:,} of {total:,} images are grey among coloured ones",
            is_caution=False,
        )


def _cut(train: Part, coder: Coder) -> Iterator[Finding]:
    """Count training texts of more tokens than the student reads."""
    assert isinstance(train.examples, LabelledTexts)
    texts = [train.examples.texts[n] for n in train.places[:_ENCODED]]
    longer = json.loads(coder.json)
    longer["truncation"]["max_length"] = 2 * coder.length
    ids = Coder(json.dumps(longer, ensure_ascii=False)).encode(texts)
    count = int((ids[:, coder.length] != PADDING).sum())
    if count:
        yield Finding(
            name="cut",
            count=count,
            sentence=f"{count / len(texts):.1%} of {len(texts):,} training texts are longer than "
            f"{coder.length} tokens and cut there; raise data.max_length if their ends matter",
            is_caution=count > 0.05 * len(texts),
        )


def _samples(train: Part, labels: Sequence[str]) -> dict[str, dict[str, object]]:
    targets, chosen = train.targets, {}
    for k in np.argsort(-np.bincount(targets, minlength=len(labels)), kind="stable")[:_STRIPS].tolist():
        chosen[k] = np.flatnonzero(targets == k)[:_IN_STRIP]
    by_class = {labels[k]: train.places[chosen[k]] for k in sorted(chosen)}
    if isinstance(train.examples, LabelledTexts):
        texts = train.examples.texts
        return {"texts": {label: tuple(texts[n][:200] for n in index[:3]) for label, index in by_class.items()}}
    return {"strips": {label: _strip(train._replace(places=index)) for label, index in by_class.items()}}


def _strip(part: Part) -> str:
    """Draw the images of a part side by side; return PNG as base64."""
    from PIL import Image

    pixels = next(_chunks(part))
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255).round().astype(np.uint8)
    shown = pixels.transpose(0, 2, 3, 1)[..., : 3 if pixels.shape[1] >= 3 else 1]
    share = min(1.0, _SIDE / max(shown.shape[1:3]))
    sides = [max(1, round(side * share)) for side in shown.shape[1:3]]
    row = np.concatenate([np.pad(resized(image, *sides), ((0, 0), (0, 1), (0, 0))) for image in shown], axis=1)
    file = io.BytesIO()
    Image.fromarray(row[..., 0] if row.shape[2] == 1 else row).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def _share(count: int, part: Part) -> str:
    return f"{count:,} of {len(part.places):,}"


def _few(names: Sequence[str]) -> str:
    more = [f"{len(names) - _NAMED:,} more"] if len(names) > _NAMED else []
    return listing([*names[:_NAMED], *more])
