"""Fused fine-tunes: heads and fully connected tails of several trials, trained as one stacked network.

A step is one batched matrix product per layer for all trials, instead of one product per layer and trial. No search
uses it yet: `benchmarks/README.md` says what it gains on a CPU, and it has not been measured on a GPU.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import chain

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from genre_core.recipe import ADAMW, SGD
from genre_core.training.augmentation import mixup_draw, spec_augment
from genre_core.training.fine_tune import (
    BETA2,
    STEP,
    VALIDATION_BATCH,
    Diverged,
    EpochDraws,
    EpochResult,
    FineTune,
    learning_rate_factor,
    mean_over_tracks,
    steps_per_epoch,
)
from genre_core.training.step_graph import EpochSteps, StepGraph

ADAMW_EPSILON = 1e-8
"""Torch's default."""
_STATE = {SGD: ("momentum_buffer",), ADAMW: ("exp_avg", "exp_avg_sq")}
"""Optimizer -> torch's names of the tensors that it keeps for each parameter, of its shape."""


def can_fuse(members: Sequence[FineTune]) -> bool:
    """Whether these fine-tunes can be trained as one stack."""
    return obstacle(members) is None


def obstacle(members: Sequence[FineTune]) -> str | None:
    """The reason why these fine-tunes cannot be trained as one stack; None if they can."""
    found = (_own_obstacle(member) or _difference(members[0], member) for member in members)
    return next(filter(None, found), None)


def share_constants(first: FineTune, other: FineTune) -> None:
    """Let a fine-tune use the frozen blocks and activations of another one, which are equal, and free its own.

    A stack does this when a fine-tune joins. Before, each has its own on a GPU.
    """
    assert can_fuse([first, other]), obstacle([first, other])
    frozen = first.network.frozen, other.network.frozen
    for shared, own in zip(*(chain(part.parameters(), part.buffers()) for part in frozen), strict=True):
        own.data = shared.data
    other.train_activations = first.train_activations
    other.validation_activations = first.validation_activations


def _own_obstacle(member: FineTune) -> str | None:
    """Why a fine-tune cannot be in any stack."""
    if member.validation_activations is None:
        return "there is no validation split to score"
    if member.features != "shared":
        return "the activations at the freeze depth are not cached"
    layers = list(_leaves(member.network.trainable))
    other = [type(layer).__name__ for layer in layers if not _stackable(layer)]
    if other:
        return f"the trainable part has other layers than fully connected ones: {', '.join(other)}"
    if len(member.train_activations.shape) > 2 and not isinstance(layers[0], nn.Flatten):
        return "the input of the trainable part is not flat"
    return None


def _stackable(layer: nn.Module) -> bool:
    """Whether a layer treats each segment of a stack as it would in a batch."""
    if type(layer) is nn.Dropout:
        return layer.p < 1
    return type(layer) in (nn.Linear, nn.ReLU, nn.Flatten, nn.Identity)


def _difference(first: FineTune, other: FineTune) -> str | None:
    """What two fine-tunes, each of which could be in a stack, do not have in common."""
    for field in ("batch_size", "optimizer", "precision"):
        own, others = (getattr(member.recipe, field) for member in (first, other))
        if own != others:
            return f"{field} differs: {own} and {others}"
    if repr(first.network.trainable) != repr(other.network.trainable):
        return "the trainable layers differ"
    if _data(first) != _data(other):
        return "the frozen blocks or the segments differ"
    return None


def _data(member: FineTune) -> list[object]:
    """What identifies the inputs of the trainable part and their genres."""
    assert member.validation_activations is not None
    assert member.validation_segments is not None
    activations = member.train_activations, member.validation_activations
    segments = member.train_segments, member.validation_segments
    tracks = [(part.track.tolist(), part.genre.tolist(), part.n_genres) for part in segments]
    return [member.network.device, *(part.identity for part in activations), *tracks]


def _leaves(module: nn.Module) -> Iterator[nn.Module]:
    """The layers of nested `nn.Sequential`s, in order."""
    if type(module) is not nn.Sequential:
        yield module
        return
    for child in module:
        yield from _leaves(child)


class FusedFineTunes:
    """A stack of fine-tunes with the same frozen blocks, layers, batch size, precision and kind of optimizer.

    Everything else is each member's own: learning rate, momentum, weight decay, schedule, seed, mixup, masking, loss,
    and how many epochs it has done. While a fine-tune is a member, its parameters and its optimizer's tensors are views
    of the stack's, so that its state and its model can be read between epochs. It must be trained by the stack only.
    After it has left, it can be trained alone, or join another stack.

    A member takes the steps that it would take alone, up to rounding: its order, dropout, mixup and masks are drawn
    from its own seed. On a GPU, dropout draws other numbers than alone; they do not depend on the other members.
    """

    def __init__(self, members: Sequence[FineTune]) -> None:
        """Stack fine-tunes for which there is no `obstacle`."""
        self.members: list[FineTune] = []
        self.join(members)

    def join(self, members: Sequence[FineTune]) -> None:
        """Add fine-tunes, between epochs."""
        everyone = [*self.members, *members]
        assert len({id(member) for member in everyone}) == len(everyone), "a fine-tune joins once"
        assert can_fuse(everyone), obstacle(everyone)
        for member in members:
            member.initialise_head()
            share_constants(everyone[0], member)
        self._stack(everyone)

    def leave(self, member: FineTune) -> None:
        """Take a fine-tune out of the stack, between epochs. It gets tensors of its own; the others move together."""
        assert member in self.members
        _unstack(member)
        self._stack([other for other in self.members if other is not member])

    def epoch(self) -> list[EpochResult | Diverged]:
        """Train one epoch of each member and score it.

        Returns:
            A member's result in the order of `members`, or how it diverged; one that did should leave. Seconds are
            those of the stack divided by the number of members.
        """
        share = 1 / len(self.members)
        started = time.perf_counter()
        losses, arithmetic = self._train_epoch()
        trained = time.perf_counter()
        logits = self._track_logits()
        arithmetic += time.perf_counter() - trained
        results: list[EpochResult | Diverged] = []
        for member, loss, own in zip(self.members, losses, logits, strict=True):
            try:
                result = member.record(
                    loss, own, started=started, trained=trained, arithmetic_seconds=arithmetic * share
                )
            except Diverged as error:
                results.append(error)
                continue
            rate = result.samples_per_second / share
            results.append(replace(result, seconds=result.seconds * share, samples_per_second=rate))
        return results

    def _stack(self, members: list[FineTune]) -> None:
        """Copy the members' tensors into new stacks, one parameter at a time, and make theirs views of them."""
        self.members = members
        self._parameters: list[Tensor] = []
        self._state: list[list[Tensor]] = []
        if not members:
            return
        first = members[0].network
        self._layers = [layer for layer in _leaves(first.trainable) if not isinstance(layer, nn.Flatten)]
        self._is_head = [name.startswith("head.") for name, _ in first.trainable.named_parameters()]
        self._optimizer = members[0].recipe.optimizer
        self._taken = torch.stack([_steps_taken(member) for member in members])
        columns = [list(member.network.trainable.parameters()) for member in members]
        for parameters in zip(*columns, strict=True):
            self._state.append([self._stack_state(name, parameters) for name in _STATE[self._optimizer]])
            stacked = torch.stack([parameter.detach() for parameter in parameters])
            for parameter, view in zip(parameters, stacked, strict=True):
                parameter.data = view
            self._parameters.append(stacked.requires_grad_())
        self._settings = _Settings(members, self._optimizer)

    def _stack_state(self, name: str, parameters: Sequence[nn.Parameter]) -> Tensor:
        """Stack what the members' optimizers keep of this name for a parameter, [members, ...]; at first, zeros."""
        states = [
            member.optimizer.state[parameter]
            for member, parameter in zip(self.members, parameters, strict=True)
        ]
        kept = [state.get(name) for state in states]
        stacked = torch.stack(
            [
                torch.zeros_like(parameter) if own is None else own
                for own, parameter in zip(kept, parameters, strict=True)
            ]
        )
        for member, state, view, taken in zip(self.members, states, stacked, self._taken, strict=True):
            if self._optimizer == ADAMW:
                state |= {name: view, STEP: taken}
            elif member.recipe.momentum:  # without momentum, torch keeps nothing
                state[name] = view
        return stacked.detach()

    def _train_epoch(self) -> tuple[list[float], float]:
        """Train one epoch; returns each member's mean loss, and the seconds of arithmetic."""
        members, first = self.members, self.members[0]
        count, device = len(first.train_segments), first.network.device
        draws = [EpochDraws.of(member.recipe, member.epochs_done + 1, count) for member in members]
        dropout = [torch.Generator(device).manual_seed(own.seed) for own in draws]
        batches = (
            torch.stack([own.order for own in draws])
            .to(device)
            .tensor_split(steps_per_epoch(count, first.recipe), dim=1)
        )
        rates = self._learning_rates(len(batches)).to(device)
        steps = EpochSteps(
            self._step,
            [batch.shape[1] for batch in batches],
            capture=StepGraph if device.type == "cuda" else None,
            batch_axis=1,
        )
        total, arithmetic = torch.zeros(len(members), device=device), 0.0
        found = first.train_activations.batches([batch.flatten() for batch in batches])
        for batch, rows, rate in zip(batches, found, rates, strict=True):
            inputs, genre, *mixed = self._inputs(batch, rows, draws)
            masks = self._dropout_masks(inputs, dropout)
            began = time.perf_counter()
            total += steps(inputs, genre, rate, *masks, *mixed) * batch.shape[1]
            arithmetic += time.perf_counter() - began
        return (total / count).tolist(), arithmetic

    def _learning_rates(self, steps: int) -> Tensor:
        """Learning rates of the next epoch, float32 [steps, 2, members]: of the blocks, and of the head."""
        rates = np.empty((steps, 2, len(self.members)))
        for number, member in enumerate(self.members):
            recipe, done = member.recipe, member.epochs_done
            factors = [learning_rate_factor(recipe, done + (step + 0.5) / steps) for step in range(steps)]
            rates[:, 0, number] = np.multiply(recipe.learning_rate, factors)
            rates[:, 1, number] = np.multiply(recipe.learning_rate * recipe.head_lr_ratio, factors)
        return torch.from_numpy(rates).float()

    def _inputs(self, batch: Tensor, rows: Tensor, draws: Sequence[EpochDraws]) -> tuple[Tensor, ...]:
        """Prepare a step.

        Args:
            batch: indices of segments, int64 [members, batch].
            rows: their activations, [members * batch, ...].
            draws: of each member.

        Returns:
            Activations [members, batch, units] and genres [members, batch]; with mixup, also the partners' genres
            [members, batch], and the weights of the segments and of their partners, [members].
        """
        segments = self.members[0].train_segments
        inputs, genre = rows.reshape(*batch.shape, *rows.shape[1:]), segments.genre[segments.track[batch]]
        mixed: tuple[Tensor, ...] = ()
        recipes = [member.recipe for member in self.members]
        if any(recipe.mixup for recipe in recipes):
            drawn = [
                mixup_draw(batch.shape[1], alpha=recipe.mixup, random=own.augmentation)
                for recipe, own in zip(recipes, draws, strict=True)
            ]
            partner = torch.stack([one.partner for one in drawn]).to(batch.device, non_blocking=True)
            weight = torch.tensor([one.weight for one in drawn]).to(batch.device, non_blocking=True)
            inputs = _mixed(inputs, partner, weight)
            mixed = genre.gather(1, partner), weight, 1 - weight
        if any(recipe.masking for recipe in recipes):
            zero = torch.zeros((), device=batch.device)
            inputs = torch.stack(
                [
                    spec_augment(one, share=recipe.masking, fill=zero, random=own.augmentation)
                    if recipe.masking
                    else one
                    for one, recipe, own in zip(inputs, recipes, draws, strict=True)
                ]
            )
        return inputs.flatten(2), genre, *mixed

    def _dropout_masks(self, inputs: Tensor, generators: Sequence[torch.Generator]) -> list[Tensor]:
        """For each dropout, factors of its input [members, batch, units]: 0, or 1 / (1 - p).

        As in a single network on a CPU, each is drawn by its own call, layer by layer.
        """
        masks, units = [], inputs.shape[2]
        for layer in self._layers:
            if isinstance(layer, nn.Linear):
                units = layer.out_features
            elif isinstance(layer, nn.Dropout) and layer.p:
                mask = inputs.new_empty((*inputs.shape[:2], units))
                for own, generator in zip(mask, generators, strict=True):
                    own.bernoulli_(1 - layer.p, generator=generator)
                masks.append(mask.div_(1 - layer.p))
        return masks

    def _step(self, inputs: Tensor, genre: Tensor, rates: Tensor, *others: Tensor) -> Tensor:
        """Take a step of each member; on a GPU, without synchronization.

        Args:
            inputs: activations, [members, batch, units].
            genre: of each segment, int64 [members, batch].
            rates: learning rates of the blocks and of the head, [2, members].
            others: see `_dropout_masks`, then what `_inputs` returns for mixup.

        Returns:
            Each member's loss before the step, [members].
        """
        dropouts = sum(isinstance(layer, nn.Dropout) and layer.p > 0 for layer in self._layers)
        masks, mixed = others[:dropouts], others[dropouts:]
        logits = self._forward(inputs, masks)
        losses = self._settings.losses(logits, genre)
        if mixed:
            partner, own_weight, partner_weight = mixed
            losses = own_weight * losses + partner_weight * self._settings.losses(logits, partner)
        # no member's loss depends on another's parameters
        gradients = torch.autograd.grad(losses.sum(), self._parameters)
        with torch.no_grad():
            self._taken += 1
            for parameter, gradient, state, is_head in zip(
                self._parameters, gradients, self._state, self._is_head, strict=True
            ):
                self._update(parameter, gradient, state, rates[int(is_head)])
        return losses.detach()

    def _forward(self, inputs: Tensor, masks: Sequence[Tensor] = ()) -> Tensor:
        """Activations [members, batch, units] -> float32 logits [members, batch, genres]; dropout only with masks.

        Activations are stored as [units, batch], so that the gradient of a weight has its memory layout.
        """
        recipe, parameters, drops = self.members[0].recipe, iter(self._parameters), iter(masks)
        with torch.autocast(inputs.device.type, torch.bfloat16, enabled=recipe.precision == "bfloat16"):
            activations = inputs.mT
            for layer in self._layers:
                if isinstance(layer, nn.Linear):
                    weight = next(parameters)
                    activations = (
                        torch.bmm(weight, activations)
                        if layer.bias is None
                        else torch.baddbmm(next(parameters).unsqueeze(2), weight, activations)
                    )
                elif isinstance(layer, nn.ReLU):
                    activations = F.relu(activations)
                elif isinstance(layer, nn.Dropout) and layer.p and masks:
                    activations = activations * next(drops).mT
        return activations.mT.float()

    def _update(self, parameter: Tensor, gradient: Tensor, state: list[Tensor], rate: Tensor) -> None:
        """Take the optimizer's step for one parameter, [members, ...], with a rate for each member."""
        settings = self._settings
        rate, momentum, decay = (
            _as_factor(values, parameter) for values in (rate, settings.momentum, settings.weight_decay)
        )
        if self._optimizer == ADAMW:
            mean, square = state
            first, second = (
                _as_factor(1 - beta ** self._taken.double(), parameter).float()
                for beta in (settings.momentum.double(), BETA2)
            )
            parameter.mul_(1 - rate * decay)
            mean.lerp_(gradient, 1 - momentum)
            square.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)
            deviation = square.sqrt().div_(second.sqrt()).add_(ADAMW_EPSILON)
            parameter.addcmul_(mean / deviation, -rate / first)
            return
        (buffer,) = state
        if settings.decays:
            gradient.addcmul_(parameter, decay)
        torch.addcmul(gradient, buffer, momentum, out=buffer)
        update = buffer
        if settings.any_nesterov:
            nesterov = _as_factor(settings.nesterov, parameter)
            update = torch.where(nesterov, gradient.addcmul_(buffer, momentum), buffer)
        parameter.addcmul_(update, -rate)

    @torch.no_grad()
    def _track_logits(self) -> list[Tensor]:
        """The members' logits of the validation tracks, each [tracks, genres], on the CPU."""
        first = self.members[0]
        segments, activations = first.validation_segments, first.validation_activations
        assert segments is not None
        assert activations is not None
        count, device = len(self.members), first.network.device
        parts = torch.split(torch.arange(len(segments), device=device), VALIDATION_BATCH)
        logits = torch.cat(
            [self._forward(rows.flatten(1).expand(count, -1, -1)) for rows in activations.batches(parts)],
            dim=1,
        ).cpu()
        return [mean_over_tracks(own, segments) for own in logits]


class _Settings:
    """The members' settings as tensors, and flags of the terms that no member needs."""

    def __init__(self, members: Sequence[FineTune], optimizer: str) -> None:
        recipes, device = [member.recipe for member in members], members[0].network.device

        def column(values: list[float]) -> Tensor:
            return torch.tensor(values, device=device)

        self.momentum = column([recipe.momentum for recipe in recipes])
        """[members]; of AdamW, beta1."""
        self.weight_decay = column([recipe.weight_decay for recipe in recipes])
        self.nesterov = column([recipe.nesterov for recipe in recipes]).bool()
        self._smoothing = column([recipe.label_smoothing for recipe in recipes])
        ones = torch.ones(members[0].train_segments.n_genres, device=device)
        self._genre_weights = torch.stack(
            [ones if member.genre_weights is None else member.genre_weights for member in members]
        )
        """[members, genres]"""
        self.decays = any(recipe.weight_decay for recipe in recipes)
        self.any_nesterov = any(recipe.nesterov for recipe in recipes)
        self._smooths = any(recipe.label_smoothing for recipe in recipes)

    def losses(self, logits: Tensor, genre: Tensor) -> Tensor:
        """Cross-entropies [members] as torch defines them with genre weights and label smoothing.

        Args:
            logits: float32 [members, batch, genres].
            genre: int64 [members, batch].
        """
        logs = F.log_softmax(logits, dim=2)
        weights = self._genre_weights.gather(1, genre)
        losses = -(logs.gather(2, genre.unsqueeze(2)).squeeze(2) * weights).sum(dim=1)
        if self._smooths:
            spread = -(logs * self._genre_weights.unsqueeze(1)).sum(dim=(1, 2)) / logs.shape[2]
            losses = (1 - self._smoothing) * losses + self._smoothing * spread
        return losses / weights.sum(dim=1)


def _as_factor(values: Tensor, of: Tensor) -> Tensor:
    """Values [members] in the shape that multiplies a tensor [members, ...]."""
    return values.reshape(-1, *[1] * (of.dim() - 1))


def _mixed(inputs: Tensor, partner: Tensor, weight: Tensor) -> Tensor:
    """Mix activations [members, batch, ...] with those of their partners, int64 [members, batch].

    Args:
        weight: of the segments themselves, float32 [members].
    """
    share = _as_factor(weight, inputs)
    member = torch.arange(len(inputs), device=inputs.device).unsqueeze(1)
    return (share * inputs + (1 - share) * inputs[member, partner]).to(inputs.dtype)


def _steps_taken(member: FineTune) -> Tensor:
    """Number of steps of AdamW, float32 []; 0 for SGD, which does not count them."""
    parameter = next(member.network.trainable.parameters())
    taken: Tensor | None = member.optimizer.state[parameter].get(STEP)
    return torch.zeros((), device=parameter.device) if taken is None else taken


def _unstack(member: FineTune) -> None:
    """Give a fine-tune tensors of its own."""
    for parameter in member.network.trainable.parameters():
        parameter.data = parameter.data.clone()
        state = member.optimizer.state[parameter]
        state |= {name: tensor.clone() for name, tensor in state.items() if tensor is not None}
