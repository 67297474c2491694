"""Versions of the packages that produced a result, for config.yaml, model cards and `--version`."""

from importlib.metadata import version

PACKAGES = ("genre-search", "torch", "torchvision", "torchaudio", "ray", "optuna")


def versions() -> dict[str, str]:
    """Package -> installed version."""
    return {package: version(package) for package in PACKAGES}
