"""Replays of recorded curves: the same decisions as a search, with costs that plain loops confirm."""

import json
import shutil
import subprocess
import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from conftest import Command
from made_runs import make_run
from refusals import refused

from genre_core.recipe import Recipe
from search.engine.contenders import AS_RECORDED, CONTENDERS, Contender, Parts, Situation
from search.engine.pool_sampler import Deck, PoolSampler, PoolSpace
from search.engine.recorded import CellCost, Curve, Pool, read_pool
from search.engine.simulator import Replay, Trace, simulate
from search.errors import SearchErrorCode
from search.report.replays import outcome
from search.run.tables import read_trials

SHARED_BACKBONES = ("alexnet", "resnet18")
CORPUS = Path(__file__).parents[1] / "data/run_of_0_1/corpus.parquet"
N_BLOCKS = {"alexnet": 7, "resnet18": 5}
PAUSING = ("one_epoch_then_best", "successive_halving_promotion", "cost_aware")
STOPPING = ("random_asha", "optuna_tpe_median", "optuna_tpe_hyperband")


def made_pool(n_curves: int = 28, *, seed: int = 0, n_epochs: int = 5) -> Pool:
    """A pool whose curves rise to a random height; every seventh trial fails."""
    random = np.random.default_rng(seed)
    curves = []
    for number in range(n_curves):
        backbone = str(random.choice(SHARED_BACKBONES))
        recipe = Recipe(
            backbone=backbone,
            weights="random",
            frozen_blocks=int(random.integers(N_BLOCKS[backbone] + 1)),
            learning_rate=float(10 ** random.uniform(-4, -1)),
            momentum=float(random.uniform(0.5, 0.98)),
            epochs=n_epochs,
        )
        failed = number % 7 == 6
        n_scores = int(random.integers(n_epochs)) if failed else n_epochs
        height = random.uniform(0.2, 0.9)
        curves.append(
            Curve(
                recipe=recipe,
                n_blocks=N_BLOCKS[backbone],
                trainable_parameters=1000,
                scores=tuple(float(height * (1 - 0.5 ** (e + 1))) for e in range(n_scores)),
                seconds=tuple(random.uniform(1, 3, n_scores).tolist()),
                build_seconds=float(random.uniform(0, 1)),
                error="diverged" if failed else None,
                failing_seconds=2.0 if failed else 0.0,
            )
        )
    cells = {
        curve.cell: CellCost(features=3.0 * curve.recipe.frozen_blocks, save=0.25, restore=0.5)
        for curve in curves
    }
    return Pool(curves=tuple(curves), cells=cells)


def replayed(pool: Pool, name: str, *, workers: int = 1, seed: int = 0) -> Replay:
    """A search that was replayed to its end."""
    replay = Replay(pool, CONTENDERS[name], workers=workers, seed=seed)
    for _ in replay.steps():
        pass
    return replay


def order(replay: Replay) -> list[Curve]:
    """The curves in the order in which they were drawn."""
    return [replay.curve_of(trial.number) for trial in replay.study.trials]


def test_one_worker_without_pruning_needs_the_sum_of_the_costs_in_the_order_drawn() -> None:
    pool = made_pool()
    replay = replayed(pool, "random")
    now, epochs, best, expected = 0.0, 0, 0.0, []
    deepest: Counter[str] = Counter()
    for curve in order(replay):
        backbone, depth = curve.cell
        now += 3.0 * max(0, depth - deepest[backbone])  # a pass stores what it passes
        deepest[backbone] = max(deepest[backbone], depth)
        now += curve.build_seconds
        for score, seconds in zip(curve.scores, curve.seconds, strict=True):
            now += seconds
            epochs += 1
            if score > best:
                best = score
                expected.append((score, now, epochs))
        now += curve.failing_seconds
    trace = replay.trace()
    assert trace.seconds == pytest.approx(now)
    assert trace.worker_seconds == pytest.approx(now)
    assert trace.epochs == epochs
    improvements = [(step.f1, step.seconds, step.epochs) for step in trace.improvements]
    np.testing.assert_allclose(improvements, expected)
    assert all(step.worker_seconds == pytest.approx(step.seconds) for step in trace.improvements)


def test_pausing_costs_a_checkpoint_and_resuming_a_network_and_reading_it() -> None:
    pool = made_pool()
    replay = replayed(pool, "one_epoch_then_best")
    drawn = order(replay)
    now = 0.0
    for backbone in {curve.recipe.backbone for curve in drawn}:
        depths = [curve.recipe.frozen_blocks for curve in drawn if curve.recipe.backbone == backbone]
        now += pool.cells[backbone, max(depths)].features
    for curve in drawn:  # an epoch each
        now += curve.build_seconds + (curve.seconds[0] if curve.scores else curve.failing_seconds)
        now += 0.25 * bool(curve.scores)
    left = [curve for curve in drawn if curve.scores]
    for curve in left:
        now += curve.build_seconds + 0.5 + sum(curve.seconds[1:]) + curve.failing_seconds
    assert replay.trace().seconds == pytest.approx(now)
    ranked = sorted(left, key=lambda curve: -curve.scores[0])
    ends = [trial.number for trial in sorted(replay.study.trials, key=lambda t: t.datetime_complete or 0)]
    assert [replay.curve_of(number) for number in ends if replay.curve_of(number).scores] == ranked


def test_a_search_learns_what_its_turns_cost_besides_epochs() -> None:
    pool = made_pool()
    pool = replace(pool, curves=[replace(curve, build_seconds=4.0) for curve in pool.curves])
    given: list[Situation] = []

    def parts(situation: Situation) -> Parts:
        given.append(situation)
        return CONTENDERS["one_epoch_then_best"].parts(situation)

    for _ in Replay(pool, Contender(name="noted", parts=parts), workers=2, seed=0).steps():
        pass
    alike = [curve for curve in pool.curves if curve.cell == pool.curves[0].cell and curve.seconds]
    cost = given[0].costs.of(*alike[0].cell)
    assert cost.start == pytest.approx(4.0, rel=0.1)
    seconds = [own for curve in alike for own in curve.seconds]
    assert cost.epoch == pytest.approx(np.mean(seconds), rel=0.02)


def test_promotion_resumes_a_third_of_each_rung() -> None:
    pool = made_pool(27)
    pool = replace(pool, curves=tuple(curve for curve in pool.curves if curve.error is None))
    replay = replayed(pool, "successive_halving_promotion")
    epochs = [len(trial.intermediate_values) for trial in replay.study.trials]
    first = sorted((curve.scores[0] for curve in order(replay)), reverse=True)
    assert len(epochs) // 3 <= sum(n > 1 for n in epochs) < len(epochs) // 2
    best = [n for n, curve in enumerate(order(replay)) if curve.scores[0] >= first[len(epochs) // 3 - 1]]
    assert all(epochs[n] > 1 for n in best)


def test_the_recorded_order_is_kept_where_nothing_samples() -> None:
    pool = made_pool()
    assert order(replayed(pool, AS_RECORDED)) == list(pool.curves)


@pytest.mark.parametrize("workers", [1, 3, 50, 1000])
def test_the_number_of_workers_changes_the_time_and_not_the_work(workers: int) -> None:
    pool = made_pool()
    one = replayed(pool, "random").trace()
    trace = replayed(pool, "random", workers=workers).trace()
    assert trace.worker_seconds == pytest.approx(one.worker_seconds)
    assert trace.epochs == one.epochs
    assert trace.worker_seconds / workers <= trace.seconds + 1e-9 <= one.seconds + 1e-8


def test_a_worker_waits_for_activations_that_another_one_computes() -> None:
    [curve] = [c for c in made_pool(40).curves if c.recipe.frozen_blocks and c.error is None][:1]
    pool = Pool(curves=(curve, curve), cells={curve.cell: CellCost(features=100.0)})
    trace = replayed(pool, AS_RECORDED, workers=2).trace()
    own = curve.build_seconds + sum(curve.seconds)
    assert trace.seconds == pytest.approx(100.0 + own)
    assert trace.worker_seconds == pytest.approx(100.0 + 2 * own)


@pytest.mark.parametrize("name", STOPPING + PAUSING)
def test_the_study_agrees_with_the_pool(name: str) -> None:
    pool = made_pool()
    replay = replayed(pool, name, workers=4)
    trials = replay.study.trials
    assert len(trials) == len(pool.curves)
    assert len({replay.curve_of(trial.number) for trial in trials}) == len(pool.curves)
    for trial in trials:
        curve = replay.curve_of(trial.number)
        assert trial.state.is_finished() or trial.number in replay.paused
        scores = tuple(
            trial.intermediate_values[epoch + 1] for epoch in range(len(trial.intermediate_values))
        )
        assert scores == curve.scores[: len(scores)]
        assert trial.params["backbone"] == curve.recipe.backbone
        assert trial.params["learning_rate"] == pytest.approx(curve.recipe.learning_rate)
        assert trial.params["momentum"] == pytest.approx(curve.recipe.momentum)
        share = trial.params["frozen_share"]
        assert min(curve.n_blocks, int(share * (curve.n_blocks + 1))) == curve.recipe.frozen_blocks
        if trial.state.name == "FAIL":
            assert curve.error == replay.study.error(trial.number)
        if trial.state.name == "COMPLETE":
            assert scores == curve.scores
            assert trial.value == max(curve.scores)
    states = [replay.study.state(trial.number) for trial in trials]
    assert ("PRUNED" in states) == (name in STOPPING)


@pytest.mark.parametrize("name", ["random", "random_asha", AS_RECORDED, *PAUSING])
@pytest.mark.parametrize("workers", [1, 5])
def test_virtual_time_never_goes_back(name: str, workers: int) -> None:
    replay = Replay(made_pool(), CONTENDERS[name], workers=workers, seed=0)
    times = list(replay.steps())
    assert times == sorted(times)
    assert times[0] > 0


@pytest.mark.parametrize("name", ["random", "optuna_tpe_median", "cost_aware"])
def test_a_seed_decides_everything(name: str) -> None:
    pool = made_pool()
    traces = [simulate(pool, CONTENDERS[name], workers=3, seed=seed) for seed in (1, 1, 2)]
    assert traces[0] == traces[1]
    assert traces[0] != traces[2]


def test_a_replay_ends_at_its_target() -> None:
    pool = made_pool()
    target = pool.best_f1 - 0.05
    whole = simulate(pool, CONTENDERS["random"], workers=2, seed=0)
    short = simulate(pool, CONTENDERS["random"], workers=2, seed=0, target=target)
    assert short.reach(target) == whole.reach(target)
    assert short.seconds < whole.seconds


def test_a_proposal_becomes_the_nearest_unused_member() -> None:
    pool = made_pool(60)
    space = PoolSpace.of(pool)

    class Proposes(PoolSampler):
        """A sampler whose distances can be seen."""

        def nearest(self, proposed: dict[str, object]) -> int:
            return int(np.argmin(self._distances(proposed)))

    sampler = Proposes(None, Deck(space), random=np.random.default_rng(0))
    rates = [np.log(curve.recipe.learning_rate) for curve in pool.curves]
    momenta = [curve.recipe.momentum for curve in pool.curves]
    random = np.random.default_rng(3)
    for _ in range(50):
        rate, momentum, share = (
            random.uniform(min(rates), max(rates)),
            random.uniform(0.6, 0.9),
            random.random(),
        )
        expected = min(
            (n for n, curve in enumerate(pool.curves) if curve.recipe.backbone == "alexnet"),
            key=lambda n: (
                ((rates[n] - rate) / (max(rates) - min(rates))) ** 2
                + ((momenta[n] - momentum) / (max(momenta) - min(momenta))) ** 2
                + ((pool.curves[n].recipe.frozen_blocks + 0.5) / 8 - share) ** 2
            ),
        )
        proposed = {"backbone": "alexnet", "learning_rate": float(np.exp(rate)), "momentum": momentum}
        assert sampler.nearest({**proposed, "frozen_share": share}) == expected


def test_curves_and_costs_are_read_from_a_run(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ((0.2, 0.5, 0.4), (0.3, 0.1), (), (0.4,)))
    pool = read_pool([run])
    rows = read_trials(run)
    assert [curve.scores for curve in pool.curves] == [(0.2, 0.5, 0.4), (0.3, 0.1), (), (0.4,)]
    assert [curve.error is None for curve in pool.curves] == [True, True, False, True]
    assert [curve.cut for curve in pool.curves] == [False, True, False, True]
    assert [curve.recipe.learning_rate for curve in pool.curves] == rows["learning_rate"].tolist()
    assert pool.curves[0].seconds == (1.0, 1.0, 1.0)
    assert pool.curves[2].failing_seconds == 1.0
    assert pool.best_f1 == 0.5
    assert pool.cut == 2


def changed(run: Path, **columns: list[float]) -> None:
    """Change columns of a run's trials."""
    file = run / "results/trials.parquet"
    pd.read_parquet(file).assign(**columns).to_parquet(file)


def test_activations_cost_what_the_trial_that_computed_them_says(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", settings={"space.backbone": "alexnet", "space.frozen_blocks": 3})
    changed(run, features_seconds=[0.1, 7.0, 0.2], seconds=[3.6, 9.5, 3.2])
    pool = read_pool([run])
    assert pool.cells == {("alexnet", 3): CellCost(features=7.0)}
    assert [curve.build_seconds for curve in pool.curves] == pytest.approx([0.5, 0.5, 0.0])
    changed(run, attempt=[1, 2, 1])  # the second trial was paused, or lost its worker
    assert [curve.build_seconds for curve in read_pool([run]).curves] == pytest.approx([0.5, 0.25, 0.0])


def test_costs_measured_on_a_quiet_machine_are_preferred(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", settings={"space.backbone": "alexnet", "space.frozen_blocks": 3})
    costs = {"features_seconds": 5.0, "build_seconds": 0.5, "epoch_seconds": 2.0}
    more = {"checkpoint_bytes": 8, "save_seconds": 0.1, "restore_seconds": 0.2}
    table = pd.DataFrame([{"backbone": "alexnet", "frozen_blocks": 3, **costs, **more}])
    table.to_parquet(run / "costs.parquet")
    (run / "config.yaml").unlink()  # a surface has the tables alone
    pool = read_pool([run])
    assert pool.cells == {("alexnet", 3): CellCost(features=5.0, save=0.1, restore=0.2)}
    assert {curve.build_seconds for curve in pool.curves} == {0.5}
    assert pool.curves[0].seconds == (2.0, 2.0, 2.0)


def test_trials_of_several_runs_make_one_pool(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / name, ((0.2, 0.5, 0.4), (0.6, 0.7, 0.8))) for name in "ab"]
    both = read_pool(runs)
    assert both.curves == (*read_pool(runs[:1]).curves, *read_pool(runs[1:]).curves)


def test_runs_whose_scores_are_not_comparable_make_no_pool(tmp_path: Path) -> None:
    runs = [make_run(tmp_path / "a"), make_run(tmp_path / "b", settings={"front_end": "mel64"})]
    for run in runs:
        shutil.copy(CORPUS, run / "corpus.parquet")
    with refused(SearchErrorCode.RUNS_NOT_COMPARABLE, runs[0], runs[1], "front_end"):
        read_pool(runs)


def test_a_run_without_an_epoch_is_refused(tmp_path: Path) -> None:
    run = make_run(tmp_path / "r", ((), ()))
    with refused(SearchErrorCode.NOTHING_RECORDED, run):
        read_pool([run])


def trace(*steps: tuple[float, float]) -> Trace:
    """A trace that reaches F1s at times in seconds."""
    pool = made_pool(1)
    whole = simulate(pool, CONTENDERS["random"], workers=1, seed=0)
    reached = tuple(replace(whole.improvements[0], f1=f1, seconds=seconds) for f1, seconds in steps)
    return replace(whole, improvements=reached)


def test_quantiles_count_repeats_that_did_not_reach_the_goal() -> None:
    traces = [trace((0.5, 1.0), (0.8, second)) for second in (10.0, 20.0, 30.0)]
    never = trace((0.5, 1.0))
    half = outcome("s", 1, 0.05, [*traces, never, never, never], best_f1=0.8)
    assert (half.seconds_low, half.seconds_median, half.seconds_high) == (15.0, 30.0, None)
    assert half.reached == 0.5
    assert outcome("s", 1, 0.05, [*traces, *[never] * 4], best_f1=0.8).seconds_median is None
    every = outcome("s", 1, 0.05, traces, best_f1=0.8)
    assert (every.seconds_low, every.seconds_median, every.seconds_high) == pytest.approx((12.0, 20.0, 28.0))


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    random = np.random.default_rng(0)
    curves = [tuple(np.sort(random.uniform(0.1, 0.9, 3)).tolist()) for _ in range(12)]
    return make_run(tmp_path / "recorded", curves)


KEYS = {"strategy", "workers", "margin", "seconds_median", "seconds_low", "seconds_high", "reached"}


def test_json_has_a_line_for_each_strategy_number_of_workers_and_margin(
    recorded: Path, genre_search: Command
) -> None:
    done = genre_search("simulate", recorded, "--json", "--workers", 1, "--workers", 3, "--repeats", 2)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert all(line.keys() == KEYS for line in lines)
    found = [(line["strategy"], line["workers"], line["margin"]) for line in lines]
    assert len(found) == len(set(found))
    assert {name for name, *_ in found} == {"cost_aware", "optuna_tpe_median"}
    assert {(workers, margin) for _, workers, margin in found} == {
        (workers, margin) for workers in (1, 3) for margin in (0.05, 0.02, 0.01)
    }


def test_the_table_fits_80_columns_and_says_what_pruning_hides(tmp_path: Path, genre_search: Command) -> None:
    run = make_run(tmp_path / "r")  # one of the three trials was pruned
    done = genre_search("simulate", run, "--repeats", 2)
    assert done.returncode == 0, done.stderr
    assert max(map(len, done.stdout.splitlines())) <= 80
    assert "1 trial was pruned" in done.stdout


CHOSEN = [
    (("--search", "cost_aware"), {"cost_aware"}),
    (("--search", "optuna"), {"optuna_tpe_median"}),
    (("--pruner", "hyperband"), {"optuna_tpe_hyperband"}),
    (("--set", "sampler=random", "--set", "pruner=none"), {"random"}),
    ((), {"cost_aware", "optuna_tpe_median"}),
]


@pytest.mark.parametrize(
    ("options", "names"), CHOSEN, ids=["cost-aware", "optuna", "pruner", "settings", "default"]
)
def test_options_choose_what_is_replayed(
    options: tuple[str, ...], names: set[str], recorded: Path, genre_search: Command
) -> None:
    done = genre_search("simulate", recorded, "--json", "--repeats", 1, *options)
    assert {json.loads(line)["strategy"] for line in done.stdout.splitlines()} == names


def test_every_contender_has_its_name_and_an_own_key() -> None:
    assert [contender.name for contender in CONTENDERS.values()] == list(CONTENDERS)
    wanted = {"cost_aware", "optuna_tpe_median", "optuna_tpe_hyperband", "optuna_gp_median", "random"}
    assert wanted < CONTENDERS.keys()


def test_settings_of_the_sampler_and_the_pruner_are_used(recorded: Path, genre_search: Command) -> None:
    def replay(*options: str) -> list[dict[str, object]]:
        done = genre_search("simulate", recorded, "--json", *options)
        assert done.returncode == 0, done.stderr
        return [json.loads(line) for line in done.stdout.splitlines()]

    never = replay("--sampler", "random", "--pruner", "median", "--set", "pruner.n_startup_trials=99")
    assert [{**line, "strategy": ""} for line in never] == [
        {**line, "strategy": ""} for line in replay("--sampler", "random", "--pruner", "none")
    ]
    assert never != replay("--sampler", "random", "--pruner", "median", "--set", "pruner.n_startup_trials=1")
    assert never == replay("--set", "sampler=random", "--set", "pruner.n_startup_trials=99")
    other = replay("--sampler", "random", "--pruner", "none", "--set", "seed=6")
    assert other != replay("--sampler", "random", "--pruner", "none")


MISTAKES = [
    (("--workers", "0"), "--workers"),
    (("--workers", "1001"), "--workers"),
    (("--repeats", "0"), "--repeats"),
    (("--sampler", "tpes"), "tpes"),
    (("--pruner", "medium"), "medium"),
    (("--set", "training.epochs=3"), "training.epochs"),
    (("--search", "grid"), "grid"),
    (("--search", "cost_aware", "--sampler", "tpe"), "sampler"),
]


@pytest.mark.parametrize(("options", "named"), MISTAKES, ids=lambda case: "")
def test_a_mistake_is_one_line(
    options: tuple[str, ...], named: str, recorded: Path, genre_search: Command
) -> None:
    done = genre_search("simulate", recorded, *options)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert done.stderr.count("\n") == 1
    assert named in done.stderr


def test_a_replay_loads_neither_torch_nor_ray(recorded: Path) -> None:
    script = (
        "import sys\n"
        "from search.cli.main import main\n"
        "try: main(['simulate', sys.argv[1], '--repeats', '1', '--json'])\n"
        "except SystemExit as end: assert not end.code\n"
        "print(*{'torch', 'ray'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, recorded], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[-1] == ""
