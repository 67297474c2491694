"""Do the nodes of a cluster have the Ray and the Python of this machine; else Ray would not let them join."""

import re
import sys
from collections.abc import Iterator
from importlib.metadata import version

PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"

_TAG = re.compile(r"(?P<ray>\d+\.\d+\.\d+)-py(?P<major>\d)(?P<minor>\d+)")


def ray_differs(place: str, found: str) -> Iterator[str]:
    """A problem where this is not the installed Ray's version."""
    return _differs(place, "Ray", version("ray"), found)


def python_differs(place: str, found: str) -> Iterator[str]:
    """A problem where this is not the running Python's version, such as 3.11."""
    return _differs(place, "Python", PYTHON, found)


def image_problems(place: str, image: str) -> Iterator[str]:
    """What is wrong with a container image, whose tag must begin as Ray's own do: 2.60.0-py311."""
    name, _, tag = image.partition("@")[0].rpartition("/")[2].partition(":")
    found = _TAG.match(tag)
    if name == "ray-ml":
        yield f"{place} must be a rayproject/ray image, for ray-ml has ended, but got {image}; see cluster.yaml"
    elif not found:
        yield (
            f"{place} must be pinned by a tag that begins with Ray's and Python's version, but got {image}; "
            f"take {version('ray')}-py{PYTHON.replace('.', '')} and what follows it"
        )
    else:
        yield from ray_differs(place, found["ray"])
        yield from python_differs(place, f"{found['major']}.{found['minor']}")


def _differs(place: str, what: str, here: str, found: str) -> Iterator[str]:
    if found != here:
        yield f"{place} must have this machine's {what} {here}, but got {found}; change one of the two"
