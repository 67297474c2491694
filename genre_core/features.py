"""Activations at the cut: computed once for all segments where memory allows, else at each look-up."""

import time

from torch import Tensor

from genre_core.backbones import Network


class Features:
    """What the trained part of a network sees of each segment.

    The frozen blocks never change, so their activations are constants of a fine-tune and computing them
    once is exact. Without frozen blocks, or where they do not fit `budget_bytes`, each look-up computes.
    """

    def __init__(self, network: Network, mels: Tensor, *, budget_bytes: int) -> None:
        """Args: the cut network, log-mel segments in dB [segments, channels, mels, frames], bytes to use."""
        self._network = network
        self._mels = mels
        started = time.perf_counter()
        self._activations = self._computed_once(budget_bytes) if len(network.frozen) else None
        self.seconds = time.perf_counter() - started

    @property
    def kind(self) -> str:
        """`none` without frozen blocks, `shared` by all epochs where held, else `computed` at each look-up."""
        if not len(self._network.frozen):
            return "none"
        return "computed" if self._activations is None else "shared"

    def __getitem__(self, segments: Tensor) -> Tensor:
        """Activations at the cut of the segments with these indices, int64 [batch] -> float32 [batch, ...]."""
        if self._activations is not None:
            return self._activations[segments]
        return self._network.to_cut(self._mels[segments])

    def _computed_once(self, budget_bytes: int) -> Tensor | None:
        if self._network.bytes_at_cut(self._mels[:1]) * len(self._mels) > budget_bytes:
            return None
        return self._network.to_cut(self._mels)
