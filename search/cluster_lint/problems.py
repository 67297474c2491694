"""The rules that a cluster file must follow, and a violation of one."""

from dataclasses import dataclass
from enum import StrEnum


class Rule(StrEnum):
    """Rules by a stable name, for programs and tests."""

    # the file
    YAML = "yaml"
    MAPPING = "mapping"
    TEXT_KEYS = "text-keys"
    SHAPE = "shape"
    KNOWN_KEYS = "known-keys"
    # access
    TOKEN_REQUIRED = "token-required"
    TOKEN_NOT_IN_FILE = "token-not-in-file"
    TOKEN_MOUNTED = "token-mounted"
    DASHBOARD_LOCAL = "dashboard-local"
    NO_WORLD_ACCESS = "no-world-access"
    SECURITY_GROUP = "security-group"
    # versions
    RAY_START = "ray-start"
    RAY_VERSION = "ray-version"
    PYTHON_VERSION = "python-version"
    IMAGE_PINNED = "image-pinned"
    IMAGE_SUPPORTED = "image-supported"
    MACHINE_IMAGE = "machine-image"
    CONSTRAINTS = "constraints"
    # resources and costs
    HEAD_WITHOUT_CPU = "head-without-cpu"
    HEAD_WITHOUT_GPU = "head-without-gpu"
    HEAD_ON_DEMAND = "head-on-demand"
    WORKERS_ALLOWED = "workers-allowed"
    WORKERS_SCALE_TO_ZERO = "workers-scale-to-zero"
    IDLE_TIMEOUT = "idle-timeout"
    AUTOSCALING = "autoscaling"
    SHUTDOWN = "shutdown"


@dataclass(frozen=True)
class Problem:
    """A violation of a rule."""

    rule: Rule
    message: str
    """One line: the rule, the value given, and what to do."""

    def __str__(self) -> str:
        return self.message
