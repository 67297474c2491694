"""What decides one fine-tune, given its data: the recipe that a search samples and a worker follows."""

from dataclasses import dataclass

from genre_core.errors import InputError
from genre_core.models.registry import block_names

PRECISIONS = ("float32", "bfloat16")
AUGMENT_AT = ("cut", "input")
SCHEDULES = ("cosine", "constant")
CLASS_WEIGHTS = ("none", "balanced")


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """The settings of one fine-tune.

    Raises:
        InputError: a value is outside what the fine-tune can follow.
    """

    backbone: str
    """A name in `families.BLOCKS`."""
    weights: str
    """`imagenet`, `random`, or the path of a state dict with torchvision's names."""
    frozen_blocks: int
    """How many leading blocks are frozen: 0 trains all, the number of blocks trains only the new head."""
    learning_rate: float
    """SGD's learning rate after warm-up, for the trained blocks."""
    momentum: float
    """SGD's momentum, in [0, 1)."""
    nesterov: bool = False
    """Nesterov's form of the momentum."""
    weight_decay: float = 0.0
    """L2 penalty in SGD."""
    head_lr_ratio: float = 1.0
    """The head's learning rate over that of the trained blocks."""
    batch_size: int = 32
    """Segments a step, at most: an epoch is cut into equal batches."""
    label_smoothing: float = 0.0
    """Share of each label spread evenly over all genres, in [0, 1)."""
    mixup: float = 0.0
    """Alpha of the beta distribution by which segments are mixed in pairs; 0 for none."""
    masking: float = 0.0
    """Share of the mel rows, and of the time columns, that are masked at most; in [0, 1), 0 for none."""
    augment_at: str = "cut"
    """Whether mixup and masking act on the activations at the `cut`, or on the `input`, which then has to pass
    the frozen blocks in every epoch: nothing can be shared."""
    class_weights: str = "none"
    """`balanced` weighs each genre's loss by the inverse of its share of the training segments."""
    epochs: int = 20
    """Epochs at most."""
    patience: int = 8
    """Epochs without a better validation F1 after which the fine-tune ends."""
    warmup_epochs: float = 1.0
    """Epochs over which the learning rate rises linearly from zero."""
    schedule: str = "cosine"
    """What the learning rate does after warm-up: falls to zero by half a `cosine`, or stays `constant`."""
    precision: str = "float32"
    """The type that layers compute in; with `bfloat16` weights and sums stay float32 (autocast)."""
    seed: int = 0
    """Of the initial weights that are random, the order of the segments, dropout, mixup and masking."""

    @property
    def augments_input(self) -> bool:
        """Whether what enters the frozen blocks differs from epoch to epoch."""
        return self.augment_at == "input" and bool(self.mixup or self.masking)

    def __post_init__(self) -> None:
        n_blocks = len(block_names(self.backbone))
        _require(
            0 <= self.frozen_blocks <= n_blocks,
            f"in 0..{n_blocks} for {self.backbone}",
            self,
            "frozen_blocks",
        )
        _require(self.learning_rate > 0, "above 0", self, "learning_rate")
        _require(0 <= self.momentum < 1, "in [0, 1)", self, "momentum")
        _require(self.momentum > 0 or not self.nesterov, "above 0 with nesterov", self, "momentum")
        _require(self.weight_decay >= 0, "0 or more", self, "weight_decay")
        _require(self.head_lr_ratio > 0, "above 0", self, "head_lr_ratio")
        _require(self.batch_size >= 2, "2 or more (batch norm needs two)", self, "batch_size")
        _require(0 <= self.label_smoothing < 1, "in [0, 1)", self, "label_smoothing")
        _require(self.mixup >= 0, "0 or more", self, "mixup")
        _require(0 <= self.masking < 1, "in [0, 1)", self, "masking")
        _require(self.augment_at in AUGMENT_AT, f"one of {', '.join(AUGMENT_AT)}", self, "augment_at")
        _require(self.precision in PRECISIONS, f"one of {', '.join(PRECISIONS)}", self, "precision")
        _require(
            self.class_weights in CLASS_WEIGHTS, f"one of {', '.join(CLASS_WEIGHTS)}", self, "class_weights"
        )
        _require(self.epochs >= 1, "1 or more", self, "epochs")
        _require(self.patience >= 1, "1 or more", self, "patience")
        _require(self.warmup_epochs >= 0, "0 or more", self, "warmup_epochs")
        _require(self.schedule in SCHEDULES, f"one of {', '.join(SCHEDULES)}", self, "schedule")


def _require(holds: bool, rule: str, recipe: Recipe, field: str) -> None:
    if not holds:
        raise InputError(f"{field} must be {rule}, but got {field}={getattr(recipe, field)!r}")
