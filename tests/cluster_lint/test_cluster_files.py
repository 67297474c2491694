"""A cluster file is judged before it is launched: ours are faultless, and each fault that one may have is named."""

import re
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from genre_core.errors import InputError
from search.cluster_lint.ray_up import check

ROOT = Path(__file__).parents[2]
OURS = ["cluster.yaml", "cluster-local.yaml", "kubernetes/rayjob.yaml"]
GONE = object()

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="our files name the Python 3.11 of the images"
)


@pytest.mark.parametrize("name", OURS)
def test_our_own_files_have_no_problem(name: str) -> None:
    assert check(ROOT / name) == []


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster-local.yaml"])
def test_what_ray_up_makes_of_our_files_is_valid_to_it(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)
    cluster = yaml.safe_load((ROOT / name).read_text())
    validate_config(prepare_config(cluster))
    for local in cluster["file_mounts"].values():
        assert local == "~/.ray/auth_token" or (ROOT / local).exists()


def test_nodes_get_the_ray_of_the_constraints() -> None:
    constraint = f"ray=={version('ray')}"
    assert constraint in (ROOT / "constraints.txt").read_text().splitlines()


Path_ = tuple[str | int, ...]


def _set(tree: Any, place: Path_, value: object) -> None:
    for key in place[:-1]:
        tree = tree[key]
    if value is GONE:
        del tree[place[-1]]
    elif callable(value):
        tree[place[-1]] = value(tree[place[-1]])
    else:
        tree[place[-1]] = value


def _instead(old: str, new: str) -> Callable[[str], str]:
    return lambda text: text.replace(old, new)


HEAD = ("available_node_types", "head")
GPU = ("available_node_types", "gpu")
START = ("head_start_ray_commands", 1)
JOIN = ("worker_start_ray_commands", 1)
WORLD = {"FromPort": 22, "ToPort": 22, "IpProtocol": "tcp", "IpRanges": [{"CidrIp": "0.0.0.0/0"}]}
RAY = version("ray")

LAUNCHER: list[tuple[Path_, object, str]] = [
    (START, _instead("RAY_AUTH_MODE=token", ""), "head_start_ray_commands must set RAY_AUTH_MODE=token"),
    (START, _instead("=token", "=disabled"), "but got RAY_AUTH_MODE=disabled"),
    (JOIN, _instead("RAY_AUTH_MODE=token", ""), "worker_start_ray_commands must set RAY_AUTH_MODE=token"),
    (("head_start_ray_commands",), GONE, "head_start_ray_commands must be given"),
    (
        ("file_mounts", "/home/ray/.ray/auth_token"),
        GONE,
        "file_mounts must bring the token to /.ray/auth_token",
    ),
    (
        START,
        _instead("RAY_AUTH_MODE", "RAY_AUTH_TOKEN=0123 RAY_AUTH_MODE"),
        "the token must not stand in the file",
    ),
    (START, _instead("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH=/x/t RAY_AUTH_MODE"), "bring the token to /x/t"),
    (START, _instead("127.0.0.1", "0.0.0.0"), "--dashboard-host must be 127.0.0.1, but got 0.0.0.0"),
    (("provider", "security_group"), {"IpPermissions": [WORLD]}, "but got 0.0.0.0/0; allow your own address"),
    ((*GPU, "node_config", "SecurityGroupIds"), GONE, "gpu.node_config must have SecurityGroupIds"),
    ((*HEAD, "node_config", "ImageId"), GONE, "head.node_config must have an ImageId"),
    (("docker", "image"), "rayproject/ray", "must be pinned"),
    (("docker", "image"), "rayproject/ray:latest", "must be pinned"),
    (("docker", "image"), "rayproject/ray:nightly-py311-cu128", "must be pinned"),
    (("docker", "image"), f"rayproject/ray-ml:{RAY}-py311-gpu", "ray-ml has ended"),
    (("docker", "image"), "rayproject/ray:2.9.3-py311-cu121", f"this machine's Ray {RAY}, but got 2.9.3"),
    (
        ("docker", "worker_image"),
        f"rayproject/ray:{RAY}-py39",
        "docker.worker_image must have this machine's Python",
    ),
    (("setup_commands", 0), _instead("python3.11", "python3.8"), "this machine's Python 3.11, but got 3.8"),
    (("setup_commands", 2), _instead("--constraint constraints.txt ", ""), "must install genre-search with"),
    (
        ("setup_commands", 3),
        _instead("grep", "pip install ray[default]==2.9.3; grep"),
        "Ray 2.60.0, but got 2.9.3",
    ),
    ((*HEAD, "resources"), {}, "the head must offer no CPU to trials, but got CPU: none"),
    ((*HEAD, "resources", "CPU"), 4, "the head must offer no CPU to trials, but got CPU: 4"),
    ((*HEAD, "resources", "GPU"), 1, "the head must offer no GPU to trials, but got GPU: 1"),
    ((*HEAD, "node_config", "InstanceType"), "g6.xlarge", "head must have no GPU, which no trial would use"),
    ((*HEAD, "node_config", "InstanceMarketOptions"), {"MarketType": "spot"}, "head must be on demand"),
    ((*GPU, "min_workers"), 1, "gpu.min_workers must be 0 for spot instances, but got 1"),
    ((*GPU, "max_workers"), 0, "max_workers must be at least 1"),
    (("max_workers",), 0, "max_workers must be at least 1"),
    (("idle_timeout_minutes",), GONE, "idle_timeout_minutes must be given, but got none"),
    (("idle_timeout",), 5, "idle_timeout is not a key that Ray knows; did you mean idle_timeout_minutes?"),
    ((*GPU, "colour"), "red", "available_node_types.gpu.colour is not a key that Ray knows"),
    (("max_workers",), "four", "max_workers does not have its shape: 'four' is not of type 'integer'"),
    (("provider",), GONE, "'provider' is a required property"),
    (("head_node_type",), "haed", "head_node_type does not have its shape: 'haed' is not one of"),
    (("available_node_types", 1), {}, "keys must be text, but got available_node_types.1; quote it"),
]

SPEC = ("spec", "rayClusterSpec")
K8S_HEAD = (*SPEC, "headGroupSpec")
K8S_GPU = (*SPEC, "workerGroupSpecs", 0)
RAY_HEAD = (*K8S_HEAD, "template", "spec", "containers", 0)
LITERAL = [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "value": "0123"}]

KUBERNETES: list[tuple[Path_, object, str]] = [
    ((*SPEC, "authOptions"), GONE, "authOptions.mode must be token, but got none"),
    ((*SPEC, "authOptions", "mode"), "disabled", "authOptions.mode must be token, but got disabled"),
    ((*RAY_HEAD, "env"), LITERAL, "RAY_AUTH_TOKEN must come from a secret"),
    ((*SPEC, "rayVersion"), "2.9.3", f"rayVersion must have this machine's Ray {RAY}, but got 2.9.3"),
    ((*RAY_HEAD, "image"), "genre-search:latest", "ray-head.image must be pinned"),
    ((*K8S_GPU, "template", "spec", "containers", 0, "image"), f"x:{RAY}-py39", "Python 3.11, but got 3.9"),
    ((*K8S_HEAD, "rayStartParams"), {}, 'num-cpus must be "0", but got none'),
    ((*RAY_HEAD, "resources", "limits", "nvidia.com/gpu"), 1, "headGroupSpec must have no GPU"),
    ((*K8S_HEAD, "serviceType"), "LoadBalancer", "serviceType must be ClusterIP, but got LoadBalancer"),
    ((*K8S_HEAD, "enableIngress"), True, "enableIngress must be false"),
    ((*SPEC, "enableInTreeAutoscaling"), GONE, "enableInTreeAutoscaling must be true, but got none"),
    ((*SPEC, "autoscalerOptions"), {}, "idleTimeoutSeconds must be given"),
    ((*K8S_GPU, "maxReplicas"), 0, "workerGroupSpecs must allow a worker"),
    ((*K8S_GPU, "minReplicas"), 2, "minReplicas of gpu must be 0, but got 2"),
    (("spec", "shutdownAfterJobFinishes"), GONE, "shutdownAfterJobFinishes must be true, but got none"),
    (SPEC, GONE, "'rayClusterSpec' is a required property"),
    ((*RAY_HEAD, "image"), GONE, "'image' is a required property"),
]


def _case(case: object) -> str:
    return re.sub(r"\W+", "-", case) if isinstance(case, str) else ""


@pytest.mark.parametrize(("place", "value", "words"), LAUNCHER, ids=_case)
def test_one_fault_in_our_cluster_file_is_the_one_problem_named(
    place: Path_, value: object, words: str, tmp_path: Path
) -> None:
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    _set(cluster, place, value)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(cluster))
    (problem,) = check(tmp_path / "c.yaml")
    assert words in problem
    assert "\n" not in problem


@pytest.mark.parametrize(("place", "value", "words"), KUBERNETES, ids=_case)
def test_one_fault_in_our_manifest_is_the_one_problem_named(
    place: Path_, value: object, words: str, tmp_path: Path
) -> None:
    volume, job = yaml.safe_load_all((ROOT / "kubernetes" / "rayjob.yaml").read_text())
    _set(job, place, value)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump_all([volume, job]))
    (problem,) = check(tmp_path / "c.yaml")
    assert words in problem


def test_a_token_from_a_secret_is_as_good_as_the_operators_and_a_ray_cluster_is_judged_as_a_job_is(
    tmp_path: Path,
) -> None:
    _, job = yaml.safe_load_all((ROOT / "kubernetes" / "rayjob.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    del cluster["authOptions"]
    secret = {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "auth_token"}}}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        group["template"]["spec"]["containers"][0]["env"] = [LITERAL[0], secret]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"kind": "RayCluster", "spec": cluster}))
    assert check(tmp_path / "c.yaml") == []


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a: [1", "must be YAML, but is not at line 1"),
        ("", "must hold keys and values, but holds nothing"),
        ("- a", "must hold keys and values, but holds a list"),
        ("kind: Ingress", "must not be reached from outside"),
        ("{kind: Service, spec: {type: NodePort}}", "a Service must be a ClusterIP, but got NodePort"),
        ("{kind: RayJob}", "'spec' is a required property"),
        ("{kind: ConfigMap}", None),
    ],
    ids=str,
)
def test_what_is_no_cluster_file_is_called_so(text: str, words: str | None, tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text(text)
    problems = check(tmp_path / "c.yaml")
    assert len(problems) == (words is not None)
    assert words is None or words in problems[0]


@pytest.mark.parametrize(
    ("setting", "words"),
    [
        ("--num-cpus=0", "the head must offer no CPU to trials, but got CPU: none"),
        ("RAY_enable_autoscaler_v2=0", "must set RAY_enable_autoscaler_v2=0, but do not"),
    ],
)
def test_own_machines_need_neither_image_nor_idle_timeout_but_this_setting(
    setting: str, words: str, tmp_path: Path
) -> None:
    text = (ROOT / "cluster-local.yaml").read_text()
    assert text.count(setting) == 1
    (tmp_path / "c.yaml").write_text(text.replace(setting, ""))
    (problem,) = check(tmp_path / "c.yaml")
    assert words in problem


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_a_file_that_cannot_be_read_is_a_mistake_of_the_user(name: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="FILE must be a readable cluster file"):
        check(tmp_path / name)
