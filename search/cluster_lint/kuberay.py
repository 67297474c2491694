"""Is a Kubernetes manifest with a RayJob or a RayCluster safe, and does it fit this search."""

from collections.abc import Iterator
from typing import Any

from search.cluster_lint.versions import image_problems, ray_differs

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
    """The schema of an object that must have this at the end of a path."""
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
SHAPES = {
    "RayCluster": _nested("spec", leaf=_CLUSTER),
    "RayJob": _nested("spec", "rayClusterSpec", leaf=_CLUSTER),
    "Service": _nested("spec", leaf=_OBJECT),
}
"""By kind, the shape that the rules here rely on; Kubernetes itself knows the rest."""

_OUTSIDE = ("LoadBalancer", "NodePort")
"""Types of service that are reached from outside the Kubernetes cluster."""


def manifest_problems(document: dict[str, Any]) -> Iterator[str]:
    """One line for each problem of a document that has its kind's shape; other kinds have none."""
    kind, spec = document["kind"], document.get("spec", {})
    if kind == "Ingress":
        yield "the cluster must not be reached from outside, but got an Ingress; use `kubectl port-forward`"
    if kind == "Service" and spec.get("type") in _OUTSIDE:
        yield f"a Service must be a ClusterIP, but got {spec['type']}; use `kubectl port-forward`"
    if kind == "RayJob" and spec.get("shutdownAfterJobFinishes") is not True:
        given = spec.get("shutdownAfterJobFinishes", "none")
        yield f"shutdownAfterJobFinishes must be true, but got {given}; else the cluster costs on after the search"
    if kind in ("RayCluster", "RayJob"):
        yield from _cluster(spec if kind == "RayCluster" else spec["rayClusterSpec"])


def _cluster(cluster: dict[str, Any]) -> Iterator[str]:
    head, workers = cluster["headGroupSpec"], cluster["workerGroupSpecs"]
    groups = [head, *workers]
    yield from _token(cluster.get("authOptions", {}).get("mode"), [_ray(group) for group in groups])
    yield from ray_differs("rayVersion", str(cluster.get("rayVersion", "none")))
    for container in map(_ray, groups):
        yield from image_problems(f"{container['name']}.image", container["image"])
    yield from _head(head)
    yield from _workers(cluster)


def _ray(group: dict[str, Any]) -> dict[str, Any]:
    """Ray's container, which is a pod's first; others stand beside it."""
    container: dict[str, Any] = group["template"]["spec"]["containers"][0]
    return container


def _token(mode: str | None, containers: list[dict[str, Any]]) -> Iterator[str]:
    """KubeRay makes the token, or every Ray container has it from a secret."""
    environments = [
        {variable["name"]: variable for variable in container.get("env", ())} for container in containers
    ]
    for environment in environments:
        if "value" in environment.get("RAY_AUTH_TOKEN", {}):
            yield "RAY_AUTH_TOKEN must come from a secret, but stands in the file; use authOptions: {mode: token}"
    by_hand = all(
        environment.get("RAY_AUTH_MODE", {}).get("value") == "token" and "RAY_AUTH_TOKEN" in environment
        for environment in environments
    )
    if mode != "token" and not by_hand:
        yield (
            f"authOptions.mode must be token, but got {mode or 'none'}; "
            "without it anyone in the Kubernetes cluster who reaches a port runs what they like"
        )


def _head(head: dict[str, Any]) -> Iterator[str]:
    cpus = head.get("rayStartParams", {}).get("num-cpus", "none")
    if str(cpus) != "0":
        yield (
            f'headGroupSpec.rayStartParams.num-cpus must be "0", but got {cpus}; '
            "a trial there could take the memory of the search itself"
        )
    if "nvidia.com/gpu" in _ray(head).get("resources", {}).get("limits", {}):
        yield "headGroupSpec must have no GPU, for no trial would use it, but asks for nvidia.com/gpu; leave it out"
    if head.get("serviceType") in _OUTSIDE:
        yield f"headGroupSpec.serviceType must be ClusterIP, but got {head['serviceType']}; use `kubectl port-forward`"
    if head.get("enableIngress"):
        yield "headGroupSpec.enableIngress must be false, but got true; use `kubectl port-forward`"


def _workers(cluster: dict[str, Any]) -> Iterator[str]:
    """They come when trials ask for them, and go when none does."""
    if cluster.get("enableInTreeAutoscaling") is not True:
        given = cluster.get("enableInTreeAutoscaling", "none")
        yield f"enableInTreeAutoscaling must be true, but got {given}; else no worker comes or goes"
    if not cluster.get("autoscalerOptions", {}).get("idleTimeoutSeconds"):
        yield (
            "autoscalerOptions.idleTimeoutSeconds must be given, but got none; "
            "with 300, a worker that has no trial for so long is given back"
        )
    workers = cluster["workerGroupSpecs"]
    if not any(group.get("maxReplicas", 1) for group in workers):
        yield "workerGroupSpecs must allow a worker, but maxReplicas is 0; trials run on workers alone"
    for group in workers:
        if least := group.get("minReplicas"):
            yield (
                f"minReplicas of {group.get('groupName')} must be 0, but got {least}; "
                "workers come when trials ask for them, and cost until then"
            )
