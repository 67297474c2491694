"""Imports point one way, and what is light stays light: shown by importing, not by reading."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    for package in ("genre_core", "search")
    for path in (ROOT / package).rglob("*.py")
)

# what importing a module must not load, in any way
NEVER_LOADED = {
    **{
        module: ("search", "ray", "optuna", "typer") for module in MODULES if module.startswith("genre_core.")
    },
    "genre_core.training.fine_tune": (
        "genre_core.audio.decode",
        "genre_core.corpus.tracks",
        "search",
        "ray",
        "optuna",
        "typer",
    ),
    "genre_core.datasets.download": ("torch", "numpy", "search"),
    "genre_core.datasets.unpack": ("torch", "numpy", "search"),
    "genre_core.datasets.fetch": ("torch", "search"),
    "genre_core.models.registry": ("torch", "numpy", "search"),
    "genre_core.recipe": ("torch", "numpy", "search"),
    "genre_core.corpus.audit": ("torch", "search"),
    "search.config.schema": ("torch", "ray", "optuna", "typer"),
    "search.study.study": ("torch", "ray", "typer"),
    "search.tune.searcher": ("torch", "typer"),
    "search.tune.scheduler": ("torch", "typer"),
    "search.engine.recorder": ("torch", "typer"),
    "search.tune.trainable": ("optuna", "typer"),
    "search.run.tables": ("torch", "ray", "optuna", "typer", "genre_core.corpus.tracks"),
    "search.report.leaderboard": ("torch", "ray", "optuna", "typer"),
    "search.cli.progress": ("torch", "ray", "optuna", "typer"),
    "search.run.mirror": ("torch", "ray", "optuna", "typer"),
    "search.run.checkpoints": ("torch", "ray", "optuna", "typer"),
    "search.cluster_lint.ray_up": ("torch", "ray", "optuna", "typer"),
    "search.recovery.reconcile": ("torch", "typer"),
    "search.tune.weight_shipping": ("torch", "optuna", "typer"),
    "search.cli.prediction_output": ("ray", "optuna", "typer"),
    "search.evaluate.verdict": ("torch", "ray", "optuna", "typer"),
    "search.run.model_store": ("torch", "ray", "optuna", "typer"),
    "search.export.chosen_model": ("torch", "ray", "optuna", "typer"),
    "search.report.comparison": ("torch", "ray", "optuna", "typer"),
    "search.data.sanity_checks": ("torch", "ray", "optuna", "typer"),
    "search.report.time_accounting": ("torch", "ray", "optuna", "typer"),
    "search.report.misclassified": ("torch", "ray", "optuna", "typer"),
    "search.report.page": ("torch", "ray", "typer"),
    "search.report.charts": ("torch", "ray", "typer"),
    "search.report.importance": ("torch", "ray", "typer"),
    "search.export.export": ("ray", "optuna", "typer"),
    "search.evaluate.final_worker": ("optuna", "typer"),
    "search.evaluate.finish": ("typer",),
    "search.study.warm_start": ("torch", "typer"),
    "search.tune.mlflow": ("torch", "typer", "mlflow"),
    "search.cli.main": ("torch", "ray", "optuna", "pandas", "pyarrow", "pydantic", "numpy", "rich.live"),
}


def _file(module: str) -> Path:
    path = ROOT / module.replace(".", "/")
    return path / "__init__.py" if path.is_dir() else path.with_suffix(".py")


IMPORT_EACH = """
import importlib, sys
for name in sys.argv[1].split():
    importlib.import_module(name)
    print(name, *sys.modules)
"""


@pytest.mark.parametrize("forbidden", sorted(set(NEVER_LOADED.values())), ids=" ".join)
def test_a_module_loads_nothing_from_above_or_beyond_its_need(forbidden: tuple[str, ...]) -> None:
    """Modules of the same rule share a process: what none of them may load, none has loaded."""
    modules = " ".join(module for module, rule in NEVER_LOADED.items() if rule == forbidden)
    command = [sys.executable, "-c", IMPORT_EACH, modules]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    for line in lines:
        module, *loaded = line.split()
        assert not set(forbidden) & set(loaded), module
    assert len(lines) == len(modules.split())


@pytest.mark.parametrize("module", MODULES)
def test_importing_runs_nothing(module: str) -> None:
    """At the top of a module stand definitions, constants and imports; no loops, no calls for their effect."""
    path = _file(module)
    for node in ast.parse(path.read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        call_for_effect = isinstance(node, ast.Expr) and not docstring
        registers = call_for_effect and "add_typer" in ast.unparse(node)
        assert registers or not (call_for_effect or isinstance(node, ast.For | ast.While | ast.With)), (
            ast.unparse(node)
        )


@pytest.mark.parametrize("module", MODULES)
def test_a_file_opens_with_the_question_it_answers(module: str) -> None:
    path = _file(module)
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{module} says nothing of itself"
