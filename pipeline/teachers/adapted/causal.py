"""A causal language model of the library transformers as a teacher of a language task.

The data's token ids are the marks of texts (padding, START, END), then the model's own ids in order; a tokenizer that
begins with the marks itself is taken as it is. A text is a prompt, START, an answer and END. Language models are
trained on texts that begin with their mark of a beginning, so START is moved to the front before the model reads: every
later token keeps its place, and so does the answer to it.
"""

# B texts, T tokens, R rows, D width, V the data's token ids, M the model's

from typing import Any, Literal, cast

import torch
from torch import Tensor, nn

from edgestill.pipeline.errors import CheckpointError
from edgestill.pipeline.input_kind.base import PADDING
from edgestill.pipeline.input_kind.lm import END, MARKS, START
from edgestill.pipeline.networks.causal_transformer import last_token
from edgestill.pipeline.networks.network import evaluating

StartAt = Literal["front", "between"]
NEVER = -1e4  # logit of an id that the model cannot answer with
_CLOSE = 1e-3  # of the largest logit, between the model's answer and its last layer's


class CausalAdapted(nn.Module):
    """Token ids [B, T] of the data to logits of the token that follows, as `Classifier`.

    Args:
        model: with an input of ids and a last Linear of its own vocabulary.
        vocabulary: number of the data's token ids.
        begin, end: the model's ids of a beginning and an end; a model without the first begins with the second.
        has_marks: True if the model's own ids begin with the marks.
        start: place of START as the model reads it, before the text or before its answer.

    Raises:
        CheckpointError: the model answers with other ids than the data's, or by more than its last layer.
    """

    def __init__(
        self, model: nn.Module, vocabulary: int, begin: int, end: int, *, has_marks: bool, start: StartAt, who: str
    ) -> None:
        super().__init__()
        self.model, self._start = model, start
        head = _part(model, "get_output_embeddings", who)
        own = head.weight.shape[0]
        shift = 0 if has_marks else len(MARKS)
        if vocabulary > own + shift or max(begin, end) >= own:
            raise CheckpointError(
                f"{who} knows {own:,} token ids, and the data's tokenizer gives {vocabulary - shift:,} beside "
                f"{shift} marks; give the data the tokenizer.json that the model was trained with"
            )
        ids = (torch.arange(vocabulary) - shift).clamp_min(0)
        if not has_marks:
            ids[START], ids[END] = begin, end
        never = torch.zeros(vocabulary, dtype=torch.bool)
        never[[PADDING, START]] = True
        if not has_marks and end + shift < vocabulary:
            never[end + shift] = True  # an end is END
        self.register_buffer("ids", ids)
        self.num_classes, self.embedding_dim = vocabulary, head.weight.shape[1]
        self.linear = _Vocabulary(head, ids, never)
        self.gives = frozenset({"logits", "embedding", "features", "gradients", "inputs"})
        self.cautions: tuple[str, ...] = ()
        self.order: tuple[int, ...] | None = None
        self._require_plain_answers(who)

    def forward_features(self, inputs: Tensor) -> Tensor:
        """Return the last states [B, T, D]; 0 where the token is padding."""
        is_token = inputs != PADDING
        ids = self.get_buffer("ids")[self._begun(inputs)]
        states = _body(self.model)(input_ids=ids, attention_mask=is_token.long(), use_cache=False).last_hidden_state
        found: Tensor = states * is_token.unsqueeze(2)
        return found

    def forward_head(self, features: Tensor, pre_logits: bool = False) -> Tensor:
        embedding = last_token(features)
        return embedding if pre_logits else self.linear(embedding)

    def get_classifier(self) -> nn.Module:
        return self.linear

    def forward(self, inputs: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(inputs))

    def _begun(self, inputs: Tensor) -> Tensor:
        """Move START to the front, and the prompt a place behind."""
        if self._start == "between":
            return inputs
        is_start = (inputs == START).long()
        before = is_start.cumsum(1) - is_start == 0  # up to START
        has_start = is_start.any(1, keepdim=True)
        moved = torch.cat([torch.full_like(inputs[:, :1], START), inputs[:, :-1]], 1)
        return torch.where(before & has_start, moved, inputs)

    def _require_plain_answers(self, who: str) -> None:
        model, head = self.model, cast(nn.Linear, self.linear.head)
        ids = torch.randint(0, head.out_features, (1, 4), generator=torch.Generator().manual_seed(0))
        with torch.no_grad(), evaluating(model):
            whole, shorter = (model(input_ids=part).logits for part in (ids, ids[:, :3]))
            found = head(_body(model)(input_ids=ids, use_cache=False).last_hidden_state)
        near = _CLOSE * float(whole.abs().max())
        if not torch.allclose(whole, found, rtol=0, atol=near):
            raise CheckpointError(
                f"{who} does more to its answers than its last layer, which is not supported; take another model"
            )
        if not torch.allclose(whole[:, :3], shorter, rtol=0, atol=near):
            raise CheckpointError(f"{who} sees the tokens that it is asked for; take a causal language model")


class _Vocabulary(nn.Module):
    """The model's last layer, its answers in the order of the data's token ids."""

    def __init__(self, head: nn.Module, ids: Tensor, never: Tensor) -> None:
        super().__init__()
        self.head = head
        self.register_buffer("ids", ids)
        self.register_buffer("never", never)

    def forward(self, embedding: Tensor) -> Tensor:
        logits: Tensor = self.head(embedding)
        return logits[..., self.get_buffer("ids")].masked_fill(self.get_buffer("never"), NEVER)


def _body(model: Any) -> nn.Module:
    """The model without its last layer."""
    body: nn.Module = model.base_model
    return body


def _part(model: Any, name: str, who: str) -> Any:
    found = getattr(model, name)()
    if not isinstance(found, nn.Linear):
        raise CheckpointError(
            f"{who} has no last Linear over its vocabulary, which is not supported; take another model"
        )
    return found


def mark_ids(described: dict[str, Any], who: str) -> tuple[int, int]:
    """Return the model's ids of a beginning and an end, from its config.json.

    Raises:
        CheckpointError: it names no end.
    """
    end, begin = (_first(described.get(key)) for key in ("eos_token_id", "bos_token_id"))
    if end is None:
        raise CheckpointError(f"{who} names no eos_token_id in its config.json, by which an answer ends; add it there")
    return end if begin is None else begin, end


def _first(value: Any) -> int | None:
    one = value[0] if isinstance(value, list) and value else value
    return one if type(one) is int and one >= 0 else None
