"""Warm start: the sampler and the pruner learn from comparable trials of earlier searches, which are not counted."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from io import StringIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import optuna
import pytest
from conftest import named
from corpora import flat
from invariants import check
from made_runs import Quiet, make_run, resume, without_setting
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from refusals import refused
from rich.console import Console
from tiny import TINY
from without_ray import searches_in_process

from genre_core.corpus.corpus_table import write_corpus
from genre_core.corpus.tracks import Corpus
from genre_core.errors import InputError
from search.config.schema import Optuna, SearchConfig, load, to_yaml
from search.config.space import FROZEN_SHARE, depth_in
from search.data import prepare
from search.display.progress import Display
from search.errors import SearchErrorCode
from search.run.identity import record
from search.run.tables import read_trials
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import Study
from search.study.suggest import sample
from search.study.warm_start import read_earlier, require_same_data, teach
from search.tune import search

NOT_COMPARABLE = SearchErrorCode.WARM_START_NOT_COMPARABLE
WEIGHTS = {"resnet18": "a file", "alexnet": "another file"}
SPACE: dict[str, Any] = {
    "space.backbone": ["resnet18", "alexnet"],
    "space.momentum": 0.9,
    "space.weight_decay": [0.0, 1e-4],
    "training.epochs": 4,
}
N_TRIALS = 20
"""Trials with a score in the earlier search; one more failed and one is running."""


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


def _all_trials(folder: Path) -> list[optuna.trial.FrozenTrial]:
    """All trials in the journal, as Optuna reads them."""
    storage = JournalStorage(JournalFileBackend(str(folder / "study.journal")))
    return optuna.load_study(study_name=folder.name, storage=storage).trials


def _f1(learning_rate: float, epoch: int) -> float:
    """Learning rates near 0.01 are best."""
    return epoch / 4 * min(learning_rate / 0.01, 0.01 / learning_rate)


@pytest.fixture(scope="module")
def earlier(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search with a random sampler; its last two trials have no score."""
    return _searched(tmp_path_factory.mktemp("earlier"))


@pytest.fixture(scope="module")
def older(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a search by a version that had a parameter per backbone for the frozen depth."""
    run = _searched(tmp_path_factory.mktemp("older"), {"space.frozen_blocks": {"as_share": False}})
    without_setting(run)
    return run


def _searched(run: Path, changes: dict[str, Any] | None = None) -> Path:
    config = load(None, SPACE | (changes or {}))
    config = config.model_copy(update={"provenance": {"weights": WEIGHTS}})
    (run / "config.yaml").write_text(to_yaml(config))
    write_corpus(_corpus(), run / "corpus.parquet")
    study = _study(run, sampler="random")
    for _ in range(N_TRIALS):
        trial = study.ask()
        rate = sample(trial, config).learning_rate
        for epoch in range(1, 5):
            study.report(trial.number, epoch=epoch, f1=_f1(rate, epoch))
            if study.should_prune(trial.number):
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


def test_trials_are_taken_over_with_their_state_value_and_curve(earlier: Path, new: Path) -> None:
    said: list[str] = []
    _teach(_study(new), earlier, said)
    assert said == [f"warm start: {N_TRIALS} of 22 trials of {earlier}; left out: 1 failed, 1 running"]
    theirs, ours = _all_trials(earlier)[:N_TRIALS], _all_trials(new)
    assert {trial.state.name for trial in ours} == {"COMPLETE", "PRUNED"}
    for their, our in zip(theirs, ours, strict=True):
        assert (their.state, their.value, their.params) == (our.state, our.value, our.params)
        assert their.intermediate_values == our.intermediate_values
        assert our.user_attrs == their.user_attrs | {"warm_start": [str(earlier), their.number]}


def test_trials_taken_over_are_not_counted_and_not_added_twice(earlier: Path, new: Path) -> None:
    study = _study(new)
    config = _teach(study, earlier)
    assert (study.asked, study.ended, study.running, study.trials) == (0, 0, (), [])
    again = _study(new)
    _teach(again, earlier)
    assert len(_all_trials(new)) == len(again.known) == N_TRIALS
    sample(trial := again.ask(), config)
    assert (trial.number, again.asked, [own.number for own in again.trials]) == (N_TRIALS, 1, [N_TRIALS])


def test_trials_of_a_search_without_optimizers_are_taken_over_as_sgd(earlier: Path, new: Path) -> None:
    said: list[str] = []
    _teach(_study(new), earlier, said, space__optimizer=["adamw", "sgd"])
    assert f"{N_TRIALS} of 22 trials" in said[0]
    assert {trial.params["optimizer"] for trial in _all_trials(new)} == {"sgd"}
    (new / "study.journal").unlink()
    _teach(_study(new), earlier, said, space__optimizer="adamw")
    assert f"{N_TRIALS} optimizer outside the space" in said[1]


def _ran_itself(run: Path, config: SearchConfig) -> optuna.Study:
    """A study that ran the trials of the earlier search itself."""
    study = optuna.create_study(direction="maximize")
    for theirs in _all_trials(run)[:N_TRIALS]:
        study.enqueue_trial(theirs.params)
        sample(trial := study.ask(), config)
        for epoch, f1 in theirs.intermediate_values.items():
            trial.report(f1, epoch)
        study.tell(trial, theirs.value if theirs.state.name == "COMPLETE" else None, state=theirs.state)
    study.sampler = make_sampler("tpe", {}, seed=0)
    return study


def test_the_sampler_samples_as_if_the_search_had_run_those_trials_itself(
    earlier: Path, new: Path, tmp_path: Path
) -> None:
    (tmp_path / "cold").mkdir()
    cold, warm = _study(tmp_path / "cold"), _study(new)
    config = _teach(warm, earlier)
    reference = _ran_itself(earlier, config)
    drawn = [sample(warm.ask(), config) for _ in range(6)]
    assert drawn == [sample(reference.ask(), config) for _ in range(6)]
    assert drawn != [sample(cold.ask(), config) for _ in range(6)]


def test_the_pruner_compares_with_trials_taken_over(earlier: Path, new: Path, tmp_path: Path) -> None:
    (tmp_path / "cold").mkdir()
    cold, warm = _study(tmp_path / "cold"), _study(new)
    _teach(warm, earlier)
    for study, pruned in ((warm, True), (cold, False)):
        number = study.ask().number
        study.report(number, epoch=1, f1=0.0)
        assert study.should_prune(number) == pruned, "below the median of the trials taken over"


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
            lambda p: (depth_in(p, p["backbone"]) or 0) >= 2,
            "frozen_blocks outside the space",
        ),
        ({"seed": 7, "trials": 3, "sampler": "random"}, lambda p: True, ""),
    ],
    ids=lambda case: str(case)[:50] if isinstance(case, dict) else "",
)
def test_only_trials_in_the_new_space_are_taken_over(
    changes: dict[str, Any], fits: Callable[[dict[str, Any]], bool], why: str, earlier: Path, new: Path
) -> None:
    study, said = _study(new), list[str]()
    config = _teach(study, earlier, said, **changes)
    expected = [trial.number for trial in _all_trials(earlier)[:N_TRIALS] if fits(trial.params)]
    taken = [trial.user_attrs["warm_start"][1] for trial in _all_trials(new)]
    assert taken == expected
    assert said[0].startswith(f"warm start: {len(expected)} of 22 trials of ")
    assert why in said[0]
    for trial, theirs in zip(_all_trials(new), expected, strict=True):
        drawn = sample(trial, config)
        assert replace(drawn, seed=0) == sample(_all_trials(earlier)[theirs], load(None, SPACE))


BOUNDED: dict[str, Any] = {"low": 1, "high": 4}


def _depths(folder: Path) -> list[tuple[str, int | None]]:
    """Backbone and frozen depth of each trial with a score."""
    params = [trial.params for trial in _all_trials(folder)[:N_TRIALS]]
    return [(p["backbone"], depth_in(p, p["backbone"])) for p in params]


def _depth_parameters(folder: Path) -> set[str]:
    return {name for trial in _all_trials(folder) for name in trial.params if name.startswith("frozen")}


PER_BACKBONE = {"frozen_blocks_resnet18", "frozen_blocks_alexnet"}


@pytest.mark.parametrize(
    ("source", "space__frozen_blocks", "theirs", "ours"),
    [
        ("older", {"low": 0, "high": "all"}, PER_BACKBONE, {FROZEN_SHARE}),
        ("older", BOUNDED, PER_BACKBONE, PER_BACKBONE),
        ("older", [1, 2, 3, 4], PER_BACKBONE, PER_BACKBONE),
        ("earlier", BOUNDED, {FROZEN_SHARE}, PER_BACKBONE),
        ("earlier", [1, 2, 3, 4], {FROZEN_SHARE}, PER_BACKBONE),
        ("earlier", {"as_share": False}, {FROZEN_SHARE}, PER_BACKBONE),
    ],
    ids=named,
)
def test_a_frozen_depth_gets_the_parameter_of_the_new_search(
    source: str,
    space__frozen_blocks: Any,
    theirs: set[str],
    ours: set[str],
    request: pytest.FixtureRequest,
    new: Path,
) -> None:
    run = request.getfixturevalue(source)
    assert _depth_parameters(run) == theirs
    study = _study(new)
    config = _teach(study, run, space__frozen_blocks=space__frozen_blocks)
    bounded = space__frozen_blocks in (BOUNDED, [1, 2, 3, 4])
    expected = [(name, depth) for name, depth in _depths(run) if not bounded or depth in (1, 2, 3, 4)]
    assert _depths(new) == expected
    sample(study.ask(), config)
    assert _depth_parameters(new) == ours


def test_the_sampler_of_a_whole_depth_models_it_with_the_trials_of_an_older_search(
    older: Path, new: Path
) -> None:
    _teach(_study(new), older)
    taught = optuna.load_study(
        study_name=new.name,
        storage=JournalStorage(JournalFileBackend(str(new / "study.journal"))),
        sampler=make_sampler("tpe", {}, seed=0),
    )
    space = taught.sampler.infer_relative_search_space(taught, taught.trials[0])
    assert set(space) == {FROZEN_SHARE, "backbone", "learning_rate", "weight_decay"}


def test_trials_with_other_weights_are_left_out(earlier: Path, new: Path) -> None:
    said: list[str] = []
    config = load(None, SPACE | {"warm_start": [str(earlier)]})
    teach(
        _study(new), config, read_earlier(config), weights=WEIGHTS | {"alexnet": "a newer"}, say=said.append
    )
    assert all(trial.params["backbone"] == "resnet18" for trial in _all_trials(new))
    assert " with other weights" in said[0]


@pytest.mark.parametrize(
    ("changes", "facts"),
    [
        ({"front_end": "mel64"}, ["front_end=mel128", "mel64"]),
        ({"level": "absolute"}, ["level=track", "absolute"]),
        ({"segment_seconds": 2.0}, ["segment_seconds=3.0", "2.0"]),
        ({"training.epochs": 8}, ["training.epochs=4", "8"]),
    ],
    ids=str,
)
def test_a_search_with_other_scoring_settings_is_rejected(
    changes: dict[str, Any], facts: list[str], earlier: Path
) -> None:
    config = load(None, SPACE | {"warm_start": [str(earlier)]} | changes)
    with refused(NOT_COMPARABLE, *facts, earlier):
        read_earlier(config)


def test_a_folder_without_a_search_or_without_a_journal_is_rejected(earlier: Path, tmp_path: Path) -> None:
    nothing, not_started = tmp_path / "nothing", tmp_path / "not started"
    not_started.mkdir()
    shutil.copy(earlier / "config.yaml", not_started)
    with pytest.raises(InputError) as caught:
        read_earlier(load(None, {"warm_start": [str(nothing)]}))
    assert str(nothing) in str(caught.value)
    with refused(SearchErrorCode.WARM_START_NOT_STARTED, not_started):
        read_earlier(load(None, {"warm_start": [str(not_started)]}))


@pytest.mark.parametrize(
    ("change", "difference"),
    [({"content": "new"}, "its corpus"), ({"genre": "pop"}, "its genres"), ({"split": "test"}, "its split")],
    ids=str,
)
def test_a_search_of_other_music_with_other_genres_or_another_split_is_rejected(
    change: dict[str, Any], difference: str, earlier: Path
) -> None:
    config = load(None, SPACE | {"warm_start": [str(earlier)]})
    first, *others = _corpus().tracks
    require_same_data(config, read_earlier(config), _corpus())
    with refused(NOT_COMPARABLE, difference, earlier):
        require_same_data(config, read_earlier(config), Corpus((replace(first, **change), *others)))


def test_files_that_another_machine_decodes_to_other_samples_are_the_same_corpus(earlier: Path) -> None:
    config = load(None, SPACE | {"warm_start": [str(earlier)]})
    hashed = [replace(track, file_hash=f"file {n}") for n, track in enumerate(_corpus().tracks)]
    write_corpus(Corpus(tuple(hashed)), earlier / "corpus.parquet")
    here = [replace(track, content=f"off by a bit {n}") for n, track in enumerate(hashed)]
    require_same_data(config, read_earlier(config), Corpus(tuple(here)))
    for changed, difference in (
        (replace(here[0], file_hash="another"), "corpus"),
        (replace(here[0], split="test"), "split"),
    ):
        with refused(NOT_COMPARABLE, difference, earlier):
            require_same_data(config, read_earlier(config), Corpus((changed, *here[1:])))


def test_a_warm_search_with_the_same_seed_samples_other_trials(earlier: Path, new: Path) -> None:
    study, config = _study(new, sampler="random"), load(None, SPACE | {"warm_start": [str(earlier)]})
    config = config.model_copy(update={"sampler": Optuna(name="random")})
    prepared: Any = SimpleNamespace(weights=WEIGHTS)
    search._warm_start(study, config, read_earlier(config), prepared, Quiet())
    ours = {sample(study.ask(), config).learning_rate for _ in range(5)}
    theirs = {trial.params["learning_rate"] for trial in _all_trials(earlier)}
    assert len(ours) == 5
    assert not ours & theirs


ONE_EPOCH: dict[str, Any] = {
    "space.learning_rate": [0.003, 0.01],
    "space.momentum": 0.9,
    "space.frozen_blocks": 5,
    "training.epochs": 1,
    "sampler": "random",
    "trials": 20,
}
"""Two configurations."""


@pytest.fixture(scope="module")
def earlier_music(music: Path, cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a made-up search of the tests' music, with one trial."""
    settings = TINY | ONE_EPOCH | {"data": str(music)}
    run = make_run(tmp_path_factory.mktemp("made") / "earlier", [[0.4]], settings=settings)
    config = load(run / "config.yaml", {})
    tracks, prepared = prepare.prepare(config, prepare.read_data(config), cache=cache, reporter=_display())
    write_corpus(tracks, run / "corpus.parquet")
    record(run, {"weights": prepared.weights})
    return run


def _display(file: TextIO | None = None) -> Display:
    return Display(Console(file=file or StringIO(), width=200))


def test_a_run_that_rejects_an_earlier_search_leaves_no_folder(
    earlier_music: Path, tiny: Callable[..., SearchConfig], cache: Path, tmp_path: Path
) -> None:
    config = tiny(training__epochs=1, split__seed=1, warm_start=[str(earlier_music)])
    with refused(NOT_COMPARABLE, "its split"):
        search.run(config, folder=tmp_path / "r", cache=cache, reporter=_display())
    assert not (tmp_path / "r").exists()


def test_a_whole_search_starts_warm_and_ends_when_its_space_is_exhausted(
    earlier_music: Path, tiny: Callable[..., SearchConfig], cache: Path, tmp_path: Path
) -> None:
    folder, said = tmp_path / "r", StringIO()
    own = {key.replace(".", "__"): value for key, value in ONE_EPOCH.items()}
    config = tiny(**own, warm_start=[str(earlier_music)])
    with searches_in_process():
        assert search.run(config, folder=folder, cache=cache, reporter=_display(said)), "not interrupted"
    assert said.getvalue().count(f"1 of 1 trials of {earlier_music}") == 1
    assert said.getvalue().count("--repeat-seeds 2") == 1
    check(folder, trials=2, keep_models=3)
    trials = read_trials(folder)
    assert trials["trial"].tolist() == [1, 2]
    assert sorted(trials["learning_rate"]) == [0.003, 0.01]
    (again,) = resume(folder)
    assert "--repeat-seeds 2" in again
