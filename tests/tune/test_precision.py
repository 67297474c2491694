"""The precision of a search: decided once by what its GPUs compute natively, and the same for all of its trials."""

from collections.abc import Callable, Sequence
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from ray.exceptions import RayError
from rich.console import Console
from without_ray import searches_in_process

from search.config.schema import SearchConfig
from search.display.progress import Display
from search.run.folder import RunFolder
from search.run.tables import read_trials
from search.tune import plan, precision, search

T4, V100, A100, H100 = (7, 5), (7, 0), (8, 0), (9, 0)


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Callable[[Sequence[tuple[int, int]]], None]:
    """Pretends that this process sees GPUs with these compute capabilities, as PyTorch reports them."""

    def see(capabilities: Sequence[tuple[int, int]]) -> None:
        selected = [0]

        class Device:
            def __init__(self, number: int) -> None:
                self._number = number

            def __enter__(self) -> None:
                selected.append(self._number)

            def __exit__(self, *_: object) -> None:
                selected.pop()

        def supported(including_emulation: bool = True) -> bool:
            return including_emulation or capabilities[selected[-1]] >= (8, 0)

        monkeypatch.setattr(torch.cuda, "device", Device)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: len(capabilities))
        monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda number: capabilities[number])
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda number: f"GPU {capabilities[number]}")

    return see


@pytest.mark.parametrize(
    ("capabilities", "expected"),
    [
        ([A100], "bfloat16"),
        ([H100, A100], "bfloat16"),
        ([T4], "float32"),
        ([V100], "float32"),
        ([A100, T4], "float32"),
        ([], "bfloat16"),
    ],
    ids=["A100", "H100 and A100", "T4", "V100", "A100 and T4", "none known yet"],
)
def test_auto_is_bfloat16_where_every_gpu_computes_it_natively(
    capabilities: Sequence[tuple[int, int]],
    expected: str,
    gpus: Callable[[Sequence[tuple[int, int]]], None],
) -> None:
    gpus(capabilities)
    made = precision.decided(SearchConfig(), gpus=0.25, support=precision.gpus_of_this_process)
    assert made.precision == expected


@pytest.mark.parametrize(
    ("given", "trial_gpus", "expected"),
    [("auto", 0.0, "float32"), ("float32", 1.0, "float32"), ("bfloat16", 1.0, "bfloat16")],
)
def test_gpus_are_not_asked_where_they_do_not_decide(given: Any, trial_gpus: float, expected: str) -> None:
    def support() -> list[bool]:
        raise AssertionError("no GPU is to be asked")

    config = SearchConfig(precision=given)
    assert precision.decided(config, gpus=trial_gpus, support=support).precision == expected


@pytest.mark.parametrize(
    ("given", "capabilities", "device", "named"),
    [
        ("bfloat16", [T4], "cuda", "GPU (7, 5)"),
        ("bfloat16", [A100], "cuda", None),
        ("float32", [T4], "cuda", None),
        ("float32", [], "cpu", None),
    ],
)
def test_a_worker_that_emulates_the_searchs_precision_says_so_in_one_line(
    given: str,
    capabilities: Sequence[tuple[int, int]],
    device: str,
    named: str | None,
    gpus: Callable[[Sequence[tuple[int, int]]], None],
) -> None:
    gpus(capabilities)
    line = precision.emulation(given, device)
    if named is None:
        assert line is None
    else:
        assert line is not None
        assert "\n" not in line
        assert [words for words in (named, "bfloat16", "precision=float32") if words not in line] == []


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("flags\t\t: fpu avx512f avx512_bf16\n", True),
        ("flags\t\t: fpu amx_bf16 amx_tile\n", True),
        ("Features\t: fp asimd bf16\n", True),
        ("flags\t\t: fpu avx2\n", False),
        ("", False),
        (None, False),
    ],
)
def test_a_processor_computes_bfloat16_if_its_flags_say_so(
    content: str | None, expected: bool, tmp_path: Path
) -> None:
    info = tmp_path / "cpuinfo"
    if content is not None:
        info.write_text(content)
    assert precision.cpu_computes_bfloat16(info) is expected


class Cluster:
    """Stands for Ray: nodes whose tasks answer, fail or wait."""

    def __init__(self, **answers: list[bool] | RayError | None) -> None:
        self.nodes_with_gpus = answers
        self.cancelled: list[str] = []
        self.asked: dict[str, Any] = {}

    def nodes(self) -> list[dict[str, Any]]:
        """Those with GPUs, one without and a dead one."""
        found: list[dict[str, Any]] = [
            {"NodeID": name, "Alive": True, "Resources": {"GPU": 2.0}} for name in self.nodes_with_gpus
        ]
        found.append({"NodeID": "without", "Alive": True, "Resources": {"CPU": 4.0}})
        return [*found, {"NodeID": "dead", "Alive": False, "Resources": {"GPU": 2.0}}]

    def remote(self, **options: Any) -> Callable[[object], SimpleNamespace]:
        """A task that returns the name of the node that it is pinned to."""
        self.asked = options
        return lambda _: SimpleNamespace(
            options=lambda scheduling_strategy: SimpleNamespace(remote=lambda: scheduling_strategy)
        )

    def wait(self, names: list[str], *, num_returns: int, timeout: float) -> tuple[list[str], list[str]]:
        """The nodes that answer or fail, and the others."""
        ready = [name for name in names if self.nodes_with_gpus[name] is not None]
        return ready, [name for name in names if name not in ready]

    def get(self, name: str) -> Any:
        """The answer of a node."""
        if isinstance(answer := self.nodes_with_gpus[name], RayError):
            raise answer
        return answer

    def cancel(self, name: str) -> None:
        """Remember it."""
        self.cancelled.append(name)


@pytest.mark.parametrize(
    ("answers", "expected", "cancelled"),
    [
        ({"a": [True], "b": [False]}, [True, False], []),
        ({"a": [True], "b": RayError("b")}, [True], []),
        ({"a": None, "b": [True]}, [True], ["a"]),
        ({}, [], []),
    ],
    ids=["all answer", "one fails", "one is busy", "no GPU yet"],
)
def test_each_node_of_a_cluster_with_gpus_is_asked_in_a_process_that_sees_one(
    answers: dict[str, Any], expected: list[bool], cancelled: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cluster = Cluster(**answers)
    monkeypatch.setattr(precision, "NodeAffinitySchedulingStrategy", lambda node, soft: node)
    monkeypatch.setattr(precision, "ray", cluster)
    assert precision.gpus_of_cluster() == expected
    assert cluster.asked["num_gpus"] > 0, "or Ray hides all GPUs from it"
    assert cluster.cancelled == cancelled


@pytest.mark.parametrize(("native", "expected"), [([True], "bfloat16"), ([True, False], "float32")])
def test_the_precision_that_a_search_decided_is_recorded_and_that_of_all_of_its_trials(
    native: list[bool],
    expected: str,
    tiny: Callable[..., SearchConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked: list[str] = []

    def support() -> list[bool]:
        asked.append("asked")
        return native

    monkeypatch.setattr(precision, "gpus_of_this_machine", support)
    monkeypatch.setattr(plan, "_local_capacity", lambda _: (1, 0.25))
    monkeypatch.setattr(plan, "probe", lambda *_, **__: ("GPU", []))
    monkeypatch.setattr("ray.is_initialized", lambda: False)  # other tests may have started one
    display = Display(Console(file=StringIO()), trials=4)
    with searches_in_process():
        search.run(tiny(), folder=tmp_path / "r", cache=tmp_path, reporter=display)
    assert yaml.safe_load(RunFolder(tmp_path / "r").config.read_text())["precision"] == expected
    assert set(read_trials(tmp_path / "r")["precision"]) == {expected}
    assert len(asked) == 1
