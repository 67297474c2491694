"""Checks that the nodes of a cluster have this machine's versions of Ray and Python: others cannot join."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version

from search.cluster_lint.problems import Problem, Rule

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

_TAG = re.compile(r"(?P<ray>\d+\.\d+\.\d+)-py(?P<major>\d)(?P<minor>\d+)")


def check_ray(place: str, found: str) -> Iterator[Problem]:
    """Yield a problem if this is not the version of the installed Ray."""
    return _check(Rule.RAY_VERSION, place, "Ray", version("ray"), found)


def check_python(place: str, found: str) -> Iterator[Problem]:
    """Yield a problem if this is not the version of the running Python, such as 3.11."""
    return _check(Rule.PYTHON_VERSION, place, "Python", PYTHON, found)


def check_image(place: str, image: str) -> Iterator[Problem]:
    """Yield the problems of a container image; its tag must start as in Ray's own images: 2.60.0-py311."""
    name, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
    found = _TAG.match(tag)
    if name == "ray-ml":
        yield Problem(
            Rule.IMAGE_SUPPORTED,
            f"{place} must be a rayproject/ray image, but got {image}, which is discontinued; see cluster.yaml",
        )
    elif not found:
        example = f"{version('ray')}-py{PYTHON.replace('.', '')}"
        yield Problem(
            Rule.IMAGE_PINNED,
            f"{place} must be pinned by a tag that starts with the versions of Ray and Python, but got {image}; "
            f"use a tag that starts with {example}",
        )
    else:
        yield from check_ray(place, found["ray"])
        yield from check_python(place, f"{found['major']}.{found['minor']}")


def _check(rule: Rule, place: str, what: str, here: str, found: str) -> Iterator[Problem]:
    if found != here:
        yield Problem(
            rule, f"{place} must have this machine's {what} {here}, but got {found}; change one of the two"
        )
