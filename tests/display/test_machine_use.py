"""The use of this machine: that of its GPUs where nvidia-smi reports it, otherwise that of its CPU."""

import re

import pytest

from search.display.machine_use import EVERY_SECONDS, MachineUse, gpu_use


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("97, 2048, 81920\n", ("GPU 97%", "2.0/80 GiB")),
        ("100, 1024, 81920\n50, 1024, 81920\n", ("2 GPUs 75%", "2.0/160 GiB")),
        ("[N/A], 2048, 81920\n", None),
        ("", None),
        ("No devices were found\n", None),
    ],
)
def test_the_output_of_nvidia_smi_is_read(text: str, found: tuple[str, str] | None) -> None:
    assert gpu_use(text) == found


def test_without_a_gpu_the_cpu_and_its_memory_are_shown() -> None:
    use, memory = MachineUse(gpus=lambda: None).parts()
    assert re.fullmatch(r"CPU \d+%", use)
    used, total = map(float, memory.removesuffix(" GiB").split("/"))
    assert 0 < used <= total + 1


def test_the_use_is_measured_at_intervals() -> None:
    now, asked = [0.0], []

    def gpus() -> str:
        asked.append(now[0])
        return "1, 1024, 2048"

    use = MachineUse(gpus=gpus, clock=lambda: now[0])
    for moment in (0.0, EVERY_SECONDS / 2, EVERY_SECONDS, EVERY_SECONDS * 1.5):
        now[0] = moment
        assert use.parts() == ("GPU 1%", "1.0/2 GiB")
    assert asked == [0.0, EVERY_SECONDS]
