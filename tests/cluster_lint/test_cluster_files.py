"""Checks of cluster files: ours have no problem, and each problem that a file may have is reported."""

import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config
from refusals import refused

from search.cluster_lint.problems import Problem, Rule
from search.cluster_lint.ray_up import check
from search.errors import SearchErrorCode

ROOT = Path(__file__).parents[2]
OURS = ["cluster.yaml", "cluster-local.yaml", "kubernetes/rayjob.yaml"]
GONE = object()

pytestmark = pytest.mark.skipif(
    sys.version_info[:2] != (3, 11), reason="our files use images with Python 3.11"
)


@pytest.mark.parametrize("name", OURS)
def test_our_cluster_files_have_no_problem(name: str) -> None:
    assert check(ROOT / name) == []


@pytest.mark.parametrize("name", ["cluster.yaml", "cluster-local.yaml"])
def test_ray_up_accepts_our_files_after_its_own_preprocessing(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    cluster = yaml.safe_load((ROOT / name).read_text())
    validate_config(prepare_config(cluster))
    for local in cluster["file_mounts"].values():
        assert local == "~/.ray/auth_token" or (ROOT / local).exists()


def test_the_constraints_pin_the_installed_ray() -> None:
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

LAUNCHER: list[tuple[Path_, object, Rule, list[str]]] = [
    (START, _instead("RAY_AUTH_MODE=token", ""), Rule.TOKEN_REQUIRED, ["head_start_ray_commands", "none"]),
    (START, _instead("=token", "=disabled"), Rule.TOKEN_REQUIRED, ["RAY_AUTH_MODE=disabled"]),
    (JOIN, _instead("RAY_AUTH_MODE=token", ""), Rule.TOKEN_REQUIRED, ["worker_start_ray_commands"]),
    (("head_start_ray_commands",), GONE, Rule.RAY_START, ["head_start_ray_commands", "none"]),
    (("file_mounts", "/home/ray/.ray/auth_token"), GONE, Rule.TOKEN_MOUNTED, ["/.ray/auth_token"]),
    (
        START,
        _instead("RAY_AUTH_MODE", "RAY_AUTH_TOKEN=0123 RAY_AUTH_MODE"),
        Rule.TOKEN_NOT_IN_FILE,
        ["file_mounts"],
    ),
    (
        START,
        _instead("RAY_AUTH_MODE", "RAY_AUTH_TOKEN_PATH=/x/t RAY_AUTH_MODE"),
        Rule.TOKEN_MOUNTED,
        ["/x/t"],
    ),
    (START, _instead("127.0.0.1", "0.0.0.0"), Rule.DASHBOARD_LOCAL, ["0.0.0.0", "`ray dashboard`"]),
    (
        ("provider", "security_group"),
        {"IpPermissions": [WORLD]},
        Rule.NO_WORLD_ACCESS,
        ["provider.security_group", "0.0.0.0/0"],
    ),
    ((*GPU, "node_config", "SecurityGroupIds"), GONE, Rule.SECURITY_GROUP, ["gpu.node_config", "none"]),
    ((*HEAD, "node_config", "ImageId"), GONE, Rule.MACHINE_IMAGE, ["head.node_config", "ImageId"]),
    (("docker", "image"), "rayproject/ray", Rule.IMAGE_PINNED, ["docker.image", f"{RAY}-py311"]),
    (("docker", "image"), "rayproject/ray:latest", Rule.IMAGE_PINNED, ["ray:latest"]),
    (("docker", "image"), "rayproject/ray:nightly-py311-cu128", Rule.IMAGE_PINNED, ["ray:nightly"]),
    (("docker", "image"), f"rayproject/ray-ml:{RAY}-py311-gpu", Rule.IMAGE_SUPPORTED, ["ray-ml"]),
    (("docker", "image"), "rayproject/ray:2.9.3-py311-cu121", Rule.RAY_VERSION, [RAY, "2.9.3"]),
    (
        ("docker", "worker_image"),
        f"rayproject/ray:{RAY}-py39",
        Rule.PYTHON_VERSION,
        ["docker.worker_image", "3.11", "3.9"],
    ),
    (("setup_commands", 0), _instead("python3.11", "python3.8"), Rule.PYTHON_VERSION, ["3.11", "3.8"]),
    (
        ("setup_commands", 2),
        _instead("--constraint constraints.txt ", ""),
        Rule.CONSTRAINTS,
        ["setup_commands", "--constraint constraints.txt"],
    ),
    (
        ("setup_commands", 3),
        _instead("grep", "pip install ray[default]==2.9.3; grep"),
        Rule.RAY_VERSION,
        [RAY, "2.9.3"],
    ),
    ((*HEAD, "resources"), {}, Rule.HEAD_WITHOUT_CPU, ["CPU: none", "{CPU: 0}"]),
    ((*HEAD, "resources", "CPU"), 4, Rule.HEAD_WITHOUT_CPU, ["CPU: 4"]),
    ((*HEAD, "resources", "GPU"), 1, Rule.HEAD_WITHOUT_GPU, ["GPU: 1"]),
    ((*HEAD, "node_config", "InstanceType"), "g6.xlarge", Rule.HEAD_WITHOUT_GPU, ["g6.xlarge", "m7i.xlarge"]),
    (
        (*HEAD, "node_config", "InstanceMarketOptions"),
        {"MarketType": "spot"},
        Rule.HEAD_ON_DEMAND,
        ["available_node_types.head", "spot"],
    ),
    ((*GPU, "min_workers"), 1, Rule.WORKERS_SCALE_TO_ZERO, ["gpu.min_workers", "1"]),
    ((*GPU, "max_workers"), 0, Rule.WORKERS_ALLOWED, ["max_workers", "0"]),
    (("max_workers",), 0, Rule.WORKERS_ALLOWED, ["max_workers", "0"]),
    (("idle_timeout_minutes",), GONE, Rule.IDLE_TIMEOUT, ["idle_timeout_minutes", "none"]),
    (("idle_timeout",), 5, Rule.KNOWN_KEYS, ["idle_timeout ", "idle_timeout_minutes?"]),
    ((*GPU, "colour"), "red", Rule.KNOWN_KEYS, ["available_node_types.gpu.colour"]),
    (("max_workers",), "four", Rule.SHAPE, ["max_workers", "'four'", "integer"]),
    (("provider",), GONE, Rule.SHAPE, ["'provider'"]),
    (("head_node_type",), "haed", Rule.SHAPE, ["head_node_type", "'haed'", "'head'"]),
    (("available_node_types", 1), {}, Rule.TEXT_KEYS, ["available_node_types.1"]),
]

SPEC = ("spec", "rayClusterSpec")
K8S_HEAD = (*SPEC, "headGroupSpec")
K8S_GPU = (*SPEC, "workerGroupSpecs", 0)
RAY_HEAD = (*K8S_HEAD, "template", "spec", "containers", 0)
LITERAL = [{"name": "RAY_AUTH_MODE", "value": "token"}, {"name": "RAY_AUTH_TOKEN", "value": "0123"}]
PORT_FORWARD = "kubectl port-forward"

KUBERNETES: list[tuple[Path_, object, Rule, list[str]]] = [
    ((*SPEC, "authOptions"), GONE, Rule.TOKEN_REQUIRED, ["authOptions.mode", "none"]),
    ((*SPEC, "authOptions", "mode"), "disabled", Rule.TOKEN_REQUIRED, ["authOptions.mode", "disabled"]),
    ((*RAY_HEAD, "env"), LITERAL, Rule.TOKEN_NOT_IN_FILE, ["RAY_AUTH_TOKEN", "authOptions"]),
    ((*SPEC, "rayVersion"), "2.9.3", Rule.RAY_VERSION, ["rayVersion", RAY, "2.9.3"]),
    ((*RAY_HEAD, "image"), "genre-search:latest", Rule.IMAGE_PINNED, ["ray-head.image", f"{RAY}-py311"]),
    (
        (*K8S_GPU, "template", "spec", "containers", 0, "image"),
        f"x:{RAY}-py39",
        Rule.PYTHON_VERSION,
        ["3.11", "3.9"],
    ),
    ((*K8S_HEAD, "rayStartParams"), {}, Rule.HEAD_WITHOUT_CPU, ["num-cpus", '"0"', "none"]),
    (
        (*RAY_HEAD, "resources", "limits", "nvidia.com/gpu"),
        1,
        Rule.HEAD_WITHOUT_GPU,
        ["headGroupSpec", "nvidia.com/gpu"],
    ),
    ((*K8S_HEAD, "serviceType"), "LoadBalancer", Rule.NO_WORLD_ACCESS, ["LoadBalancer", PORT_FORWARD]),
    ((*K8S_HEAD, "enableIngress"), True, Rule.NO_WORLD_ACCESS, ["enableIngress", PORT_FORWARD]),
    ((*SPEC, "enableInTreeAutoscaling"), GONE, Rule.AUTOSCALING, ["enableInTreeAutoscaling", "none"]),
    ((*SPEC, "autoscalerOptions"), {}, Rule.IDLE_TIMEOUT, ["idleTimeoutSeconds", "none"]),
    ((*K8S_GPU, "maxReplicas"), 0, Rule.WORKERS_ALLOWED, ["maxReplicas", "0"]),
    ((*K8S_GPU, "minReplicas"), 2, Rule.WORKERS_SCALE_TO_ZERO, ["gpu", "2"]),
    (("spec", "shutdownAfterJobFinishes"), GONE, Rule.SHUTDOWN, ["shutdownAfterJobFinishes", "none"]),
    (SPEC, GONE, Rule.SHAPE, ["'rayClusterSpec'"]),
    ((*RAY_HEAD, "image"), GONE, Rule.SHAPE, ["'image'"]),
]


def _name(case: object) -> str:
    if isinstance(case, Rule):
        return case.value
    return ".".join(map(str, case)) if isinstance(case, tuple) else ""


def _require(problem: Problem, rule: Rule, facts: list[str]) -> None:
    assert problem.rule is rule
    assert [fact for fact in facts if fact not in problem.message] == []
    assert "\n" not in problem.message


@pytest.mark.parametrize(("place", "value", "rule", "facts"), LAUNCHER, ids=_name)
def test_one_mistake_in_our_cluster_file_is_the_one_problem_reported(
    place: Path_, value: object, rule: Rule, facts: list[str], tmp_path: Path
) -> None:
    cluster = yaml.safe_load((ROOT / "cluster.yaml").read_text())
    _set(cluster, place, value)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump(cluster))
    (problem,) = check(tmp_path / "c.yaml")
    _require(problem, rule, facts)


@pytest.mark.parametrize(("place", "value", "rule", "facts"), KUBERNETES, ids=_name)
def test_one_mistake_in_our_manifest_is_the_one_problem_reported(
    place: Path_, value: object, rule: Rule, facts: list[str], tmp_path: Path
) -> None:
    volume, job = yaml.safe_load_all((ROOT / "kubernetes" / "rayjob.yaml").read_text())
    _set(job, place, value)
    (tmp_path / "c.yaml").write_text(yaml.safe_dump_all([volume, job]))
    (problem,) = check(tmp_path / "c.yaml")
    _require(problem, rule, facts)


def test_a_ray_cluster_whose_token_comes_from_a_secret_has_no_problem(tmp_path: Path) -> None:
    _, job = yaml.safe_load_all((ROOT / "kubernetes" / "rayjob.yaml").read_text())
    cluster = job["spec"]["rayClusterSpec"]
    del cluster["authOptions"]
    secret = {"name": "RAY_AUTH_TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "auth_token"}}}
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        group["template"]["spec"]["containers"][0]["env"] = [LITERAL[0], secret]
    (tmp_path / "c.yaml").write_text(yaml.safe_dump({"kind": "RayCluster", "spec": cluster}))
    assert check(tmp_path / "c.yaml") == []


@pytest.mark.parametrize(
    ("text", "rule", "facts"),
    [
        ("a: [1", Rule.YAML, ["line 1"]),
        ("", Rule.MAPPING, ["nothing", "cluster.yaml"]),
        ("- a", Rule.MAPPING, ["list", "cluster.yaml"]),
        ("kind: Ingress", Rule.NO_WORLD_ACCESS, ["Ingress", PORT_FORWARD]),
        ("{kind: Service, spec: {type: NodePort}}", Rule.NO_WORLD_ACCESS, ["NodePort", PORT_FORWARD]),
        ("{kind: RayJob}", Rule.SHAPE, ["'spec'"]),
    ],
    ids=str,
)
def test_the_problem_of_a_file_without_a_cluster_is_reported(
    text: str, rule: Rule, facts: list[str], tmp_path: Path
) -> None:
    (tmp_path / "c.yaml").write_text(text)
    (problem,) = check(tmp_path / "c.yaml")
    _require(problem, rule, facts)


def test_a_manifest_of_another_kind_has_no_problem(tmp_path: Path) -> None:
    (tmp_path / "c.yaml").write_text("{kind: ConfigMap}")
    assert check(tmp_path / "c.yaml") == []


@pytest.mark.parametrize(
    ("setting", "rule", "facts"),
    [
        ("--num-cpus=0", Rule.HEAD_WITHOUT_CPU, ["CPU: none", "--num-cpus=0"]),
        ("RAY_enable_autoscaler_v2=0", Rule.AUTOSCALING, ["RAY_enable_autoscaler_v2=0"]),
    ],
)
def test_own_machines_need_these_settings_but_no_image_and_no_idle_timeout(
    setting: str, rule: Rule, facts: list[str], tmp_path: Path
) -> None:
    text = (ROOT / "cluster-local.yaml").read_text()
    assert text.count(setting) == 1
    (tmp_path / "c.yaml").write_text(text.replace(setting, ""))
    (problem,) = check(tmp_path / "c.yaml")
    _require(problem, rule, facts)


@pytest.mark.parametrize("name", ["nowhere.yaml", "."])
def test_a_file_that_cannot_be_read_is_an_error_of_the_user(name: str, tmp_path: Path) -> None:
    with refused(SearchErrorCode.CLUSTER_FILE_UNREADABLE, tmp_path / name):
        check(tmp_path / name)
