"""Checks of a cluster file for `ray up`, and the entry point for all kinds of cluster files."""

import difflib
import json
import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import jsonschema
import yaml

from genre_core.errors import InputError
from search.cluster_lint import kuberay
from search.cluster_lint.problems import Problem, Rule
from search.cluster_lint.versions import check_image, check_python, check_ray
from search.errors import SearchErrorCode

_EVERYWHERE = ("0.0.0.0/0", "::/0")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_START_COMMANDS = ("head_start_ray_commands", "worker_start_ray_commands")
_SETUP_COMMANDS = ("setup_commands", "head_setup_commands", "worker_setup_commands")
_GPU_INSTANCE = re.compile(r"(p|g)\d")
"""The start of the names of AWS instance types with GPUs, and of no others."""


def check(path: Path) -> list[Problem]:
    """Find unsafe or unsuitable settings in a file for `ray up` or in a manifest with a RayJob or a RayCluster.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        documents = [document for document in yaml.safe_load_all(_read(path)) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        what = getattr(error, "problem", error)
        return [
            Problem(
                Rule.YAML, f"a cluster file must be valid YAML, but has an error{place}: {what}; correct it"
            )
        ]
    return [problem for document in documents or [None] for problem in _check_document(document)]


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(
            f"FILE must be a cluster file, but {path} cannot be read: {getattr(error, 'strerror', None) or error}",
            code=SearchErrorCode.CLUSTER_FILE_UNREADABLE,
        ) from error


def _check_document(document: Any) -> Iterator[Problem]:
    """Check the shape first: the checks of the content rely on it."""
    if not isinstance(document, dict):
        held = "nothing" if document is None else f"a {type(document).__name__}"
        yield Problem(
            Rule.MAPPING,
            f"a cluster file must hold keys and values, but holds {held}; start from cluster.yaml",
        )
        return
    if odd := [
        place for place, _ in _leaves(document) if not all(isinstance(key, str | _Index) for key in place)
    ]:
        yield Problem(Rule.TEXT_KEYS, f"keys must be text, but got {_dotted(odd[0])}; quote it")
        return
    is_manifest = "kind" in document
    schema = kuberay.SCHEMAS.get(str(document["kind"]), {}) if is_manifest else _schema(document)
    wrong = [_explain(error) for error in jsonschema.Draft7Validator(schema).iter_errors(document)]
    yield from wrong
    if not wrong:
        yield from (kuberay.check_manifest(document) if is_manifest else _check_cluster(document))


class _Index(int):
    """An index of a list, as opposed to a key that is a number."""


def _leaves(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every leaf of a tree of mappings and lists, with the path of keys and indices to it."""
    if isinstance(node, dict) and node:
        for key, value in node.items():
            yield from _leaves(value, (*place, key))
    elif isinstance(node, list) and node:
        for index, value in enumerate(node):
            yield from _leaves(value, (*place, _Index(index)))
    else:
        yield place, node


def _dotted(place: Any) -> str:
    return ".".join(map(str, place))


def _schema(cluster: dict[str, Any]) -> dict[str, Any]:
    """The installed Ray's JSON schema for `ray up`, completed by what it leaves out."""
    ray = find_spec("ray")
    assert ray is not None
    assert ray.origin is not None
    file = Path(ray.origin).parent / "autoscaler" / "ray-schema.json"
    schema: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    if isinstance(types := cluster.get("available_node_types"), dict):
        schema["required"].append("head_node_type")
        schema["properties"]["head_node_type"] = {"enum": list(types)}
    if (("provider", "type"), "local") in _leaves(cluster):
        schema["properties"]["min_workers"] = {"type": "integer", "minimum": 0}
    return schema


def _explain(error: jsonschema.ValidationError) -> Problem:
    place = _dotted(error.absolute_path)
    if error.validator != "additionalProperties":
        return Problem(
            Rule.SHAPE,
            f"{place or 'the file'} has the wrong shape: {' '.join(error.message.split())}; see cluster.yaml",
        )
    known = list(error.schema.get("properties", ()))
    key = next(key for key in error.instance if key not in known)
    near = difflib.get_close_matches(key, known, n=1)
    way_out = f"did you mean {near[0]}?" if near else "leave it out"
    name = _dotted([*error.absolute_path, key])
    return Problem(Rule.KNOWN_KEYS, f"{name} is not a key that Ray knows; {way_out}")


def _check_cluster(cluster: dict[str, Any]) -> Iterator[Problem]:
    for key in _START_COMMANDS:
        yield from _start(key, _commands(cluster, key))
    yield from _token(cluster)
    yield from _open_to_all(cluster)
    yield from _images(cluster)
    yield from _packages(_commands(cluster, *_SETUP_COMMANDS))
    yield from _head(cluster)
    yield from _workers(cluster)
    if cluster["provider"]["type"] == "local":
        yield from _own_machines(cluster)
    if cluster["provider"]["type"] == "aws":
        for name in cluster.get("available_node_types", {}):
            yield from _instance(cluster, name)


def _commands(cluster: dict[str, Any], *keys: str) -> str:
    return "\n".join(command for key in keys for command in cluster.get(key, ()))


def _flag(commands: str, name: str) -> str | None:
    """The value of a command-line flag."""
    found = re.search(rf"--{name}[= ]['\"]?([^\s'\"]+)", commands)
    return found[1] if found else None


def _start(key: str, commands: str) -> Iterator[Problem]:
    """The commands that start Ray on the head or on workers."""
    if "ray start" not in commands:
        yield Problem(
            Rule.RAY_START,
            f"{key} must be given, since Ray's default is open to everyone, but got {commands or 'none'}; "
            "see cluster.yaml",
        )
        return
    if "RAY_AUTH_MODE=token" not in commands:
        found = re.search(r"RAY_AUTH_MODE=[^\s;]*", commands)
        yield Problem(
            Rule.TOKEN_REQUIRED,
            f"{key} must set RAY_AUTH_MODE=token before `ray start`, but got {found[0] if found else 'none'}; "
            "otherwise anyone who reaches a port can run anything",
        )
    host = _flag(commands, "dashboard-host") or _LOOPBACK[0]
    if host not in _LOOPBACK:
        yield Problem(
            Rule.DASHBOARD_LOCAL,
            f"{key}: --dashboard-host must be 127.0.0.1, but got {host}; use `ray dashboard`, which goes through ssh",
        )


def _token(cluster: dict[str, Any]) -> Iterator[Problem]:
    """The token must be copied to every node as a file, and must not be written into the cluster file."""
    every = _commands(cluster, *_START_COMMANDS, *_SETUP_COMMANDS, "initialization_commands")
    if re.search(r"RAY_AUTH_TOKEN=[^$\s]", every):
        yield Problem(
            Rule.TOKEN_NOT_IN_FILE,
            "the token must not be in the file, but RAY_AUTH_TOKEN is set; copy it to the nodes by file_mounts",
        )
    elsewhere = re.search(r"RAY_AUTH_TOKEN_PATH=([^\s;]+)", every)
    wanted = elsewhere[1] if elsewhere else "/.ray/auth_token"
    mounts = cluster.get("file_mounts", {})
    if not any(target.endswith(wanted) for target in mounts):
        yield Problem(
            Rule.TOKEN_MOUNTED,
            f"file_mounts must copy the token to {wanted} on every node, but got {', '.join(mounts) or 'none'}; "
            "mount ~/.ray/auth_token, which `ray get-auth-token --generate` creates",
        )


def _open_to_all(cluster: dict[str, Any]) -> Iterator[Problem]:
    for place, value in _leaves(cluster):
        if value in _EVERYWHERE:
            yield Problem(
                Rule.NO_WORLD_ACCESS,
                f"{_dotted(place)} must not be open to the whole world, but got {value}; allow your own address only",
            )


def _images(cluster: dict[str, Any]) -> Iterator[Problem]:
    for place, value in _leaves(cluster):
        if place[-1] in ("image", "head_image", "worker_image") and "docker" in place:
            yield from check_image(_dotted(place), str(value))


def _packages(setup: str) -> Iterator[Problem]:
    """Nodes must install the same versions of packages as this machine."""
    if not re.search(r"pip install .*(--constraint|-c)[= ]\S*constraints\.txt", setup):
        yield Problem(
            Rule.CONSTRAINTS,
            "setup_commands must install genre-search with --constraint constraints.txt, but got "
            f"{' && '.join(setup.splitlines()) or 'none'}; otherwise nodes get other versions than this machine",
        )
    for found in re.findall(r"\bray(?:\[[\w,]+\])?==([\w.]+)", setup):
        yield from check_ray("setup_commands", found)
    for found in sorted(set(re.findall(r"\bpython(\d\.\d+)\b", setup))):
        yield from check_python("setup_commands", found)


def _head(cluster: dict[str, Any]) -> Iterator[Problem]:
    """The head runs the search itself and must not run trials."""
    head = cluster.get("available_node_types", {}).get(cluster.get("head_node_type"), {"resources": {}})
    start = _commands(cluster, "head_start_ray_commands")
    cpus = head["resources"].get("CPU", _flag(start, "num-cpus") or "none")
    gpus = head["resources"].get("GPU", _flag(start, "num-gpus") or 0)
    if str(cpus) != "0":
        yield Problem(
            Rule.HEAD_WITHOUT_CPU,
            f"the head must offer no CPU to trials, but got CPU: {cpus}; set resources: {{CPU: 0}}, or "
            "--num-cpus=0 for `ray start`, otherwise a trial could use up the memory of the search itself",
        )
    if str(gpus) != "0":
        yield Problem(
            Rule.HEAD_WITHOUT_GPU, f"the head must offer no GPU to trials, but got GPU: {gpus}; leave it out"
        )


def _workers(cluster: dict[str, Any]) -> Iterator[Problem]:
    types = cluster.get("available_node_types", {})
    workers = [kind for name, kind in types.items() if name != cluster["head_node_type"]]
    most = cluster.get("max_workers", 1)
    if not most or (types and not any(kind.get("max_workers", most) for kind in workers)):
        yield Problem(
            Rule.WORKERS_ALLOWED, "max_workers must be at least 1, but got 0; trials run on workers only"
        )
    if types and not cluster.get("idle_timeout_minutes"):
        yield Problem(
            Rule.IDLE_TIMEOUT,
            f"idle_timeout_minutes must be given, but got {cluster.get('idle_timeout_minutes', 'none')}; "
            "with 5, a worker without a trial stops after 5 minutes",
        )


def _own_machines(cluster: dict[str, Any]) -> Iterator[Problem]:
    if "RAY_enable_autoscaler_v2=0" not in _commands(cluster, "head_start_ray_commands"):
        yield Problem(
            Rule.AUTOSCALING,
            "head_start_ray_commands must set RAY_enable_autoscaler_v2=0, but got none; "
            "Ray's autoscaler v2 counts the head as one of the workers and leaves a machine unused",
        )


def _instance(cluster: dict[str, Any], name: str) -> Iterator[Problem]:
    """A node type on AWS."""
    kind, place = cluster["available_node_types"][name], f"available_node_types.{name}"
    node = kind["node_config"]
    is_spot = (("InstanceMarketOptions", "MarketType"), "spot") in _leaves(node)
    if not (node.get("SecurityGroupIds") or node.get("NetworkInterfaces")):
        yield Problem(
            Rule.SECURITY_GROUP,
            f"{place}.node_config must have SecurityGroupIds, but got none; "
            "otherwise Ray creates a group with ssh open to the world",
        )
    if not node.get("ImageId"):
        yield Problem(
            Rule.MACHINE_IMAGE,
            f"{place}.node_config must have an ImageId, but got none; "
            "the drivers of Ray's default image are too old for this torch",
        )
    if name == cluster["head_node_type"]:
        yield from _head_instance(place, str(node.get("InstanceType")), is_spot=is_spot)
    elif is_spot and (least := kind.get("min_workers")):
        yield Problem(
            Rule.WORKERS_SCALE_TO_ZERO,
            f"{place}.min_workers must be 0 for spot instances, but got {least}; "
            "workers start when trials need them, and cost nothing until then",
        )


def _head_instance(place: str, instance_type: str, *, is_spot: bool) -> Iterator[Problem]:
    if is_spot:
        yield Problem(
            Rule.HEAD_ON_DEMAND,
            f"{place} must be on demand, but is a spot instance; if the head is reclaimed, the search is lost",
        )
    if _GPU_INSTANCE.match(instance_type):
        yield Problem(
            Rule.HEAD_WITHOUT_GPU,
            f"{place} must not have a GPU, which no trial would use, but got {instance_type}; use m7i.xlarge",
        )
