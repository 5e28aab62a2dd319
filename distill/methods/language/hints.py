"""Prompts with the right answer shown behind them."""

# B texts, T tokens, A tokens of the longest answer, R rows of logits

import torch
from torch import Tensor

from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import END, prompt_ends


def hinted(inputs: Tensor, rows: Tensor, given: Tensor) -> tuple[Tensor, Tensor]:
    """Put the answer of each given text, without END, before START of each text, and move the rows along.

    Args:
        inputs: [B, T] prompts with the answers that they have.
        rows: [R, 2] text and place.
        given: [B, T] prompts with the answers to show.

    Returns:
        [B, T + A] token ids, padded behind, and [R, 2].
    """
    starts = prompt_ends(inputs) - 1  # place of START
    answers, sizes = _answers(given)
    width = inputs.shape[1]
    places = torch.arange(width + answers.shape[1], device=inputs.device)[None]
    shown = places - starts[:, None]
    size = sizes[:, None]
    own = torch.where(shown < size, places, places - size)
    texts = inputs.gather(1, own.clamp_max(width - 1))
    texts = torch.where(own < width, texts, PADDING)
    is_shown = (shown >= 0) & (shown < size)
    if answers.shape[1]:
        texts = torch.where(is_shown, answers.gather(1, shown.clamp(0, answers.shape[1] - 1)), texts)
    text, place = rows.unbind(1)
    return texts, torch.stack([text, place + sizes[text]], 1)


def _answers(given: Tensor) -> tuple[Tensor, Tensor]:
    """Return each text's answer without END, [B, A], padded behind, and its size [B]."""
    ends, width = prompt_ends(given), given.shape[1]
    is_answer = (torch.arange(width, device=given.device) >= ends[:, None]) & (given != PADDING) & (given != END)
    sizes = is_answer.sum(1)
    at = ends[:, None] + torch.arange(int(sizes.max()), device=given.device)
    return given.gather(1, at.clamp_max(width - 1)), sizes
