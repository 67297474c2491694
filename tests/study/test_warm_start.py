"""A search that begins with what earlier ones tried: the sampler and the pruner know it, and nothing counts it."""

from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from typing import Any

import optuna
import pytest
from conftest import Command, sets
from corpora import flat
from invariants import check
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from rich.console import Console

from genre_core.corpus.tracks import Corpus, write_corpus
from genre_core.errors import InputError
from search.cli.progress import Display
from search.config.schema import SearchConfig, load, to_yaml
from search.run.tables import read_trials
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import Study
from search.study.suggest import sample
from search.study.warm_start import read_earlier, require_same_data, teach
from search.tune import search

WEIGHTS = {"resnet18": "a file", "alexnet": "another file"}
SPACE: dict[str, Any] = {
    "space.backbone": ["resnet18", "alexnet"],
    "space.momentum": 0.9,
    "space.weight_decay": [0.0, 1e-4],
    "training.epochs": 4,
}
N_TRIALS = 20
"""That have a score in the earlier search; one has failed, one runs."""


def _corpus() -> Corpus:
    tracks = flat(jazz=4, rock=4).tracks
    parts = ["train", "train", "validation", "test"] * 2
    return Corpus(
        tuple(
            replace(track, content=str(n), split=part)
            for n, (track, part) in enumerate(zip(tracks, parts, strict=True))
        )
    )


def _study(folder: Path, *, asked: int = 0, sampler: str = "tpe") -> Study:
    return Study(
        folder / "study.journal",
        name=folder.name,
        sampler=make_sampler(sampler, {}, seed=0, asked=asked),
        pruner=make_pruner("median", {"n_warmup_steps": 0}, epochs=4),
    )


def _optunas(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """The trials as Optuna alone reads them."""
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    return optuna.load_study(study_name=folder.name, storage=storage).trials


def _f1(learning_rate: float, epoch: int) -> float:
    """Rates near 0.01 are best."""
    return epoch / 4 * min(learning_rate / 0.01, 0.01 / learning_rate)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search that drew at random, without a score for its last two trials."""
    run = tmp_path_factory.mktemp("earlier")
    config = load(None, SPACE)
    config = config.model_copy(update={"provenance": {"weights": WEIGHTS}})
    (run / "config.yaml").write_text(to_yaml(config))
    write_corpus(_corpus(), run / "corpus.parquet")
    study = _study(run, sampler="random")
    for _ in range(N_TRIALS):
        trial = study.ask()
        rate = sample(trial, config).learning_rate
        for epoch in range(1, 5):
            if study.report(trial.number, epoch=epoch, f1=_f1(rate, epoch)):
                study.prune(trial.number)
                break
        else:
            study.complete(trial.number)
    sample(study.ask(), config)
    study.fail(N_TRIALS, "no memory")
    sample(study.ask(), config)
    return run


def _teach(study: Study, run: Path, said: list[str] | None = None, **changes: Any) -> SearchConfig:
    config = load(
        None, SPACE | {k.replace("__", "."): v for k, v in changes.items()} | {"warm_start": [str(run)]}
    )
    teach(study, config, read_earlier(config), weights=WEIGHTS, say=([] if said is None else said).append)
    return config


@pytest.fixture
def new(tmp_path: Path) -> Path:
    (tmp_path / "new").mkdir()
    return tmp_path / "new"


def test_what_an_earlier_search_ended_is_known_as_it_ended(earlier: Path, new: Path) -> None:
    said: list[str] = []
    _teach(_study(new), earlier, said)
    assert said == [f"warm start: {N_TRIALS} of 22 trials of {earlier}; left out: 1 failed, 1 running"]
    theirs, ours = _optunas(earlier)[:N_TRIALS], _optunas(new)
    assert {trial.state.name for trial in ours} == {"COMPLETE", "PRUNED"}
    for their, our in zip(theirs, ours, strict=True):
        assert (their.state, their.value, their.params) == (our.state, our.value, our.params)
        assert their.intermediate_values == our.intermediate_values
        assert our.user_attrs == their.user_attrs | {"warm_start": [str(earlier), their.number]}


def test_nothing_counts_it_and_a_second_look_adds_nothing(earlier: Path, new: Path) -> None:
    study = _study(new)
    config = _teach(study, earlier)
    assert (study.asked, study.ended, study.running, study.trials) == (0, 0, (), [])
    again = _study(new)
    _teach(again, earlier)
    assert len(_optunas(new)) == len(again.known) == N_TRIALS
    sample(trial := again.ask(), config)
    assert (trial.number, again.asked, [own.number for own in again.trials]) == (N_TRIALS, 1, [N_TRIALS])


def _ran_itself(run: Path, config: SearchConfig) -> optuna.Study:
    """A study that asked for the earlier search's trials and told their ends itself."""
    study = optuna.create_study(direction="maximize")
    for theirs in _optunas(run)[:N_TRIALS]:
        study.enqueue_trial(theirs.params)
        sample(trial := study.ask(), config)
        for epoch, f1 in theirs.intermediate_values.items():
            trial.report(f1, epoch)
        study.tell(trial, theirs.value if theirs.state.name == "COMPLETE" else None, state=theirs.state)
    study.sampler = make_sampler("tpe", {}, seed=0)
    return study


def test_the_sampler_draws_as_if_it_had_run_those_trials_itself(
    earlier: Path, new: Path, tmp_path: Path
) -> None:
    (tmp_path / "cold").mkdir()
    cold, warm = _study(tmp_path / "cold"), _study(new)
    config = _teach(warm, earlier)
    reference = _ran_itself(earlier, config)
    drawn = [sample(warm.ask(), config) for _ in range(6)]
    assert drawn == [sample(reference.ask(), config) for _ in range(6)]
    assert drawn != [sample(cold.ask(), config) for _ in range(6)]


def test_the_pruner_measures_by_it(earlier: Path, new: Path, tmp_path: Path) -> None:
    (tmp_path / "cold").mkdir()
    cold, warm = _study(tmp_path / "cold"), _study(new)
    _teach(warm, earlier)
    assert warm.report(warm.ask().number, epoch=1, f1=0.0), "below the median of what it knows"
    assert not cold.report(cold.ask().number, epoch=1, f1=0.0)


@pytest.mark.parametrize(
    ("changes", "fits", "why"),
    [
        ({"space.backbone": "resnet18"}, lambda p: p["backbone"] == "resnet18", "backbone outside the space"),
        (
            {"space.learning_rate": {"low": 1e-3, "high": 0.1, "log": True}},
            lambda p: p["learning_rate"] >= 1e-3,
            "learning_rate outside the space",
        ),
        ({"space.momentum": {"low": 0.5, "high": 0.99}}, lambda p: True, ""),
        ({"space.momentum": [0.8, 0.95]}, lambda p: False, "momentum outside the space"),
        ({"space.momentum": 0.8}, lambda p: False, "momentum outside the space"),
        ({"space.weight_decay": 0.0}, lambda p: p["weight_decay"] == 0, "weight_decay outside the space"),
        ({"space.mixup": [0.0, 0.2]}, lambda p: True, ""),
        ({"space.batch_size": {"low": 33, "high": 64}}, lambda p: False, "batch_size outside the space"),
        (
            {"space.frozen_blocks": {"low": 2, "high": "all"}},
            lambda p: p.get("frozen_blocks_resnet18", p.get("frozen_blocks_alexnet")) >= 2,
            "frozen_blocks outside the space",
        ),
        ({"seed": 7, "trials": 3, "sampler": "random"}, lambda p: True, ""),
    ],
    ids=lambda case: str(case)[:50] if isinstance(case, dict) else "",
)
def test_only_trials_that_the_new_space_could_draw_are_taken(
    changes: dict[str, Any], fits: Callable[[dict[str, Any]], bool], why: str, earlier: Path, new: Path
) -> None:
    study, said = _study(new), list[str]()
    config = _teach(study, earlier, said, **changes)
    expected = [trial.number for trial in _optunas(earlier)[:N_TRIALS] if fits(trial.params)]
    taken = [trial.user_attrs["warm_start"][1] for trial in _optunas(new)]
    assert taken == expected
    assert said[0].startswith(f"warm start: {len(expected)} of 22 trials of ")
    assert why in said[0]
    for trial, theirs in zip(_optunas(new), expected, strict=True):
        drawn = sample(trial, config)
        assert replace(drawn, seed=0) == sample(_optunas(earlier)[theirs], load(None, SPACE))


def test_other_weights_are_another_search(earlier: Path, new: Path) -> None:
    said: list[str] = []
    config = load(None, SPACE | {"warm_start": [str(earlier)]})
    teach(
        _study(new), config, read_earlier(config), weights=WEIGHTS | {"alexnet": "a newer"}, say=said.append
    )
    assert all(trial.params["backbone"] == "resnet18" for trial in _optunas(new))
    assert " with other weights" in said[0]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"front_end": "mel64"}, "has front_end=mel128, not mel64"),
        ({"level": "absolute"}, "has level=track, not absolute"),
        ({"segment_seconds": 2.0}, "has segment_seconds=3.0, not 2.0"),
        ({"training.epochs": 8}, "has training.epochs=4, not 8"),
        ({"warm_start": ["nowhere"]}, "RUN must be the folder of a search"),
    ],
    ids=lambda case: str(case),
)
def test_a_search_that_scores_otherwise_is_refused_in_one_line(
    changes: dict[str, Any], words: str, earlier: Path
) -> None:
    config = load(None, SPACE | {"warm_start": [str(earlier)]} | changes)
    with pytest.raises(InputError, match=words) as caught:
        read_earlier(config)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"content": "new"}, "its corpus;"),
        ({"genre": "pop"}, "its genres;"),
        ({"split": "test"}, "its split;"),
    ],
    ids=lambda case: str(case),
)
def test_other_music_another_genre_and_another_split_are_refused(
    change: dict[str, Any], words: str, earlier: Path
) -> None:
    config = load(None, SPACE | {"warm_start": [str(earlier)]})
    first, *others = _corpus().tracks
    require_same_data(config, read_earlier(config), _corpus())
    with pytest.raises(InputError, match=words):
        require_same_data(config, read_earlier(config), Corpus((replace(first, **change), *others)))


def test_a_whole_search_begins_warm_and_goes_on_so(
    run: Path, tiny: Callable[..., SearchConfig], cache: Path, tmp_path: Path, small_ray: None
) -> None:
    theirs, warm = read_trials(run), tmp_path / "warm"
    screen = Display(Console(file=(said := StringIO()), width=200))
    config = tiny(trials=2, training__epochs=4, warm_start=[str(run)], pruner="none", seed=0)
    search.run(config, folder=warm, cache=cache, reporter=screen)
    assert f"warm start: {len(theirs)} of {len(theirs)} trials of {run}" in said.getvalue()
    check(warm, trials=2, keep_models=3)
    search.resume(load(warm / "config.yaml", {"trials": 3}), folder=warm, cache=cache, reporter=screen)
    assert said.getvalue().count("warm start") == 1
    check(warm, trials=3, keep_models=3)
    ours = read_trials(warm)
    assert ours["trial"].tolist() == [len(theirs) + n for n in range(3)]
    assert len(_optunas(warm)) == len(theirs) + 3
    assert not set(ours["learning_rate"]) & set(theirs["learning_rate"]), "the same seed draws others"


def test_the_command_refuses_another_split_before_the_run_has_a_name(
    run: Path, music: Path, genre_search: Command, tmp_path: Path
) -> None:
    options = ["--data", music, "--runs", tmp_path, "--name", "r", "--warm-start", run]
    refused = genre_search("run", *options, *sets(training__epochs=4), "--set", "split.seed=1")
    assert refused.returncode == 2
    assert f"but {run} differs in its split" in refused.stderr
    assert not (tmp_path / "r").exists()
