"""Is a cluster file safe, and does it fit this search: what `ray up` or KubeRay would start, judged before it does."""

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
from search.cluster_lint.versions import image_problems, python_differs, ray_differs

_EVERYWHERE = ("0.0.0.0/0", "::/0")
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_STARTS = ("head_start_ray_commands", "worker_start_ray_commands")
_SETUPS = ("setup_commands", "head_setup_commands", "worker_setup_commands")
_GPU_INSTANCE = re.compile(r"(p|g)\d")
"""How the names of AWS's instances with GPUs begin, and no others."""


def check(path: Path) -> list[str]:
    """What is unsafe or does not fit in a file for `ray up`, or in a manifest with a RayJob or a RayCluster.

    Returns:
        One line for each problem: the rule, the value given, the way out.

    Raises:
        InputError: the file cannot be read.
    """
    try:
        documents = [document for document in yaml.safe_load_all(_text(path)) if document is not None]
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        return [
            f"a cluster file must be YAML, but is not{place}: {getattr(error, 'problem', error)}; mend it"
        ]
    return [problem for document in documents or [None] for problem in _problems(document)]


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"FILE must be a readable cluster file, but {path} is not: {error}") from error


def _problems(document: Any) -> Iterator[str]:
    """Of the shape; and only where that is right, on which the rules rely, of the content."""
    if not isinstance(document, dict):
        held = "nothing" if document is None else f"a {type(document).__name__}"
        yield f"a cluster file must hold keys and values, but holds {held}; start from cluster.yaml"
        return
    if odd := [
        place for place, _ in _leaves(document) if not all(isinstance(key, str | _Index) for key in place)
    ]:
        yield f"keys must be text, but got {_dotted(odd[0])}; quote it"
        return
    is_manifest = "kind" in document
    shape = kuberay.SHAPES.get(str(document["kind"]), {}) if is_manifest else _schema(document)
    wrong = [_explain(error) for error in jsonschema.Draft7Validator(shape).iter_errors(document)]
    yield from wrong
    if not wrong:
        yield from (kuberay.manifest_problems(document) if is_manifest else _launcher(document))


class _Index(int):
    """A place in a list."""


def _leaves(node: Any, place: tuple[Any, ...] = ()) -> Iterator[tuple[tuple[Any, ...], Any]]:
    """Every value of a tree that holds no other, with the keys that lead there."""
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
    """The installed Ray's own, for `ray up`."""
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


def _explain(error: jsonschema.ValidationError) -> str:
    place = _dotted(error.absolute_path)
    if error.validator != "additionalProperties":
        return f"{place or 'the file'} does not have its shape: {' '.join(error.message.split())}; see cluster.yaml"
    known = list(error.schema.get("properties", ()))
    key = next(key for key in error.instance if key not in known)
    near = difflib.get_close_matches(key, known, n=1)
    way_out = f"did you mean {near[0]}?" if near else "leave it out"
    return f"{_dotted([*error.absolute_path, key])} is not a key that Ray knows; {way_out}"


def _launcher(cluster: dict[str, Any]) -> Iterator[str]:
    for key in _STARTS:
        yield from _start(key, _commands(cluster, key))
    yield from _token(cluster)
    yield from _open_to_all(cluster)
    yield from _images(cluster)
    yield from _packages(_commands(cluster, *_SETUPS))
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
    """A flag's value on the command line."""
    found = re.search(rf"--{name}[= ]['\"]?([^\s'\"]+)", commands)
    return found[1] if found else None


def _start(key: str, commands: str) -> Iterator[str]:
    """How Ray is started on the head, or on workers."""
    if "ray start" not in commands:
        yield f"{key} must be given, for Ray's own open it to all, but got {commands or 'none'}; see cluster.yaml"
        return
    if "RAY_AUTH_MODE=token" not in commands:
        found = re.search(r"RAY_AUTH_MODE=[^\s;]*", commands)
        yield (
            f"{key} must set RAY_AUTH_MODE=token before `ray start`, but got {found[0] if found else 'none'}; "
            "without it anyone who reaches a port runs what they like"
        )
    host = _flag(commands, "dashboard-host") or _LOOPBACK[0]
    if host not in _LOOPBACK:
        yield f"{key}: --dashboard-host must be 127.0.0.1, but got {host}; `ray dashboard` brings it here through ssh"


def _token(cluster: dict[str, Any]) -> Iterator[str]:
    """It reaches every node as a file, and is not written here."""
    every = _commands(cluster, *_STARTS, *_SETUPS, "initialization_commands")
    if re.search(r"RAY_AUTH_TOKEN=[^$\s]", every):
        yield "the token must not stand in the file, but RAY_AUTH_TOKEN does; bring it by file_mounts"
    elsewhere = re.search(r"RAY_AUTH_TOKEN_PATH=([^\s;]+)", every)
    wanted = elsewhere[1] if elsewhere else "/.ray/auth_token"
    mounts = cluster.get("file_mounts", {})
    if not any(target.endswith(wanted) for target in mounts):
        yield (
            f"file_mounts must bring the token to {wanted} of every node, but got {', '.join(mounts) or 'none'}; "
            "mount ~/.ray/auth_token, which `ray get-auth-token --generate` makes"
        )


def _open_to_all(cluster: dict[str, Any]) -> Iterator[str]:
    for place, value in _leaves(cluster):
        if value in _EVERYWHERE:
            yield f"{_dotted(place)} must not be the whole world, but got {value}; allow your own address"


def _images(cluster: dict[str, Any]) -> Iterator[str]:
    for place, value in _leaves(cluster):
        if place[-1] in ("image", "head_image", "worker_image") and "docker" in place:
            yield from image_problems(_dotted(place), str(value))


def _packages(setup: str) -> Iterator[str]:
    """Nodes get the packages that this machine has."""
    if not re.search(r"pip install .*(--constraint|-c)[= ]\S*constraints\.txt", setup):
        yield (
            "setup_commands must install genre-search with --constraint constraints.txt, "
            f"but got {' && '.join(setup.splitlines()) or 'none'}; else nodes get other versions than this machine"
        )
    for found in re.findall(r"\bray(?:\[[\w,]+\])?==([\w.]+)", setup):
        yield from ray_differs("setup_commands", found)
    for found in sorted(set(re.findall(r"\bpython(\d\.\d+)\b", setup))):
        yield from python_differs("setup_commands", found)


def _head(cluster: dict[str, Any]) -> Iterator[str]:
    """No trial runs there: it holds the search."""
    head = cluster.get("available_node_types", {}).get(cluster.get("head_node_type"), {"resources": {}})
    start = _commands(cluster, "head_start_ray_commands")
    cpus = head["resources"].get("CPU", _flag(start, "num-cpus") or "none")
    gpus = head["resources"].get("GPU", _flag(start, "num-gpus") or 0)
    if str(cpus) != "0":
        yield (
            f"the head must offer no CPU to trials, but got CPU: {cpus}; give it resources: {{CPU: 0}}, or "
            "--num-cpus=0 where Ray starts, else a trial could take the memory of the search itself"
        )
    if str(gpus) != "0":
        yield f"the head must offer no GPU to trials, but got GPU: {gpus}; leave it out"


def _workers(cluster: dict[str, Any]) -> Iterator[str]:
    types = cluster.get("available_node_types", {})
    workers = [kind for name, kind in types.items() if name != cluster["head_node_type"]]
    most = cluster.get("max_workers", 1)
    if not most or (types and not any(kind.get("max_workers", most) for kind in workers)):
        yield "max_workers must be at least 1, but got 0; trials run on workers alone"
    if types and not cluster.get("idle_timeout_minutes"):
        yield (
            f"idle_timeout_minutes must be given, but got {cluster.get('idle_timeout_minutes', 'none')}; "
            "with 5, a worker that has no trial for so long is given back"
        )


def _own_machines(cluster: dict[str, Any]) -> Iterator[str]:
    if "RAY_enable_autoscaler_v2=0" not in _commands(cluster, "head_start_ray_commands"):
        yield (
            "head_start_ray_commands must set RAY_enable_autoscaler_v2=0, but do not; "
            "Ray's second autoscaler takes the head for one of the workers and leaves a machine idle"
        )


def _instance(cluster: dict[str, Any], name: str) -> Iterator[str]:
    """A kind of node on AWS."""
    kind, place = cluster["available_node_types"][name], f"available_node_types.{name}"
    node = kind["node_config"]
    is_spot = (("InstanceMarketOptions", "MarketType"), "spot") in _leaves(node)
    if not (node.get("SecurityGroupIds") or node.get("NetworkInterfaces")):
        yield (
            f"{place}.node_config must have SecurityGroupIds, but got none; "
            "else Ray makes a group of its own, with ssh open to the world"
        )
    if not node.get("ImageId"):
        yield f"{place}.node_config must have an ImageId, but got none; Ray's own has drivers too old for this torch"
    if name == cluster["head_node_type"]:
        if is_spot:
            yield f"{place} must be on demand, but is a spot instance; when the head goes, the search goes"
        if _GPU_INSTANCE.match(str(node.get("InstanceType"))):
            yield f"{place} must have no GPU, which no trial would use, but got {node['InstanceType']}; take m7i.xlarge"
    elif is_spot and (least := kind.get("min_workers")):
        yield (
            f"{place}.min_workers must be 0 for spot instances, but got {least}; "
            "workers come when trials ask for them, and cost until then"
        )
