"""The settings of a training run."""

from typing import Literal

from pydantic import Field

from edgestill.pipeline.frozen import Frozen

Balance = Literal["none", "weights", "sampling"]
Metric = Literal["accuracy", "balanced_accuracy"]


class TrainingConfig(Frozen):
    epochs: int = Field(30, ge=1, le=100_000, description="number of passes over the training examples")
    batch_size: int = Field(64, ge=2, le=65_536, description="number of examples a step")
    optimizer: Literal["sgd", "adamw"] = Field("sgd", description="optimizer; sgd has Nesterov momentum 0.9")
    learning_rate: float = Field(0.1, gt=0, le=100, description="highest learning rate, reached after warm-up")
    weight_decay: float = Field(5e-4, ge=0, le=1, description="weight decay of the optimizer")
    warmup_epochs: float = Field(
        1.0, ge=0, description="epochs of linear learning-rate warm-up; a half cosine to 0 follows"
    )
    patience: int = Field(
        0, ge=0, description="epochs without a better validation metric before stopping; 0 never stops"
    )
    metric: Metric = Field(
        "accuracy", description="figure on validation that chooses; balanced_accuracy is the mean recall of the classes"
    )
    balance: Balance = Field(
        "none",
        description="remedy for classes of unlike sizes: rare classes weigh more in the loss, or are drawn more often",
    )
