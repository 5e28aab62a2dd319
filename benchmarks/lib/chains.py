"""A language whose truth is known: texts of a Markov chain, and models that learn them."""

# N texts, T tokens, V token ids, R rows

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from edgestill.distill.methods.language.writing import Writing, written
from edgestill.pipeline.data.sequences import batch_of_texts
from edgestill.pipeline.data.splits import Batch
from edgestill.pipeline.input_kind.lm import START
from edgestill.pipeline.networks.causal_transformer import CausalTransformer
from edgestill.pipeline.networks.network import evaluating, logits_at
from edgestill.pipeline.randomness import drawn_from
from edgestill.pipeline.task import Task

MARKS = 3  # token ids before the letters of the language


class Chain:
    """Texts START, then a letter drawn from the row of the letter before: the first one is the prompt."""

    def __init__(self, seed: int, letters: int = 8, length: int = 12) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.rows = torch.full((letters + MARKS, letters + MARKS), -torch.inf)
        self.rows[MARKS:, MARKS:] = 1.5 * torch.randn(letters, letters, generator=generator)
        self.rows[:MARKS, MARKS:] = 0.0
        labels = ("[PAD]", "<s>", "</s>", *"abcdefghijklmnopqrstuvwxyz"[:letters])
        self.task = Task(kind="lm", labels=labels, input_shape=(length,), vocab_size=len(labels))

    def log_truth(self, batch: Batch) -> Tensor:
        """Log-probabilities of what follows at each row, [R, V]: the truth itself."""
        assert batch.rows is not None
        text, place = batch.rows.unbind(1)
        last = batch.inputs[text, place]
        last = torch.where(
            last == START, torch.where(place > 0, batch.inputs[text, (place - 1).clamp_min(0)], last), last
        )
        return self.rows[last].log_softmax(1)

    def prompts(self, count: int, generator: torch.Generator) -> Tensor:
        """Draw prompts of one letter, [N, T]."""
        found = torch.zeros(count, self.task.input_shape[0], dtype=torch.int64)
        found[:, 0] = torch.randint(MARKS, len(self.task.labels), (count,), generator=generator)
        found[:, 1] = START
        return found

    def texts(self, prompts: Tensor, generator: torch.Generator) -> Tensor:
        """Draw what follows prompts, by the truth."""
        ids = prompts.clone()
        last = ids[:, 0]
        for place in range(2, ids.shape[1]):
            last = torch.multinomial(self.rows[last].softmax(1), 1, generator=generator)[:, 0]
            ids[:, place] = last
        return ids

    def network(self, seed: int, width: int) -> CausalTransformer:
        with drawn_from(seed):
            return CausalTransformer(self.task, depth=1, heads=2, head_width=width, feed_forward=2)


def taught(network: nn.Module, texts: Tensor, steps: int, seed: int) -> nn.Module:
    """Train on texts, by their letters."""
    optimizer, generator = torch.optim.Adam(network.parameters(), lr=0.005), torch.Generator().manual_seed(seed)
    for _ in range(steps):
        batch = batch_of_texts(texts[torch.randint(len(texts), (32,), generator=generator)])
        optimizer.zero_grad()
        loss = F.cross_entropy(logits_at(network, batch.inputs, batch.rows), batch.targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return network.eval()


def written_by(network: nn.Module, prompts: Tensor, draw: int) -> Tensor:
    """Have a network continue prompts at temperature 1."""
    with evaluating(network):
        return written(network, prompts, Writing(temperature=1.0, draw=draw))[:, 0]
