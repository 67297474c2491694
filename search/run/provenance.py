"""Which versions made a result: what a run's configuration, a model's card and the command line say."""

from importlib.metadata import version

PACKAGES = ("genre-search", "torch", "torchvision", "torchaudio", "ray", "optuna")


def versions() -> dict[str, str]:
    """Package -> installed version."""
    return {package: version(package) for package in PACKAGES}
