"""The code of docs/python.md runs, in its order, on a small corpus, and its list of public names is complete."""

import contextlib
import functools
import importlib
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pandas.testing import assert_frame_equal
from tiny import TINY

import search
from genre_core.predict import Model
from search.api.result import Result, open_run
from search.run.tables import read_trials

TEXT = (Path(__file__).parents[2] / "docs" / "python.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", TEXT, re.DOTALL)
TRIALS = 3
GROUPS = {"space", "training"}


def nested(settings: dict[str, Any]) -> dict[str, Any]:
    """Settings with their groups as mappings, as the page writes them."""
    groups: dict[str, Any] = {name: {} for name in GROUPS}
    for key, value in settings.items():
        group, _, name = key.rpartition(".")
        (groups[group] if group else groups)[name] = value
    return groups


def small(function: Callable[..., Result]) -> Callable[..., Result]:
    """A search of few trials of a small network, which is what the page asks for otherwise."""

    @functools.wraps(function)
    def call(data: str, **given: Any) -> Result:
        tiny = nested(TINY)
        groups = {
            name: tiny[name]
            | {k: v for k, v in given.get(name, {}).items() if k not in ("backbone", "epochs")}
            for name in GROUPS
        }
        return function(data, **(tiny | given | groups | {"trials": TRIALS}))

    return call


def extended(run: str, trials: int) -> Result:
    """One more trial, however many the page wants."""
    return RESUME(run, trials=TRIALS + 1)


@pytest.fixture(scope="module")
def after(
    music: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory, small_ray: None
) -> Iterator[dict[str, Any]]:
    """The variables after running all blocks."""
    folder = tmp_path_factory.mktemp("python")
    (folder / "music").symlink_to(music)
    shutil.copy(min(music.rglob("*.wav")), folder / "song.wav")
    variables: dict[str, Any] = {}
    with pytest.MonkeyPatch.context() as patch, contextlib.chdir(folder):
        patch.setenv("GENRE_SEARCH_CACHE", str(cache))
        patch.setattr(search, "search", small(search.search), raising=False)
        patch.setattr(search, "resume", functools.wraps(RESUME)(extended), raising=False)
        patch.setattr(Result, "finish", functools.partialmethod(FINISH, top=1, seeds=1))
        for block in BLOCKS:
            exec(compile(block.replace("top=3, seeds=3", ""), "docs/python.md", "exec"), variables)
        yield variables


RESUME, FINISH = search.resume, Result.finish


def test_the_results_are_those_of_the_tables(after: dict[str, Any]) -> None:
    assert len(open_run("first").trials) == TRIALS + 1
    trials = read_trials(Path("runs/resnets"))
    best = trials.sort_values("val_f1").iloc[-1]
    assert after["curve"].max() == pytest.approx(best["val_f1"])
    assert after["by_backbone"].max() == best["val_f1"]


def test_the_callbacks_saw_every_epoch(after: dict[str, Any], capsys: pytest.CaptureFixture[str]) -> None:
    epochs = Result(Path("runs/observed")).epochs
    seen = {trial: own["val_f1"].tolist() for trial, own in epochs.groupby("trial")}
    assert after["curves"] == seen


def test_finishing_again_returns_the_same_scores(after: dict[str, Any]) -> None:
    assert_frame_equal(Result(Path("runs/resnets")).finish(progress=False), after["test"])


def test_the_exported_model_is_that_of_the_result(after: dict[str, Any]) -> None:
    own = Result(Path("runs/resnets")).model().predict("song.wav")
    assert isinstance(after["model"], Model)
    assert own.probabilities == after["prediction"].probabilities
    assert np.isclose(sum(own.probabilities.values()), 1)


def test_the_page_lists_all_public_names() -> None:
    for package in ("search", "genre_core"):
        [row] = re.findall(rf"^\| `{package}` \|(.*)\|$", TEXT, re.MULTILINE)
        module = importlib.import_module(package)
        assert sorted(re.findall(r"`(\w+)`", row)) == sorted(module.__all__)
        for name in module.__all__:
            assert getattr(module, name).__doc__
        assert set(module.__all__) <= set(dir(module))
        with pytest.raises(AttributeError, match="nonsense"):
            module.nonsense  # noqa: B018


def test_the_output_on_the_page_has_the_form_of_the_output(after: dict[str, Any]) -> None:
    [shown] = re.findall(r"```text\n(.*?)```", TEXT, re.DOTALL)
    result = after["result"]
    for line, text in zip(shown.splitlines(), (repr(result), str(result.best)), strict=True):
        assert masked(line) == masked(text)


def masked(text: str) -> str:
    """A text without its names and numbers."""
    text = re.sub(r"\w+, frozen", "NET, frozen", re.sub(r"'.*'", "PATH", text))
    return re.sub(r"\d[\d.e-]*", "0", text.replace("PRUNED", "COMPLETE"))


def test_the_table_of_a_notebook_shows_the_best_trials(after: dict[str, Any]) -> None:
    page = after["result"]._repr_html_()
    first = re.findall(r"<td>(.*?)</td>", page)[0]
    assert page.count("<tr>") == TRIALS
    assert int(first) == after["result"].best.trial
