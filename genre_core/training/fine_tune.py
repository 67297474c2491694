"""One fine-tune: SGD or AdamW on the trainable part of a network, epoch by epoch, resumable from its state."""

import math
import time
from dataclasses import dataclass
from functools import partial

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from genre_core.models.blocks import StateDict
from genre_core.models.network import Network
from genre_core.models.registry import find_backbone
from genre_core.recipe import ADAMW, Recipe
from genre_core.system.disk_cache import NodeCache
from genre_core.training.activation_cache import ActivationCache
from genre_core.training.augmentation import mixup, spec_augment
from genre_core.training.head_probe import probe
from genre_core.training.metrics import Scores, confusion_matrix, scores
from genre_core.training.segments import Segments
from genre_core.training.step_graph import EpochSteps, Replay, Step, StepGraph

VALIDATION_BATCH = 256
"""Segments per batch when scoring."""
DIVERGED_LOSS = 100.0
"""A training loss above this multiple of the loss of uniform guessing counts as diverged."""

BETA2 = 0.999
"""Decay of the second moment in AdamW, torch's default."""
_MOMENTS = {"momentum_buffer": "momentum", "exp_avg": "exp_avg", "exp_avg_sq": "exp_avg_sq"}
"""Tensors that an optimizer of torch keeps for each parameter, of its shape -> their names in a checkpoint."""
STEP = "step"
"""AdamW's number of steps, which torch keeps for each parameter as a tensor []; in a checkpoint it is [1]."""


class Diverged(Exception):
    """The loss diverged; the message gives the epoch, the losses and the learning rate."""


@dataclass(frozen=True, kw_only=True)
class EpochResult:
    """The results of one epoch. Losses are cross-entropies in nats; scores are per track of the validation split."""

    epoch: int
    """Number of the epoch, from 1."""
    train_loss: float
    """Mean over the epoch's segments, each before the optimizer step on its batch."""
    val_loss: float
    """Loss of the tracks' mean logits, without genre weights or label smoothing."""
    scores: Scores
    predicted: tuple[int, ...]
    """Index of the predicted genre of each validation track, in the order of the split."""
    learning_rate: float
    """At the end of the epoch, for the trainable blocks."""
    seconds: float
    arithmetic_seconds: float
    """Seconds of the epoch in forward, backward and optimizer: a lower bound without any overhead. On a GPU,
    which runs asynchronously, seconds until the work was queued."""
    samples_per_second: float
    """Training segments per second of the epoch's training part."""


@dataclass(frozen=True, kw_only=True)
class EpochDraws:
    """The random choices of one epoch of a recipe. They depend only on (seed, epoch), so it can be resumed."""

    seed: int
    """Of torch's generator, from which dropout draws."""
    order: Tensor
    """Indices of all training segments in their order, int64 [segments], on the CPU."""
    augmentation: np.random.Generator
    """From which mixup and masking draw, step by step."""

    @classmethod
    def of(cls, recipe: Recipe, epoch: int, segments: int) -> "EpochDraws":
        """The draws of an epoch, counted from 1, over so many training segments."""
        sequence = np.random.SeedSequence([recipe.seed, epoch])
        seed = int(sequence.generate_state(1)[0])
        return cls(
            seed=seed,
            order=torch.randperm(segments, generator=torch.Generator().manual_seed(seed)),
            augmentation=np.random.default_rng(sequence),
        )


class FineTune:
    """Training loop of one network: call `epoch` until `finished`, or `train` if there is no validation split."""

    def __init__(
        self,
        network: Network,
        recipe: Recipe,
        *,
        train: Segments,
        validation: Segments | None,
        node_cache: NodeCache,
    ) -> None:
        """Prepare the training of `network`, which is changed in place.

        Args:
            network: with the recipe's freeze depth, on the segments' device.
            recipe: the settings.
            train: segments to train on.
            validation: segments of other tracks to score; None to train without validation.
            node_cache: where activations at the freeze depth are stored.
        """
        self.network = network
        self.epochs_done = 0
        self.best_f1 = -1.0
        self.best_epoch = 0
        self.track_logits = np.empty((0, 0), np.float32)
        """Logits of the validation tracks after the last epoch, [tracks, genres]."""
        self.recipe = recipe
        self.train_segments, self.validation_segments = train, validation
        self._node_cache = node_cache
        self._arithmetic = 0.0
        self._random = np.random.default_rng()
        activations = partial(ActivationCache, network, node_cache=node_cache, epochs=recipe.epochs)
        self.train_activations = activations(train, keep=not recipe.augments_input)
        self.validation_activations = None if validation is None else activations(validation)
        self.features = self.train_activations.kind
        self.features_seconds = sum(
            part.seconds for part in (self.train_activations, self.validation_activations) if part
        )
        """Seconds spent on activations, and before the first epoch on the probe, without waiting for other workers."""
        self.genre_weights = genre_weights(train) if recipe.class_weights == "balanced" else None
        self.optimizer = _optimizer(network, recipe)
        varied_behind_frozen = not recipe.augments_input and bool(recipe.mixup or recipe.masking)
        self._steps_pass_frozen = self.features != "shared" and not varied_behind_frozen
        """Whether the input of a step is segments rather than activations."""

    @property
    def resident(self) -> bool:
        """Whether the segments are stored on the device instead of being copied to it batch by batch."""
        return all(
            part.resident for part in (self.train_segments, self.validation_segments) if part is not None
        )

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the validation F1 has not improved for `patience` epochs."""
        stale = self.epochs_done - self.best_epoch
        return self.epochs_done >= self.recipe.epochs or stale >= self.recipe.patience

    def epoch(self) -> EpochResult:
        """Train one epoch and score the validation split.

        Raises:
            Diverged: a loss is not finite, or far above that of guessing.
        """
        self.initialise_head()
        epoch = self.epochs_done + 1
        started = time.perf_counter()
        self._arithmetic = 0.0
        train_loss = self._train_epoch(epoch)
        trained = time.perf_counter()
        assert self.validation_segments is not None, "scoring needs validation segments"
        assert self.validation_activations is not None
        logits = track_logits(self.network, self.validation_segments, self.validation_activations)
        self._arithmetic += time.perf_counter() - trained
        return self.record(
            train_loss, logits, started=started, trained=trained, arithmetic_seconds=self._arithmetic
        )

    def record(
        self, train_loss: float, logits: Tensor, *, started: float, trained: float, arithmetic_seconds: float
    ) -> EpochResult:
        """Score an epoch whose steps were taken, and count it as done.

        Args:
            train_loss: see `EpochResult`.
            logits: of the validation tracks after it, float32 [tracks, genres], on the CPU.
            started: reading of `time.perf_counter` before its first step.
            trained: the same after its last step.
            arithmetic_seconds: see `EpochResult`.

        Raises:
            Diverged: a loss is not finite, or far above that of guessing.
        """
        assert self.validation_segments is not None, "scoring needs validation segments"
        epoch, genre = self.epochs_done + 1, self.validation_segments.genre.cpu()
        self.track_logits = logits.numpy()
        predicted = logits.argmax(dim=1)
        confusion = confusion_matrix(genre.numpy(), predicted.numpy(), self.validation_segments.n_genres)
        val_loss, result = float(F.cross_entropy(logits, genre)), scores(confusion)
        self._check(epoch, train_loss, val_loss)
        self.epochs_done = epoch
        if result.f1 > self.best_f1:
            self.best_f1, self.best_epoch = result.f1, epoch
        steps = steps_per_epoch(len(self.train_segments), self.recipe)
        factor = learning_rate_factor(self.recipe, epoch - 1 + (steps - 0.5) / steps)
        return EpochResult(
            epoch=epoch,
            train_loss=train_loss,
            val_loss=val_loss,
            scores=result,
            predicted=tuple(predicted.tolist()),
            learning_rate=self.recipe.learning_rate * factor,
            seconds=time.perf_counter() - started,
            arithmetic_seconds=arithmetic_seconds,
            samples_per_second=len(self.train_segments) / (trained - started),
        )

    def train(self) -> float:
        """Train one epoch without scoring; returns the mean loss over its segments, in nats.

        Raises:
            Diverged: the loss is not finite, or far above that of guessing.
        """
        self.initialise_head()
        epoch = self.epochs_done + 1
        loss = self._train_epoch(epoch)
        self._check(epoch, loss, None)
        self.epochs_done = epoch
        return loss

    def state_dict(self) -> StateDict:
        """Everything that the next epoch depends on: trainable tensors, the optimizer's state, and the progress."""
        found = {
            "progress": torch.tensor([self.epochs_done, self.best_f1, self.best_epoch], dtype=torch.float64),
            **{f"trained.{name}": tensor for name, tensor in self.network.trainable.state_dict().items()},
        }
        for i, parameter in enumerate(self.network.trainable.parameters()):
            own = self.optimizer.state[parameter]
            found |= {f"{name}.{i}": own[key] for key, name in _MOMENTS.items() if own.get(key) is not None}
            if STEP in own:
                found[f"{STEP}.{i}"] = own[STEP].reshape(1)
        return found

    def load_state_dict(self, state: StateDict) -> None:
        """Resume from a `state_dict`; the following epochs are bit-identical to those of the original.

        On a GPU, only with deterministic kernels.
        """
        trainable = {
            key.partition(".")[2]: value for key, value in state.items() if key.startswith("trained.")
        }
        self.network.trainable.load_state_dict(trainable)
        for i, parameter in enumerate(self.network.trainable.parameters()):
            own = self.optimizer.state[parameter]
            for key, name in _MOMENTS.items():
                if (stored := state.get(f"{name}.{i}")) is not None:
                    own[key] = torch.empty_like(parameter).copy_(stored)
            if (step := state.get(f"{STEP}.{i}")) is not None:
                own[STEP] = step.reshape(()).to(parameter.device, copy=True)
        done, self.best_f1, best = state["progress"].tolist()
        self.epochs_done, self.best_epoch = int(done), int(best)

    def initialise_head(self) -> None:
        """Set the head by `Recipe.head_init` before the first epoch; a resumed fine-tune already has its head."""
        has_trainable_blocks = len(self.network.trainable) > 1
        if self.epochs_done or self.recipe.head_init != "probe" or not has_trainable_blocks:
            return
        began, waited = time.perf_counter(), self._node_cache.waited_seconds
        found = probe(
            self.network, self.train_segments, genre_weights=self.genre_weights, node_cache=self._node_cache
        )
        with torch.no_grad():
            self.network.head.weight.copy_(found.weight)
            self.network.head.bias.copy_(found.bias)
        waited = self._node_cache.waited_seconds - waited
        self.features_seconds += time.perf_counter() - began - waited

    def _train_epoch(self, epoch: int) -> float:
        """Train one epoch; returns the mean loss. All of its random numbers depend only on (seed, epoch)."""
        draws = EpochDraws.of(self.recipe, epoch, len(self.train_segments))
        self._random = draws.augmentation
        torch.manual_seed(draws.seed)
        device = self.network.device
        order = draws.order.to(device)
        batches = order.tensor_split(steps_per_epoch(len(order), self.recipe))
        total = torch.zeros((), device=device)
        self.network.trainable.train()
        capture = self._captured if device.type == "cuda" and self._steps_are_asynchronous else None
        steps = EpochSteps(self._step, [len(batch) for batch in batches], capture=capture)
        source = self.train_segments if self._steps_pass_frozen else self.train_activations
        for step, (batch, rows) in enumerate(zip(batches, source.batches(batches), strict=True)):
            self._set_learning_rate(epoch - 1 + (step + 0.5) / len(batches))
            inputs = self._inputs(batch, rows)
            began = time.perf_counter()
            total += steps(*inputs) * len(batch)
            self._arithmetic += time.perf_counter() - began
        return float(total / len(order))

    def _captured(self, step: Step, inputs: tuple[Tensor, ...]) -> Replay:
        """Capture a step as a CUDA graph.

        AdamW must be `capturable` for that, but torch warns if steps of a capturable optimizer are not captured.
        """
        groups = [group for group in self.optimizer.param_groups if "capturable" in group]
        for group in groups:
            group["capturable"] = True
        try:
            return StepGraph(step, inputs)
        finally:
            for group in groups:
                group["capturable"] = False

    @property
    def _steps_are_asynchronous(self) -> bool:
        """Whether steps never wait for the device; PyTorch's loss does with both label smoothing and genre weights."""
        waits = self.recipe.label_smoothing and self.genre_weights is not None
        return find_backbone(self.recipe.backbone).cuda_graphs and not waits

    def _inputs(self, batch: Tensor, inputs: Tensor) -> tuple[Tensor, ...]:
        """What `_step` takes for the segments with these indices and with these mels or activations."""
        genre = self.train_segments.genre[self.train_segments.track[batch]]
        if self.recipe.augments_input:
            inputs = inputs.float()
        mixed: tuple[Tensor, ...] = ()
        if self.recipe.mixup:
            inputs, partner, weight = mixup(inputs, alpha=self.recipe.mixup, random=self._random)
            weights = (torch.full((), share, device=inputs.device) for share in (weight, 1 - weight))
            mixed = genre[partner], *weights
        if self.recipe.masking:
            zero = torch.zeros((), device=inputs.device)
            fill = self.network.image.mean if self.recipe.augments_input else zero
            inputs = spec_augment(inputs, share=self.recipe.masking, fill=fill, random=self._random)
        return inputs, genre, *mixed

    def _step(self, inputs: Tensor, genre: Tensor, *mixed: Tensor) -> Tensor:
        """Take a step of the optimizer; on a GPU, without synchronization.

        Args:
            inputs: segments or activations, [batch, ...].
            genre: of each segment, int64 [batch].
            mixed: with mixup, the genre of each segment's partner, int64 [batch], and the weights of the segment and of
                its partner, each [].

        Returns:
            The loss before the step, [].
        """
        activations = self.network.frozen_forward(inputs) if self._steps_pass_frozen else inputs
        logits = self.network.trainable_forward(activations)
        loss = self._loss(logits, genre)
        if mixed:
            partner, own_weight, partner_weight = mixed
            loss = own_weight * loss + partner_weight * self._loss(logits, partner)
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        self.optimizer.zero_grad()  # an idle fine-tune holds no gradients
        return loss.detach()

    def _loss(self, logits: Tensor, genre: Tensor) -> Tensor:
        smoothing = self.recipe.label_smoothing
        return F.cross_entropy(logits, genre, weight=self.genre_weights, label_smoothing=smoothing)

    def _set_learning_rate(self, epochs: float) -> None:
        factor = learning_rate_factor(self.recipe, epochs)
        for group in self.optimizer.param_groups:
            rate = group["peak_lr"] * factor
            if isinstance(group["lr"], Tensor):
                group["lr"].fill_(rate)
            else:
                group["lr"] = rate

    def _check(self, epoch: int, train_loss: float, val_loss: float | None) -> None:
        limit = DIVERGED_LOSS * math.log(self.train_segments.n_genres)
        if not (math.isfinite(train_loss + (val_loss or 0.0)) and train_loss < limit):
            scored = "" if val_loss is None else f", validation loss {val_loss:.3g}"
            raise Diverged(
                f"diverged in epoch {epoch}: training loss {train_loss:.3g}{scored}; "
                f"learning rate {self.recipe.learning_rate:.3g} with momentum {self.recipe.momentum:.3g} is too high"
            )


@torch.no_grad()
def track_logits(network: Network, segments: Segments, activations: ActivationCache) -> Tensor:
    """Mean logits over each track's segments, [tracks, genres]; leaves the trainable part in eval mode.

    The mean is computed on the CPU, because a GPU adds up the segments in an order that changes from run to run.
    """
    network.trainable.eval()
    indices = torch.arange(len(segments), device=network.device)
    parts = torch.split(indices, VALIDATION_BATCH)
    # allocated before the batches: small tensors between large ones would keep the allocator from reusing their memory
    logits = torch.empty((len(segments), network.head.out_features), device=network.device)
    for part, inputs in zip(torch.split(logits, VALIDATION_BATCH), activations.batches(parts), strict=True):
        part.copy_(network.trainable_forward(inputs))
    return mean_over_tracks(logits.cpu(), segments)


def mean_over_tracks(logits: Tensor, segments: Segments) -> Tensor:
    """Logits of segments, [segments, genres], on the CPU -> their means over each track, [tracks, genres]."""
    track = segments.track.cpu()
    total = logits.new_zeros(segments.n_tracks, logits.shape[1]).index_add_(0, track, logits)
    return total / torch.bincount(track, minlength=segments.n_tracks).unsqueeze(1)


def steps_per_epoch(segments: int, recipe: Recipe) -> int:
    """Number of steps of an epoch, whose batches are equal up to one segment."""
    return math.ceil(segments / recipe.batch_size)


def genre_weights(segments: Segments) -> Tensor:
    """Weights [genres] with which all genres contribute equally to the loss; their mean over segments is 1."""
    counts = torch.bincount(segments.genre[segments.track], minlength=segments.n_genres)
    return len(segments) / (segments.n_genres * counts.clamp_min(1).float())


def learning_rate_factor(recipe: Recipe, epochs: float) -> float:
    """Learning rate relative to its peak after `epochs`, which may be fractional: linear warm-up, then the schedule."""
    if epochs < recipe.warmup_epochs:
        return epochs / recipe.warmup_epochs
    if recipe.schedule == "constant" or recipe.epochs <= recipe.warmup_epochs:
        return 1.0
    progress = (epochs - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    return 0.5 * (1 + math.cos(math.pi * progress))


def _optimizer(network: Network, recipe: Recipe) -> torch.optim.Optimizer:
    """SGD or AdamW with two parameter groups: trainable blocks and head. On a GPU, learning rates are tensors there."""
    head = list(network.trainable.get_submodule("head").parameters())
    blocks = [p for name, p in network.trainable.named_parameters() if not name.startswith("head.")]
    peaks = (recipe.learning_rate, recipe.learning_rate * recipe.head_lr_ratio)
    on_gpu = network.device.type == "cuda"
    groups = [
        {
            "params": params,
            "peak_lr": peak,
            "lr": torch.full((), peak, device=network.device) if on_gpu else peak,
        }
        for params, peak in zip((blocks, head), peaks, strict=True)
    ]
    if recipe.optimizer == ADAMW:
        return torch.optim.AdamW(
            groups,
            lr=recipe.learning_rate,
            betas=(recipe.momentum, BETA2),
            weight_decay=recipe.weight_decay,
            fused=True,
        )
    return torch.optim.SGD(
        groups,
        lr=recipe.learning_rate,
        momentum=recipe.momentum,
        nesterov=recipe.nesterov,
        weight_decay=recipe.weight_decay,
        fused=True,
    )
