"""Test examples on which teacher and shipped file differ."""

# N examples, K classes

import base64
import io
from collections.abc import Callable, Sequence

import numpy as np
import torch

from edgestill.export.tested.result import Case, Disagreement, Disagreements, Opinion
from edgestill.pipeline.data.pixels import resized
from edgestill.pipeline.data.splits import ImageSplit
from edgestill.pipeline.task import Task
from edgestill.pipeline.training.calibration import softmax

_SHOWN, _SIDE, _LETTERS = 4, 96, 300  # examples of a case, the longest side of a picture, characters of a text

Decode = Callable[[Sequence[int]], str]


def disagreements(
    teacher: np.ndarray, student: np.ndarray, test: ImageSplit, task: Task, decode: Decode | None = None
) -> Disagreements:
    """Count the disagreements by who is right, and show those of each case in which a wrong answer was most confident.

    Args:
        teacher: logits [N, K] on the split; student: likewise.
        decode: token ids to their text.
    """
    targets, answers = test.targets.numpy(), (teacher.argmax(1), student.argmax(1))
    sure = (softmax(teacher).max(1), softmax(student).max(1))
    differ, right = answers[0] != answers[1], [answer == targets for answer in answers]
    cases: dict[Case, tuple[np.ndarray, np.ndarray]] = {  # examples, and the confidence to choose by
        "teacher": (differ & right[0], sure[1]),
        "student": (differ & right[1], sure[0]),
        "neither": (differ & ~right[0] & ~right[1], np.maximum(*sure)),
    }

    def shown(index: int) -> Disagreement:
        said = [
            Opinion(answer=int(answer[index]), confidence=min(1.0, float(confidence[index])))
            for answer, confidence in zip(answers, sure, strict=True)
        ]
        seen = _seen(test, task, index, decode)
        return Disagreement(index=index, truth=int(targets[index]), teacher=said[0], student=said[1], **seen)

    return Disagreements(
        counts={case: int(found.sum()) for case, (found, _) in cases.items()},
        shown={case: tuple(map(shown, _first(found, by))) for case, (found, by) in cases.items() if found.any()},
    )


def _first(found: np.ndarray, by: np.ndarray) -> list[int]:
    """Return the places of the largest values among those found; of equal ones the earlier first."""
    places = np.flatnonzero(found)
    ordered: list[int] = places[np.argsort(-by[places], kind="stable")][:_SHOWN].tolist()
    return ordered


def _seen(test: ImageSplit, task: Task, index: int, decode: Decode | None) -> dict[str, str]:
    example = test.batch(torch.tensor([index])).inputs[0]
    shown = task.inputs.shown(example, decode)
    if shown.text:
        return {"text": shown.text[:_LETTERS] + ("…" if len(shown.text) > _LETTERS else "")}
    return {"image": png(np.array(shown.pixels, np.uint8).reshape(shown.shape))} if shown.pixels else {}


def png(planes: np.ndarray) -> str:
    """Draw pixels [C, H, W] uint8 as a small PNG, in base64: colour with three channels, else the first in grey."""
    from PIL import Image

    pixels = planes.transpose(1, 2, 0)[..., : 3 if len(planes) == 3 else 1]
    share = min(1.0, _SIDE / max(pixels.shape[:2]))
    small = resized(pixels, *(max(1, round(side * share)) for side in pixels.shape[:2]))
    file = io.BytesIO()
    Image.fromarray(small[..., 0] if small.shape[2] == 1 else small).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()
