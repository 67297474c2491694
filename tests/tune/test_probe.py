"""The probe times one batch of each backbone, within its time, and leaves the process as it was."""

import pytest
import torch

from search.engine.costs import Workload
from search.tune.probe import Setting, probe

SETTING = Setting(device="cpu", threads=1, precision="float32", mels=64, frames=64)
WORK = Workload(train_segments=10, validation_segments=5, pixels=64 * 64, batch_size=2)


def test_an_epoch_is_its_steps_and_a_pass_through_the_validation_part() -> None:
    device, [cost] = probe(["resnet18"], SETTING, WORK, limit_seconds=0.0)
    assert (device, cost.backbone, cost.frozen_blocks) == ("cpu", "resnet18", 0)
    assert cost.pass_seconds is not None
    assert cost.epoch_seconds > cost.pass_seconds > 0


def test_the_number_of_threads_is_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    used: list[int] = []
    monkeypatch.setattr(torch, "get_num_threads", lambda: 7)
    monkeypatch.setattr(torch, "set_num_threads", used.append)
    probe(["resnet18"], SETTING, WORK, limit_seconds=0.0)
    assert used == [SETTING.threads, 7]


def test_backbones_that_would_take_too_long_are_left_out() -> None:
    _, costs = probe(["vgg19", "resnet18", "densenet121"], SETTING, WORK, limit_seconds=0.0)
    assert [cost.backbone for cost in costs] == ["resnet18"]
    _, costs = probe(["densenet121", "resnet18"], SETTING, WORK, limit_seconds=100.0)
    assert [cost.backbone for cost in costs] == ["resnet18", "densenet121"]
