"""HARD: an augmentor seeks inputs with disagreement of student and teacher, but a still consistent teacher."""

# N examples, K classes

import copy
from collections.abc import Mapping
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor, nn

from edgestill.distill.methods.base import Context, Exhibit, Method, MethodConfig, Slot
from edgestill.distill.methods.facts import Facts
from edgestill.distill.methods.hard.affine import Affine, Padding
from edgestill.distill.methods.hard.ascent import CommonAdam
from edgestill.distill.methods.hard.augmentor import Augmentor, with_augmented
from edgestill.distill.methods.hard.mix import Mix
from edgestill.distill.methods.hard.policies import Hysteresis, Lagrangian, Penalty, Policy, PolicyName
from edgestill.distill.methods.hard.random_affine import refuse_text
from edgestill.distill.methods.hard.sheet import sheet
from edgestill.distill.methods.hard.vae import Vae, VaeAugmentor, agreement, train_vae, vae_augmentor
from edgestill.distill.tunable import tunable
from edgestill.pipeline.data.splits import Batch, ImageSplit
from edgestill.pipeline.device import full_precision
from edgestill.pipeline.errors import ConfigError, TrainingError
from edgestill.pipeline.frozen import derive_seed
from edgestill.pipeline.networks.network import evaluating
from edgestill.pipeline.task import Task
from edgestill.pipeline.teachers.teacher import Part

MIN_AGREEMENT = 0.95  # share of images with the same teacher's answer as their VAE reconstructions


class HardConfig(MethodConfig):
    """Settings of HARD; L_tt and L_ts are KL divergences at the augmentor's own temperature, in nats at 1."""

    name: Literal["hard"] = "hard"
    family: Literal["affine", "mix", "vae"] = Field(
        "affine", description="augmentations to learn: spatial transforms, mixed operations or VAE latent steps"
    )
    policy: PolicyName = Field("hysteresis", description="rule that keeps augmented images recognisable to the teacher")
    augmented_weight: float = tunable(
        8.0, ge=0, le=100, tune=(1.0, 16.0), log=True, description="weight (w) of the loss on augmented images, L_ts"
    )
    l_max: float = tunable(
        0.1, gt=0, le=10, tune=(0.03, 1.0), log=True, description="upper limit of teacher inconsistency (L_tt), in nats"
    )
    l_min_share: float = tunable(
        0.6, gt=0, le=1, tune=(0.2, 0.8), description="share of l_max below which L_tt ends repair; policy hysteresis"
    )
    ema: float = Field(0.9, ge=0, lt=1, description="decay of the moving average of L_tt that the policy reads")
    consistency_weight: float = Field(5.0, ge=0, le=1000, description="weight (lam_t) of L_tt; policy penalty")
    multiplier_rate: float = Field(0.5, gt=0, le=100, description="learning rate of lam_t; policy lagrangian")
    learning_rate: float = Field(0.03, gt=0, le=1, description="learning rate of the augmentor's parameters (phi)")
    temperature: float = Field(1.0, gt=0, le=100, description="temperature of L_tt and L_ts in the augmentor's loss")
    every: int = Field(2, ge=1, description="number of student steps for each turn of the augmentor (k_s)")
    turns: int = Field(1, ge=1, description="number of augmentor steps in each turn (k_a)")
    images: int = Field(32, ge=2, description="largest number of images of the batch for an augmentor step")
    warmup_steps: int = Field(100, ge=0, description="number of student steps before the augmentor begins")
    initial_share: float = Field(
        0.05, ge=0.01, le=1, description="initial augmentation strength, as share of the largest; families affine, mix"
    )
    padding: Padding = Field("reflection", description="fill for pixels beyond the image's edge; family affine")
    min_entropy: float = Field(1.0, ge=0, description="least entropy of the choice of operations, in nats; family mix")
    trust: float = Field(3.0, gt=0, description="largest latent step, in posterior standard deviations; family vae")
    vae_epochs: int = Field(20, ge=1, description="epochs of the VAE's training, before the student's; family vae")

    def unread(self) -> frozenset[str]:
        if self.policy == "hysteresis":
            return frozenset()
        return frozenset({"l_max", "l_min_share"} if self.policy == "penalty" else {"l_min_share"})


class Hard(Method):
    """Student: min D(f_t(x), f_s(x)) + w L_ts; augmentor: max lam_s L_ts - lam_t L_tt, by turns.

    L_ts = D(f_t(x~), f_s(x~)), L_tt = D(f_t(x), f_t(x~)), D = T^2 KL. The paper's body could not be had; schedule,
    policies and families are reconstructions from its abstract and its authors' earlier work
    (docs/explanation/methods.md).
    """

    name: ClassVar[str] = "hard"
    paper: ClassVar[str] = "Nix, Burg, Sinz 2023, arXiv:2305.14890"
    fills: ClassVar[frozenset[Slot]] = frozenset({"data"})
    facts: ClassVar[Facts | None] = Facts(
        evidence="paper",
        elicitation=("expansion",),
        lively={"warmup_steps": 0},
        zero_at_teacher=True,
        invariant_to=frozenset({"shift"}),
        cost=10.0,
    )
    studies_teacher: ClassVar[bool] = True  # the augmentor's steps go through it
    Config: ClassVar[type[MethodConfig]] = HardConfig

    @property
    def needs(self) -> frozenset[Part]:
        return frozenset({"gradients", "inputs"})

    def check(self, task: Task, train: ImageSplit) -> None:
        refuse_text(self.name, task)

    def prepare(self, context: Context) -> None:
        self._context = context
        self._augmentor = self.make_augmentor(context).to(context.device)
        self._policy = _policy(self.config)
        self._optimizer = CommonAdam(self._phi(), self.config.learning_rate)
        self._steps = self._turns = self._repairs = 0
        self._disagreement = 0.0

    def make_augmentor(self, context: Context) -> Augmentor:
        config = self.config
        if config.family == "mix":
            return Mix(config.initial_share, config.min_entropy)
        if config.family == "vae":
            return vae_augmentor(context.task.input_shape, config.trust, derive_seed(context.seed, "hard", "vae"))
        return Affine(context.task.input_shape, config.initial_share, config.padding)

    def study(self, context: Context) -> None:
        """Train a VAE on the training split, and refuse it if the teacher does not recognise its reconstructions."""
        if isinstance(self._augmentor, VaeAugmentor):
            _train_vae(self._augmentor.vae, self.config, context)

    def data(self, batch: Batch, generator: torch.Generator) -> Batch:
        """Return the batch with an augmented copy, after warm-up; every k_s steps the augmentor learns first."""
        learning = self._steps - self.config.warmup_steps
        self._steps += 1
        if learning < 0:
            return batch
        if learning % self.config.every == 0:
            for _ in range(self.config.turns):
                self._turn(batch, generator)
        with torch.no_grad(), full_precision(self._context.device):  # half precision rounds a shift to whole pixels
            augmented = self._augmentor(batch.inputs, self._noise(len(batch.targets), generator))
        return with_augmented(batch, augmented, self.config.augmented_weight)

    def _turn(self, batch: Batch, generator: torch.Generator) -> None:
        """Take one step of phi; student and teacher stay as they were, batch statistics included."""
        few = batch.first(self.config.images)
        context, student = self._context, self._context.deployable()
        with evaluating(context.student, student), full_precision(context.device):
            images = self._augmentor(few.inputs, self._noise(len(few.targets), generator))
            teacher = context.teacher(images)
            inconsistency = disagreement(context.teacher_view(few).logits, teacher, self.config.temperature)
            for_student, for_teacher = self._policy.weights(float(inconsistency.detach()))
            loss = for_teacher * inconsistency + self._augmentor.regulariser()
            if for_student:  # in repair the student does not count
                disagreed = disagreement(teacher, student(images), self.config.temperature)
                loss = loss - for_student * disagreed
                self._disagreement = float(disagreed.detach())
            gradients = torch.autograd.grad(loss, self._phi())
        if not all(bool(gradient.isfinite().all()) for gradient in gradients):  # a NaN in phi would crash grid_sample
            raise TrainingError("the gradient of hard's augmentor became NaN or infinite; try a lower learning_rate")
        self._optimizer.step(gradients)
        self._augmentor.project()
        self._turns += 1
        self._repairs += not for_student

    def _noise(self, count: int, generator: torch.Generator) -> Tensor:
        return self._augmentor.draw(count, generator).to(self._context.device)

    def _phi(self) -> list[nn.Parameter]:
        return [parameter for parameter in self._augmentor.parameters() if parameter.requires_grad]

    def measures(self) -> dict[str, float]:
        """Figures of phi, the moving average of L_tt, the last L_ts, and the share of phi's steps spent in repair."""
        return {
            **self._augmentor.measures(),
            "L_tt": self._policy.average or 0.0,
            "L_ts": self._disagreement,
            "repair_share": self._repairs / max(1, self._turns),
        }

    def exhibits(self) -> tuple[Exhibit, ...]:
        """Sheet of reference images, changed by the augmentor."""
        context, student = self._context, self._context.deployable()
        generator = torch.Generator().manual_seed(derive_seed(context.seed, "hard", "sheet"))

        def change(images: Tensor) -> Tensor:
            made: Tensor = self._augmentor(images, self._noise(len(images), generator))
            return made

        with evaluating(context.student, student), torch.no_grad():
            return (sheet(change, context, student, generator),)

    def extras(self) -> Mapping[str, nn.Module]:
        return {"augmentor": self._augmentor}

    def state_dict(self) -> dict[str, Any]:
        """Return copies: the loop keeps the best epoch's state while training goes on."""
        return copy.deepcopy(
            {
                "augmentor": dict(self._augmentor.state_dict()),
                "optimizer": self._optimizer.state_dict(),
                "policy": self._policy.state_dict(),
                "counts": [self._steps, self._turns, self._repairs],
                "disagreement": self._disagreement,
            }
        )

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._augmentor.load_state_dict(state["augmentor"])
        self._optimizer.load_state_dict(state["optimizer"])
        self._policy.load_state_dict(state["policy"])
        self._steps, self._turns, self._repairs = state["counts"]
        self._disagreement = state["disagreement"]


def disagreement(logits: Tensor, others: Tensor, temperature: float) -> Tensor:
    """Mean of T^2 KL(softmax(logits / T) || softmax(others / T)) over examples; gradients reach both."""
    log_p, log_q = (F.log_softmax(z.float() / temperature, dim=1) for z in (logits, others))
    return F.kl_div(log_q, log_p, reduction="batchmean", log_target=True) * temperature**2


def _policy(config: Any) -> Policy:
    if config.policy == "penalty":
        return Penalty(config.ema, config.consistency_weight)
    if config.policy == "lagrangian":
        return Lagrangian(config.ema, config.l_max, config.multiplier_rate)
    return Hysteresis(config.ema, config.l_max, config.l_min_share * config.l_max)


def _train_vae(vae: Vae, config: Any, context: Context) -> None:
    seed = derive_seed(context.seed, "hard", "vae", "training")
    train_vae(vae, context.train, context.device, epochs=config.vae_epochs, seed=seed)
    agreed = agreement(vae, context.teacher, context.reference, context.device)
    if agreed < MIN_AGREEMENT:
        raise ConfigError(
            [
                f"hard.family vae: the teacher answers {agreed:.1%} of the {len(context.reference)} reference images "
                f"and their reconstructions by the VAE alike; {MIN_AGREEMENT:.0%} are needed; raise hard.vae_epochs "
                f"(now {config.vae_epochs}) or choose the family affine or mix"
            ]
        )
