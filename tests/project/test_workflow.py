"""The workflow runs the Makefile's targets, with time limits, on each Python that the project states to support."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
WORKFLOW: dict[Any, Any] = yaml.safe_load((ROOT / ".github/workflows/test.yml").read_text())
JOB: dict[str, Any] = WORKFLOW["jobs"]["test"]
STEPS: list[dict[str, Any]] = JOB["steps"]
TARGETS = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def test_each_step_either_uses_an_action_of_a_stated_version_or_runs_a_target_of_the_makefile() -> None:
    for step in STEPS:
        if "run" in step:
            assert re.fullmatch(r"make [\w-]+", step["run"])
            assert step["run"].split()[1] in TARGETS
        else:
            assert re.fullmatch(r"actions/[\w-]+@v\d+", step["uses"])
    assert [step["run"] for step in STEPS if "run" in step] == ["make check", "make test"]


def test_it_runs_for_changes_and_on_main_and_may_only_read() -> None:
    events = WORKFLOW[True]  # YAML 1.1 reads the key `on` as a boolean
    assert events == {"push": {"branches": ["main"]}, "pull_request": None}
    assert WORKFLOW["permissions"] == {"contents": "read"}
    [checkout] = [step["with"] for step in STEPS if "checkout" in step.get("uses", "")]
    assert checkout["persist-credentials"] is False
    assert JOB["runs-on"].startswith("ubuntu-")


def test_the_job_and_its_commands_have_time_limits_that_fit_into_each_other() -> None:
    limits = [step["timeout-minutes"] for step in STEPS if "run" in step]
    assert sum(limits) < JOB["timeout-minutes"] <= 90


def test_it_tests_the_pythons_of_the_classifiers_and_caches_what_pip_downloads() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    stated = re.findall(r"Python :: (3\.\d+)", " ".join(project["classifiers"]))
    assert JOB["strategy"]["matrix"]["python"] == stated
    [setup] = [step["with"] for step in STEPS if "setup-python" in step.get("uses", "")]
    assert setup["python-version"] == "${{ matrix.python }}"
    assert setup["cache"] == "pip"
    assert all((ROOT / path).is_file() for path in setup["cache-dependency-path"].split())


@pytest.mark.parametrize("target", ["check", "test", "install", "run"])
def test_a_target_that_is_no_file_is_declared_phony(target: str) -> None:
    [phony] = re.findall(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert target in phony.split()
