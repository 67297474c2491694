"""Imports point one way, and what is light stays light: shown by importing, not by reading."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULES = sorted(
    f"{path.parent.name}.{path.stem}"
    for package in ("genre_core", "search")
    for path in (ROOT / package).glob("*.py")
)

# what importing a module must not load, in any way
NEVER_LOADED = {
    **{
        module: ("search", "ray", "optuna", "typer") for module in MODULES if module.startswith("genre_core.")
    },
    "genre_core.training": ("genre_core.audio", "genre_core.corpus", "search", "ray", "optuna", "typer"),
    "genre_core.download": ("torch", "numpy", "search"),
    "genre_core.unpack": ("torch", "numpy", "search"),
    "genre_core.data_sets": ("torch", "search"),
    "genre_core.families": ("torch", "numpy", "search"),
    "genre_core.recipe": ("torch", "numpy", "search"),
    "genre_core.audit": ("torch", "search"),
    "search.config": ("torch", "ray", "optuna", "typer"),
    "search.study": ("torch", "ray", "typer"),
    "search.sampling": ("torch", "typer"),
    "search.pruning": ("torch", "typer"),
    "search.recording": ("torch", "typer"),
    "search.trial": ("optuna", "typer"),
    "search.results": ("torch", "ray", "optuna", "typer", "genre_core.corpus"),
    "search.leaderboard": ("torch", "ray", "optuna", "typer"),
    "search.display": ("torch", "ray", "optuna", "typer"),
    "search.storage": ("torch", "ray", "optuna", "typer"),
    "search.checkpoints": ("torch", "ray", "optuna", "typer"),
    "search.cluster_file": ("torch", "ray", "optuna", "typer"),
    "search.mending": ("torch", "typer"),
    "search.node_weights": ("torch", "optuna", "typer"),
    "search.predictions": ("ray", "optuna", "typer"),
    "search.verdict": ("torch", "ray", "optuna", "typer"),
    "search.models": ("torch", "ray", "optuna", "typer"),
    "search.chosen_model": ("torch", "ray", "optuna", "typer"),
    "search.comparison": ("torch", "ray", "optuna", "typer"),
    "search.honesty": ("torch", "ray", "optuna", "typer"),
    "search.time_spent": ("torch", "ray", "optuna", "typer"),
    "search.worst_tracks": ("torch", "ray", "optuna", "typer"),
    "search.report": ("torch", "ray", "typer"),
    "search.charts": ("torch", "ray", "typer"),
    "search.importance": ("torch", "ray", "typer"),
    "search.export": ("ray", "optuna", "typer"),
    "search.final_trial": ("optuna", "typer"),
    "search.finish": ("typer",),
    "search.warm_start": ("torch", "typer"),
    "search.tracking": ("torch", "typer", "mlflow"),
    "search.cli": ("torch", "ray", "optuna", "pandas", "pyarrow", "pydantic", "numpy", "rich.live"),
}


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
    path = ROOT / f"{module.replace('.', '/')}.py"
    for node in ast.parse(path.read_text()).body:
        docstring = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
        call_for_effect = isinstance(node, ast.Expr) and not docstring
        registers = call_for_effect and "add_typer" in ast.unparse(node)
        assert registers or not (call_for_effect or isinstance(node, ast.For | ast.While | ast.With)), (
            ast.unparse(node)
        )


@pytest.mark.parametrize("module", MODULES)
def test_a_file_opens_with_the_question_it_answers(module: str) -> None:
    path = ROOT / f"{module.replace('.', '/')}.py"
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert docstring, f"{module} says nothing of itself"
