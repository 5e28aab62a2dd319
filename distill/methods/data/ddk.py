"""DDK: more examples of the domains where the student is furthest behind the teacher.

Liu et al., "DDK: Distilling Domain Knowledge for Efficient Large Language Models", 2024, arXiv:2407.16154. The paper's
domains are those of a language model's corpus, here the sources of its texts (`data.domain_key`). A classifier's are
its classes, or the sources of its examples. With the perplexities l = exp(CE) of student and teacher on each of the N
domains of the reference split,

    r_0[i] ~ exp(l_S[i] / l_T[i])
    psi[i] = r_t[i] exp(l_S[i] / l_T[i])        r_(t+1)[i] = a psi[i] / sum psi + (1 - a) / N

The paper's loss is `[ddk, {name: kd, temperature: 1}, {name: fixed_weights, label_weight: 1, distill_weight: 0.2}]`.

Trap: psi multiplies what was before, so that one domain can come to dominate. None falls below (1 - a) / N; the
paper's a is 0.5, and without the floor it measures less.
"""

# N examples, M domains

from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.methods.base import Context, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.sequences import Sequences
from edgestill.pipeline.data.splits import UNLABELLED, Batch, ImageSplit
from edgestill.pipeline.errors import ConfigError
from edgestill.pipeline.networks.network import evaluating, logits_at
from edgestill.pipeline.task import Task


class DDKConfig(MethodConfig):
    """Sampling of the training examples by domain."""

    name: Literal["ddk"] = "ddk"
    domains: Literal["classes", "sources"] = Field(
        "classes", description="domains of the examples; sources: the first folder of their names in the data set"
    )
    smoothing: float = tunable(
        0.5, ge=0, le=1, tune=(0.1, 0.9), description="share (a) of the gaps in the sampling; the rest is even; 0: even"
    )
    every_epochs: int = Field(1, ge=1, le=10_000, description="epochs between two updates of the sampling")


class DDK(Method):
    """Sampling of each epoch's examples by r[i], updated by both networks' perplexities on the reference split.

    An epoch draws as many examples as there are, with replacement. A domain without labelled reference examples has the
    mean gap of the others.
    """

    name: ClassVar[str] = "ddk"
    paper: ClassVar[str] = "Liu et al. 2024, arXiv:2407.16154"
    fills: ClassVar[frozenset[Slot]] = frozenset({"data"})
    takes_rows: ClassVar[bool] = True
    facts: ClassVar[Facts | None] = Facts(
        evidence="paper", elicitation=("curation",), zero_at_teacher=True, invariant_to=frozenset({"shift"})
    )
    Config: ClassVar[type[MethodConfig]] = DDKConfig
    config: DDKConfig

    def check(self, task: Task, train: ImageSplit) -> None:
        if self.config.domains == "classes" and isinstance(train, Sequences):
            raise ConfigError(
                ["ddk.domains: tokens are no domains; set ddk.domains to sources, and data.domain_key to their key"]
            )
        if self.config.domains == "sources" and len(_sources(train)) < 2:
            raise ConfigError(
                [
                    "ddk.domains: sources needs training examples named by folders, two or more of them; "
                    "use `classes`, or a data set of folders, or of texts with data.domain_key"
                ]
            )

    def prepare(self, context: Context) -> None:
        self._context = context
        count = context.task.num_classes if self.config.domains == "classes" else len(_sources(context.train))
        self._shares = torch.full((count,), 1 / count, dtype=torch.float64)  # r

    def study(self, context: Context) -> None:
        self._of_train = self._domains(context.train)
        self._shares = first_shares(self._gaps())

    def data(self, batch: Batch, generator: torch.Generator) -> Batch:
        return batch

    def order(self, epoch: int, generator: torch.Generator) -> Tensor:
        counts = torch.bincount(self._of_train, minlength=len(self._shares))
        ends = (self._shares / counts.clamp_min(1))[self._of_train].cumsum(0)
        drawn = torch.rand(len(ends), generator=generator, dtype=torch.float64) * ends[-1]
        return torch.searchsorted(ends, drawn).clamp_max(len(ends) - 1)

    def end_epoch(self, epoch: int, student: nn.Module) -> None:
        if (epoch + 1) % self.config.every_epochs == 0:
            self._shares = next_shares(self._shares, self._gaps(), self.config.smoothing)

    def measures(self) -> dict[str, float]:
        """Largest and smallest share of a domain at the end."""
        return {"largest_share": float(self._shares.max()), "smallest_share": float(self._shares.min())}

    def _gaps(self) -> Tensor:
        """Return l_S / l_T of each domain, [M] float64."""
        context, student = self._context, self._context.deployable()
        split = context.reference.labelled()
        domains, sums = self._domains(split), torch.zeros(3, len(self._shares), dtype=torch.float64)
        with evaluating(student), torch.no_grad():
            for batch in split.passes(512, context.device):
                own = domains[batch.index.cpu()]
                asked = context.teacher_view(batch._replace(view=None)).logits
                logits = logits_at(student, batch.inputs, batch.rows), asked
                losses = (F.cross_entropy(one.float(), batch.targets, reduction="none") for one in logits)
                rows = [*(loss.double().cpu() for loss in losses), torch.ones(len(own), dtype=torch.float64)]
                sums.index_add_(1, own, torch.stack(rows))
        known = sums[2] > 0
        means = sums[:2] / sums[2].clamp_min(1)
        gaps: Tensor = means[0].clamp(max=_MOST).exp() / means[1].clamp(max=_MOST).exp()
        return torch.where(known, gaps, gaps[known].mean()) if bool(known.any()) else torch.ones_like(gaps)

    def _domains(self, split: ImageSplit) -> Tensor:
        """Domain of each example, [N]; an unlabelled one's class is what the teacher says."""
        if self.config.domains == "sources":
            known = {name: number for number, name in enumerate(_sources(self._context.train))}
            return torch.tensor([known.get(name, 0) for name in _source_names(split)])
        targets = split.targets.cpu().clone()
        missing = torch.nonzero(targets == UNLABELLED).flatten()
        with torch.no_grad():
            for few in torch.split(missing, 512):
                batch = split.batch(few.to(split.targets.device), self._context.device)
                targets[few] = self._context.teacher_view(batch._replace(view=None)).logits.argmax(1).cpu()
        return targets

    def state_dict(self) -> dict[str, Any]:
        return {"shares": self._shares, "of_train": self._of_train}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._shares, self._of_train = state["shares"].cpu().clone(), state["of_train"].cpu()


_MOST = 30.0  # nats: a perplexity beyond any that tells something, before exp overflows


def first_shares(gaps: Tensor) -> Tensor:
    """r_0 ~ exp(l_S / l_T), [M]."""
    return gaps.softmax(0)


def next_shares(shares: Tensor, gaps: Tensor, smoothing: float) -> Tensor:
    """a psi / sum psi + (1 - a) / M with psi = r exp(l_S / l_T), [M]."""
    return smoothing * (shares.clamp_min(1e-300).log() + gaps).softmax(0) + (1 - smoothing) / len(shares)


def _source_names(split: ImageSplit) -> list[str]:
    ids = np.asarray([]) if split.ids is None else split.ids
    return [str(name).replace("\\", "/").partition("/")[0] if "/" in str(name) else "" for name in ids]


def _sources(split: ImageSplit) -> list[str]:
    return sorted(set(_source_names(split)))
