"""The settings of one fine-tune: a search samples them, a worker trains with them."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, Self

from genre_core.errors import ErrorCode, InputError
from genre_core.models.registry import block_names

SGD: Final = "sgd"
ADAMW: Final = "adamw"
"""Values of `optimizer`."""

CHOICES = {
    "optimizer": (SGD, ADAMW),
    "augment_at": ("cut", "input"),
    "precision": ("float32", "bfloat16"),
    "class_weights": ("none", "balanced"),
    "schedule": ("cosine", "constant"),
    "head_init": ("probe", "random"),
}
"""Setting -> its possible values."""
_STATE_TENSORS = {SGD: 1, ADAMW: 2}
"""Optimizer -> number of tensors that it keeps for each parameter: momentum, or the two moments."""
_FLOAT_BYTES = 4


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of one fine-tune.

    Raises:
        InputError: a value is out of range or unknown.
    """

    backbone: str
    """Its name, see `registry.find_backbone`."""
    weights: str
    """`imagenet` for the backbone's published weights, `random`, or the path of a state dict of its network."""
    frozen_blocks: int
    """The freeze depth: number of leading blocks to freeze. 0 trains all, the number of blocks only the new head."""
    learning_rate: float
    """The optimizer's learning rate after warm-up, for the trainable blocks."""
    momentum: float
    """SGD's momentum, or AdamW's beta1, in [0, 1)."""
    optimizer: str = SGD
    """`sgd`, or `adamw` with betas (`momentum`, 0.999), whose learning rates are typically 10 to 100 times lower."""
    nesterov: bool = False
    """Whether SGD uses Nesterov momentum; AdamW ignores it."""
    weight_decay: float = 0.0
    """L2 penalty in SGD; in AdamW, the decoupled decay: learning rate times this is the share by which weights shrink
    in a step."""
    head_lr_ratio: float = 1.0
    """Ratio of the head's learning rate to that of the trainable blocks."""
    batch_size: int = 32
    """Maximum number of segments per step: an epoch is divided into equal batches."""
    label_smoothing: float = 0.0
    """Fraction of each label that is spread evenly over all genres, in [0, 1)."""
    mixup: float = 0.0
    """Alpha of the beta distribution of mixup's weights; 0 turns mixup off."""
    masking: float = 0.0
    """Maximum fraction of mel bands, and of frames, that SpecAugment masks, in [0, 1); 0 turns it off."""
    augment_at: str = "cut"
    """Where mixup and masking apply: `cut`, the activations at the freeze depth, or `input`, the segments, which
    must then pass the frozen blocks in every epoch, so that their activations cannot be cached."""
    class_weights: str = "none"
    """`balanced` weights each genre's loss by the inverse of its share of the training segments."""
    epochs: int = 20
    """Maximum number of epochs."""
    patience: int = 8
    """Epochs without a better validation F1 after which training stops early."""
    warmup_epochs: float = 1.0
    """Epochs over which the learning rate rises linearly from 0; may be fractional."""
    schedule: str = "cosine"
    """The learning rate after warm-up: `cosine` decays it to 0, `constant` keeps it."""
    head_init: str = "random"
    """The new head before the first epoch: `random`, or `probe`, a logistic regression on the features of the network
    with all blocks frozen (LP-FT, arXiv:2202.10054). Without trainable blocks, the head is random."""
    precision: str = "float32"
    """The type that layers compute in; with `bfloat16` (autocast), weights and sums stay float32."""
    seed: int = 0
    """Seed for randomly initialized weights, the order of segments, dropout, mixup and masking."""

    @classmethod
    def checked_elsewhere(cls, values: Mapping[str, Any]) -> Self:
        """Create a recipe from all values of one that another process has checked, without importing its backbone."""
        recipe = object.__new__(cls)
        for name, value in values.items():
            object.__setattr__(recipe, name, value)
        return recipe

    @property
    def augments_input(self) -> bool:
        """Whether the input of the frozen blocks differs from epoch to epoch."""
        return self.augment_at == "input" and bool(self.mixup or self.masking)

    def __post_init__(self) -> None:
        n_blocks = len(block_names(self.backbone))
        in_range = {
            "frozen_blocks": (0 <= self.frozen_blocks <= n_blocks, f"in 0..{n_blocks} for {self.backbone}"),
            "learning_rate": (self.learning_rate > 0, "above 0"),
            "momentum": (0 <= self.momentum < 1, "in [0, 1)"),
            "weight_decay": (self.weight_decay >= 0, "0 or more"),
            "head_lr_ratio": (self.head_lr_ratio > 0, "above 0"),
            "batch_size": (self.batch_size >= 2, "2 or more (batch norm needs two)"),
            "label_smoothing": (0 <= self.label_smoothing < 1, "in [0, 1)"),
            "mixup": (self.mixup >= 0, "0 or more"),
            "masking": (0 <= self.masking < 1, "in [0, 1)"),
            "epochs": (self.epochs >= 1, "1 or more"),
            "patience": (self.patience >= 1, "1 or more"),
            "warmup_epochs": (self.warmup_epochs >= 0, "0 or more"),
        }
        for field, (holds, rule) in in_range.items():
            self._require(holds, field, rule, ErrorCode.RECIPE_OUT_OF_RANGE)
        has_momentum = self.momentum > 0 or not self.nesterov or self.optimizer != SGD
        self._require(has_momentum, "momentum", "above 0 with nesterov", ErrorCode.NESTEROV_WITHOUT_MOMENTUM)
        for field, choices in CHOICES.items():
            rule = f"one of {', '.join(choices)}"
            self._require(getattr(self, field) in choices, field, rule, ErrorCode.RECIPE_UNKNOWN_CHOICE)

    def _require(self, holds: bool, field: str, rule: str, code: ErrorCode) -> None:
        if not holds:
            raise InputError(f"{field} must be {rule}, but got {field}={getattr(self, field)!r}", code=code)


def state_bytes(optimizer: str) -> int:
    """Bytes of a checkpoint per trainable parameter: its value and what the optimizer keeps for it, as float32."""
    return _FLOAT_BYTES * (1 + _STATE_TENSORS[optimizer])
