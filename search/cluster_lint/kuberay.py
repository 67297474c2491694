"""Checks of a Kubernetes manifest with a RayJob or a RayCluster, for the KubeRay operator."""

from collections.abc import Iterator
from typing import Any

from search.cluster_lint.problems import Problem, Rule
from search.cluster_lint.versions import check_image, check_ray

_OBJECT: dict[str, Any] = {"type": "object"}
_NAMED = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}}}
_CONTAINER = {
    "type": "object",
    "required": ["name", "image"],
    "properties": {
        "name": {"type": "string"},
        "image": {"type": "string"},
        "env": {"type": "array", "items": _NAMED},
        "resources": {"type": "object", "properties": {"limits": _OBJECT}},
    },
}


def _nested(*keys: str, leaf: dict[str, Any]) -> dict[str, Any]:
    """The schema of an object that must have a value of this schema at this path."""
    for key in reversed(keys):
        leaf = {"type": "object", "required": [key], "properties": {key: leaf}}
    return leaf


_PODS = _nested("template", "spec", "containers", leaf={"type": "array", "minItems": 1, "items": _CONTAINER})
_GROUP = _PODS | {"properties": _PODS["properties"] | {"rayStartParams": _OBJECT}}
_CLUSTER = {
    "type": "object",
    "required": ["headGroupSpec", "workerGroupSpecs"],
    "properties": {
        "authOptions": _OBJECT,
        "autoscalerOptions": _OBJECT,
        "headGroupSpec": _GROUP,
        "workerGroupSpecs": {"type": "array", "items": _GROUP},
    },
}
SCHEMAS = {
    "RayCluster": _nested("spec", leaf=_CLUSTER),
    "RayJob": _nested("spec", "rayClusterSpec", leaf=_CLUSTER),
    "Service": _nested("spec", leaf=_OBJECT),
}
"""JSON schemas by kind, of the parts that the checks here read; Kubernetes itself validates the rest."""

_PUBLIC = ("LoadBalancer", "NodePort")
"""Types of services that can be reached from outside the Kubernetes cluster."""


def check_manifest(document: dict[str, Any]) -> Iterator[Problem]:
    """Yield the problems of a document that fits the schema of its kind; kinds without a schema have none."""
    kind, spec = document["kind"], document.get("spec", {})
    if kind == "Ingress":
        yield Problem(
            Rule.NO_WORLD_ACCESS,
            "the cluster must not be reachable from outside, but got an Ingress; use `kubectl port-forward`",
        )
    if kind == "Service":
        yield from _service_type("Service.spec.type", spec.get("type"))
    if kind == "RayJob" and spec.get("shutdownAfterJobFinishes") is not True:
        given = spec.get("shutdownAfterJobFinishes", "none")
        yield Problem(
            Rule.SHUTDOWN,
            f"shutdownAfterJobFinishes must be true, but got {given}; "
            "otherwise the cluster keeps costing money after the search",
        )
    if kind in ("RayCluster", "RayJob"):
        yield from _cluster(spec if kind == "RayCluster" else spec["rayClusterSpec"])


def _cluster(cluster: dict[str, Any]) -> Iterator[Problem]:
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    groups = [head, *workers]
    yield from _token(cluster.get("authOptions", {}).get("mode"), [_ray_container(group) for group in groups])
    yield from check_ray("rayVersion", str(cluster.get("rayVersion", "none")))
    for container in map(_ray_container, groups):
        yield from check_image(f"{container['name']}.image", container["image"])
    yield from _head(head)
    yield from _workers(cluster)


def _ray_container(group: dict[str, Any]) -> dict[str, Any]:
    """The container that runs Ray: the first one of a pod."""
    container: dict[str, Any] = group["template"]["spec"]["containers"][0]
    return container


def _token(mode: str | None, containers: list[dict[str, Any]]) -> Iterator[Problem]:
    """Either KubeRay creates the token, or every Ray container reads it from a secret."""
    environments = [
        {variable["name"]: variable for variable in container.get("env", ())} for container in containers
    ]
    for environment in environments:
        if "value" in environment.get("RAY_AUTH_TOKEN", {}):
            yield Problem(
                Rule.TOKEN_NOT_IN_FILE,
                "RAY_AUTH_TOKEN must come from a secret, but its value is in the file; use authOptions: {mode: token}",
            )
    from_secret = all(
        environment.get("RAY_AUTH_MODE", {}).get("value") == "token" and "RAY_AUTH_TOKEN" in environment
        for environment in environments
    )
    if mode != "token" and not from_secret:
        yield Problem(
            Rule.TOKEN_REQUIRED,
            f"authOptions.mode must be token, but got {mode or 'none'}; "
            "otherwise anyone in the Kubernetes cluster who reaches a port can run anything",
        )


def _head(head: dict[str, Any]) -> Iterator[Problem]:
    cpus = head.get("rayStartParams", {}).get("num-cpus", "none")
    if str(cpus) != "0":
        yield Problem(
            Rule.HEAD_WITHOUT_CPU,
            f'headGroupSpec.rayStartParams.num-cpus must be "0", but got {cpus}; '
            "otherwise a trial on the head could use up the memory of the search itself",
        )
    if "nvidia.com/gpu" in _ray_container(head).get("resources", {}).get("limits", {}):
        yield Problem(
            Rule.HEAD_WITHOUT_GPU,
            "headGroupSpec must not have a GPU, which no trial would use, but requests nvidia.com/gpu; leave it out",
        )
    yield from _service_type("headGroupSpec.serviceType", head.get("serviceType"))
    if head.get("enableIngress"):
        yield Problem(
            Rule.NO_WORLD_ACCESS,
            "headGroupSpec.enableIngress must be false, but got true; use `kubectl port-forward`",
        )


def _service_type(place: str, given: str | None) -> Iterator[Problem]:
    if given in _PUBLIC:
        yield Problem(
            Rule.NO_WORLD_ACCESS, f"{place} must be ClusterIP, but got {given}; use `kubectl port-forward`"
        )


def _workers(cluster: dict[str, Any]) -> Iterator[Problem]:
    """Workers must start when trials need them, and stop when none does."""
    if cluster.get("enableInTreeAutoscaling") is not True:
        given = cluster.get("enableInTreeAutoscaling", "none")
        yield Problem(
            Rule.AUTOSCALING,
            f"enableInTreeAutoscaling must be true, but got {given}; otherwise workers neither start nor stop",
        )
    if not cluster.get("autoscalerOptions", {}).get("idleTimeoutSeconds"):
        yield Problem(
            Rule.IDLE_TIMEOUT,
            "autoscalerOptions.idleTimeoutSeconds must be given, but got none; "
            "with 300, a worker without a trial stops after 300 seconds",
        )
    workers = cluster["workerGroupSpecs"]
    if not any(group.get("maxReplicas", 1) for group in workers):
        yield Problem(
            Rule.WORKERS_ALLOWED,
            "maxReplicas of a group in workerGroupSpecs must be at least 1, but got 0; trials run on workers only",
        )
    for group in workers:
        if least := group.get("minReplicas"):
            yield Problem(
                Rule.WORKERS_SCALE_TO_ZERO,
                f"minReplicas of {group.get('groupName')} must be 0, but got {least}; "
                "workers start when trials need them, and cost nothing until then",
            )
