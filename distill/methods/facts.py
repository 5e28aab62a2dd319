"""Statements of a method about itself, for its checks and for `edgestill explain`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

Evidence = Literal["paper", "code", "ours"]
Elicitation = Literal["labelling", "expansion", "curation", "feature", "feedback", "self-knowledge"]
Algorithm = Literal["fine-tuning", "divergence", "reinforcement", "ranking"]
Feedback = Literal["logit", "outcome", "self-play"]
Access = Literal["white-box", "black-box", "teacher-free"]
Granularity = Literal["example", "token", "sequence"]


class About(NamedTuple):
    """Facts of a task."""

    kind: Literal["image", "text"] | str
    classes: int
    examples: int  # labelled ones of training
    pool: int = 0  # unlabelled ones
    label_noise: float = 0.0  # estimated share of wrong labels


@dataclass(frozen=True)
class Facts:
    """Statements of a method about itself; its conformance checks measure the figures.

    Args:
        evidence: source that the formulas were read in: the paper, the authors' code, or, where neither was at hand,
            the abstract, after which ours was made.
        elicitation: how the teacher's knowledge is got, by Xu et al. 2024, arXiv:2402.13116.
        algorithm: how the student learns from it, by the same survey.
        feedback: kind of the teacher's answer; access: what must be open to see; granularity: what is answered. The
            axes of the survey on on-policy distillation (2026); a classifier's unit is the example.
        ablation: settings that remove the method's own idea.
        lively: settings under which all that the method trains moves within ten steps.
        reduces_to: recipe that computes the same loss as the method under `ablation`, as a list of settings; None:
            no other recipe does.
        zero_at_teacher: True if a student with the teacher's outputs gets no gradient from the distillation terms.
        invariant_to: changes of the student's logits that leave the distillation terms as they are.
        holds_constant: True if a term takes a function of the student's outputs as constant, so that its gradient is
            not a finite difference of its value.
        changes_graph: True if more than the plain student ships.
        cost: most of a training step's time, over plain KD's of the same networks.
        suits: True for a task on which `distill.methods: auto` tries the method.
    """

    evidence: Evidence
    elicitation: tuple[Elicitation, ...] = ("labelling",)
    algorithm: Algorithm = "divergence"
    feedback: Feedback = "logit"
    access: Access = "white-box"
    granularity: Granularity = "example"
    ablation: Mapping[str, Any] | None = None
    reduces_to: tuple[Mapping[str, Any], ...] | None = None
    lively: Mapping[str, Any] = field(default_factory=dict)
    zero_at_teacher: bool = False
    invariant_to: frozenset[Literal["shift", "scale"]] = frozenset()
    holds_constant: bool = False
    changes_graph: bool = False
    cost: float = 2.0
    suits: Callable[[About], bool] = lambda about: False

    @property
    def tags(self) -> tuple[str, ...]:
        """Words to find the method by."""
        return (*self.elicitation, self.algorithm, self.feedback, self.access, self.granularity, self.evidence)
