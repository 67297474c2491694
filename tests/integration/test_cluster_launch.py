"""The cluster of cluster-local.yaml is launched, used and shut down by Ray's commands, and that of cluster.yaml grows.

The machines are namespaces of this one. Their files differ from the originals in the addresses, in Ray's memory, and
in that no package is installed.
"""

import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import ray
import torch
import torchvision
import yaml
from machines import Machine, can_make_machines, machines

from search.config.schema import SearchConfig, to_yaml
from search.run.tables import read_epochs, read_trials

ROOT = Path(__file__).parents[2]
ADDRESSES = {"laptop": "10.77.0.2", "head": "10.77.0.10", "one": "10.77.0.11", "two": "10.77.0.12"}
SMALL = "--object-store-memory=150000000"
KNOCK = f"{sys.executable} -c 'import socket; socket.create_connection((\"{{}}\", {{}}), timeout=2)'"


pytestmark = pytest.mark.skipif(
    not can_make_machines(), reason="needs the right to make network namespaces, and iproute2"
)


@pytest.fixture
def lan(tmp_path: Path) -> Iterator[dict[str, Machine]]:
    with machines(tmp_path, ADDRESSES) as started:
        yield started


@pytest.fixture
def launcher(lan: dict[str, Machine]) -> Callable[..., str]:
    """Run one of Ray's commands on the laptop in the project's root; return its output."""

    def call(command: str, code: int = 0) -> str:
        path = (
            f"export PATH={Path(sys.executable).parent}:$PATH RAY_USAGE_STATS_ENABLED=0 RAY_AUTH_MODE=token"
        )
        done = lan["laptop"].run(f"{path}; ray {command}", cwd=ROOT)
        assert done.returncode == code, done.stdout
        return done.stdout

    return call


def _cluster_file() -> dict[str, Any]:
    """cluster-local.yaml, adapted to these machines."""
    cluster: dict[str, Any] = yaml.safe_load((ROOT / "cluster-local.yaml").read_text())
    cluster["provider"] |= {"head_ip": ADDRESSES["head"], "worker_ips": [ADDRESSES["one"], ADDRESSES["two"]]}
    cluster["setup_commands"][:2] = [f"ln -sfn {sys.prefix} ~/genre-search-venv"]
    cluster["head_start_ray_commands"][1] += f" {SMALL}"
    cluster["worker_start_ray_commands"][1] += f" {SMALL} --num-cpus=1"
    return cluster


@pytest.mark.long
def test_a_local_cluster_is_launched_runs_a_search_and_is_shut_down(
    lan: dict[str, Machine],
    launcher: Callable[..., str],
    music: Path,
    tiny: Callable[..., SearchConfig],
    tmp_path: Path,
) -> None:
    laptop = lan["laptop"]
    cluster = laptop.home / "cluster.yaml"
    cluster.write_text(yaml.safe_dump(_cluster_file()))
    (laptop.home / ".ssh").mkdir()
    (laptop.home / ".ssh" / "id_ed25519").touch()
    shutil.copytree(music, laptop.home / "music")
    weights = tmp_path / "weights" / "resnet18.pth"
    weights.parent.mkdir()
    torch.save(torchvision.models.resnet18().state_dict(), weights)
    (laptop.home / "music" / "tiny.yaml").write_text(
        to_yaml(tiny(trials=3, workers=2, trials_per_gpu=0, weights=str(weights)))
    )
    for worker in ("one", "two"):
        assert lan[worker].run(f"mount -t tmpfs none {weights.parent}").returncode == 0

    launcher("get-auth-token --generate")
    launcher(f"up --yes {cluster}")
    launcher(f"rsync-up {cluster} ~/music/ '~/music/'")
    search = (
        "genre-search run --config ~/music/tiny.yaml --address auto --data ~/music --runs ~/runs --name tiny"
    )
    log = launcher(f"exec {cluster} 'ray job submit --submission-id tiny -- {search}'")
    assert "Job 'tiny' succeeded" in log

    # the dashboard answers neither without the token nor to another machine
    list_jobs = "RAY_AUTH_MODE=disabled ray job list --address http://127.0.0.1:8265"
    refused = launcher(f"exec {cluster} '{list_jobs}'", code=1)
    assert "Missing authentication token" in refused
    assert lan["head"].run(KNOCK.format("127.0.0.1", 8265)).returncode == 0
    assert lan["one"].run(KNOCK.format(ADDRESSES["head"], 6379)).returncode == 0
    assert lan["one"].run(KNOCK.format(ADDRESSES["head"], 8265)).returncode != 0

    launcher(f"rsync-down {cluster} '~/runs/' {laptop.home}/runs/")
    trials = read_trials(laptop.home / "runs" / "tiny")
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED"}
    assert len(trials) == 3
    assert set(trials["node"]) == {"one", "two"}
    assert len(read_epochs(laptop.home / "runs" / "tiny")) == trials["epochs"].sum()
    assert [*lan["head"].home.rglob("weights-*.pth")], "workers received weights that they had no file of"

    launcher(f"down --yes {cluster}")
    assert "raylet" not in lan["head"].run("ps -e").stdout


DEFAULTS = Path(ray.__file__).parent / "autoscaler" / "local" / "defaults.yaml"
FAKE_HEAD = "f" * 51 + "00000"
"""Id of the head in Ray's node provider for tests."""
GROWING = {
    "provider": {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "gcs_address": f"{ADDRESSES['head']}:6379",
        "head_node_id": FAKE_HEAD,
        "launch_multiple": True,
        "disable_node_updaters": True,
    },
    **{key: {} for key in ("docker", "auth", "file_mounts")},
    **{key: [] for key in ("setup_commands", "head_setup_commands")},
}
"""Replaces AWS: workers are Ray nodes on the same machine, started on demand."""


@pytest.mark.long
def test_a_growing_cluster_starts_workers_only_when_trials_need_them(
    lan: dict[str, Machine], music: Path, tiny: Callable[..., SearchConfig]
) -> None:
    head = lan["head"]
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    types = cluster["available_node_types"]
    types["gpu"]["resources"] = {"CPU": 1, "object_store_memory": 150_000_000}
    renamed = {
        "head_node_type": "ray.head.default",
        "available_node_types": {"ray.head.default": types["head"], "gpu": types["gpu"]},
    }
    (head.home / "ray_bootstrap_config.yaml").write_text(
        yaml.safe_dump(yaml.safe_load(DEFAULTS.read_text()) | cluster | renamed | GROWING)
    )
    (head.home / "tiny.yaml").write_text(to_yaml(tiny(trials=3, workers=2, trials_per_gpu=0)))
    fake = (
        f"RAY_FAKE_CLUSTER=1 AUTOSCALER_UPDATE_INTERVAL_S=1 RAY_enable_autoscaler_v2=1 "
        f"RAY_CLOUD_INSTANCE_ID={FAKE_HEAD} RAY_OVERRIDE_NODE_ID_FOR_TESTING={FAKE_HEAD}"
    )
    path = f"export PATH={Path(sys.executable).parent}:$PATH RAY_AUTH_MODE=token"
    start = f"{cluster['head_start_ray_commands'][1]} {SMALL} --num-cpus=0 --num-gpus=0"
    search = f"genre-search run --config tiny.yaml --address auto --data {music} --runs runs --name tiny"
    count = "python -c 'import ray; ray.init(\"auto\", logging_level=50); print(len(ray.nodes()))'"

    begun = head.run(f"{path}; ray get-auth-token --generate && (export {fake}; {start}) && {count}")
    assert begun.stdout.splitlines()[-1] == "1", begun.stdout
    done = head.run(f"{path}; {search}; {count}")
    assert done.stdout.splitlines()[-1] == "3", done.stdout
    trials = read_trials(head.home / "runs" / "tiny")
    assert set(trials["state"]) <= {"COMPLETE", "PRUNED"}
    assert len(trials) == 3
