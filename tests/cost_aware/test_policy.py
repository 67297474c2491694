"""Decisions of a cost-aware search, in studies in memory."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState

from search.cost_aware.cost import Cost
from search.cost_aware.policy import NOTHING, Choice, FreezeThaw, Settings
from search.cost_aware.pruner import CostAwarePruner
from search.cost_aware.sampler import CostAwareSampler
from search.cost_aware.space import Configuration, draw_from

EPOCHS = 4
SPACE: dict[str, BaseDistribution] = {
    "backbone": CategoricalDistribution(("small", "large")),
    "frozen_share": FloatDistribution(0, 1),
    "quality": FloatDistribution(0, 1),
}
CHEAP, DEAR = 0.1, 10.0
"""Seconds of an epoch of `small` and of `large` where nothing is frozen."""


def cost_of(params: Mapping[str, Any]) -> Cost:
    """Costs that fall with the frozen share."""
    full = CHEAP if params["backbone"] == "small" else DEAR
    epoch = full * (1 - 0.9 * params["frozen_share"])
    return Cost(start=0.0, epoch=epoch, switch=0.01)


def score(params: Mapping[str, Any], epoch: int) -> float:
    """A curve that rises to the quality of a configuration."""
    return float(params["quality"] * (1 - 0.5**epoch))


class Search:
    """A search with one worker, which keeps trials that the pruner ends as paused ones."""

    def __init__(self, *, first: int = 1, seed: int = 0, trials: int = 1000, **settings: Any) -> None:
        self.policy = FreezeThaw(
            draw=draw_from(SPACE),
            cost_of=cost_of,
            max_epochs=EPOCHS,
            arm="backbone",
            seed=seed,
            settings=Settings(first_per_arm=first, **settings),
        )
        self.study = optuna.create_study(
            direction="maximize", sampler=CostAwareSampler(self.policy), pruner=CostAwarePruner(self.policy)
        )
        self.trials: dict[int, optuna.Trial] = {}
        self.paused: set[int] = set()
        self.seconds = 0.0
        self._trials = trials
        self._reported: dict[int, list[float]] = {}

    @property
    def best(self) -> float:
        """The best score so far."""
        return max(map(max, filter(None, self._reported.values())), default=0.0)

    def choose(self, *, busy: tuple[int, ...] = ()) -> Choice:
        """Ask the policy."""
        may_ask = len(self.trials) < self._trials
        return self.policy.choose(self.study, paused=self.paused, busy=busy, may_ask=may_ask)

    def turn(self, value: Callable[[Mapping[str, Any], int], float] = score) -> Choice:
        """Let the worker do what the policy chooses until the trial pauses or ends."""
        choice = self.choose()
        if choice == NOTHING:
            return choice
        trial = self.study.ask(SPACE) if choice.new else self.trials[choice.trial or 0]
        self.trials[trial.number] = trial
        self.paused.discard(trial.number)
        done = len(self._reported.setdefault(trial.number, []))
        for epoch in range(done + 1, EPOCHS + 1):
            self.seconds += cost_of(trial.params).epoch
            trial.report(value(trial.params, epoch), epoch)
            self._reported[trial.number].append(value(trial.params, epoch))
            if epoch == EPOCHS:
                self.study.tell(trial, value(trial.params, epoch))
            elif trial.should_prune():
                self.paused.add(trial.number)
                break
        return choice

    def add(self, *scores: float, state: TrialState = TrialState.RUNNING, **params: Any) -> int:
        """Add a trial with known scores; a running one is paused."""
        full = {"backbone": "small", "frozen_share": 0.0, "quality": 0.5} | params
        self.study.enqueue_trial(full)
        trial = self.study.ask(SPACE)
        for epoch, reported in enumerate(scores, 1):
            trial.report(reported, epoch)
        if state.is_finished():
            self.study.tell(trial, max(scores) if state == TrialState.COMPLETE else None, state=state)
        else:
            self.paused.add(trial.number)
        self.trials[trial.number] = trial
        return trial.number


def test_a_search_begins_with_the_cheapest_of_each_arm_the_cheapest_arm_first() -> None:
    search = Search(first=2)
    for _ in range(4):
        assert search.turn().new
    params = [trial.params for trial in search.study.trials]
    assert [p["backbone"] for p in params] == ["small", "large", "small", "large"]
    assert all(p["frozen_share"] > 0.9 for p in params)


def test_the_first_trial_of_an_arm_is_in_the_middle_of_the_space_and_the_second_is_far_from_it() -> None:
    for seed in range(5):
        search = Search(first=2, seed=seed, drawn=1000)
        for _ in range(4):
            search.turn()
        for arm in ("small", "large"):
            own = [t.params["quality"] for t in search.study.trials if t.params["backbone"] == arm]
            assert 0.25 < own[0] < 0.75
            assert abs(own[1] - own[0]) > 0.2


def test_few_bad_trials_do_not_rule_out_an_arm_but_many_do() -> None:
    def share_of_large(trials: int, seed: int) -> float:
        search = Search(seed=seed, first=0, drawn=64, varied=0)
        search.policy._cost_of = lambda params: Cost(start=0.0, epoch=1.0, switch=0.01)
        random = np.random.default_rng(seed)
        for i in range(20):
            search.add(*[0.6] * EPOCHS, quality=random.random(), state=TrialState.COMPLETE)
            if i < trials:
                bad = {"backbone": "large", "quality": random.random()}
                search.add(*[0.5] * EPOCHS, state=TrialState.COMPLETE, **bad)
        first = len(search.study.trials)
        for _ in range(10):
            assert search.choose().new
            search.study.ask(SPACE)
        return float(np.mean([trial.params["backbone"] == "large" for trial in search.study.trials[first:]]))

    assert np.mean([share_of_large(2, seed) for seed in range(5)]) > 0.5
    assert np.mean([share_of_large(20, seed) for seed in range(5)]) < 0.2


def test_a_new_trial_has_the_parameters_that_were_chosen_and_each_is_proposed_once() -> None:
    search = Search()
    for _ in range(20):
        search.turn()
    new = [tuple(trial.params.values()) for trial in search.study.trials]
    assert len(set(new)) == len(new)
    assert all(trial.distributions == SPACE for trial in search.study.trials)


def bad_and_good() -> Search:
    """A search without new trials that has completed trials of low and of high quality."""
    search = Search(first=0, trials=0)
    for _ in range(6):
        search.add(0.1, 0.15, 0.18, 0.2, quality=0.2, state=TrialState.COMPLETE)
        search.add(0.4, 0.6, 0.7, 0.75, quality=0.8, state=TrialState.COMPLETE)
    return search


def test_a_promising_paused_trial_is_resumed_before_a_hopeless_one() -> None:
    search = bad_and_good()
    hopeless = search.add(0.1, quality=0.2)
    promising = search.add(0.42, quality=0.85)
    assert search.choose().trial == promising
    assert search.policy.least_promising(search.study, search.paused) == hopeless


def test_of_two_equally_promising_trials_the_cheaper_one_is_resumed() -> None:
    search = Search(first=0, trials=0)
    numbers = {}
    for name in ("large", "small"):
        for _ in range(4):
            search.add(0.4, 0.6, 0.7, 0.75, backbone=name, state=TrialState.COMPLETE)
        numbers[name] = search.add(0.41, backbone=name)
    assert search.choose().trial == numbers["small"]


def two_promising(**settings: Any) -> tuple[Search, int, int]:
    """A search with two paused trials that will exceed the best: a cheap one, and a dear one that will gain more."""
    search = Search(first=0, trials=0, rise=0.0, **settings)
    for _ in range(8):
        search.add(0.3, 0.4, 0.5, 0.6, backbone="small", state=TrialState.COMPLETE)
        search.add(0.3, 0.4, 0.5, 0.7, backbone="large", state=TrialState.COMPLETE)
    cheap = search.add(0.35, 0.45, 0.65, backbone="small")
    dear = search.add(0.35, 0.45, 0.62, backbone="large")
    return search, cheap, dear


def test_cost_is_ignored_where_the_exponent_is_0() -> None:
    search, _, dear = two_promising(cost_exponent=0.0)
    assert search.choose().trial == dear
    search, cheap, _ = two_promising(cost_exponent=1.0)
    assert search.choose().trial == cheap


def test_the_exponent_falls_as_the_budget_is_spent() -> None:
    search, cheap, dear = two_promising(cost_exponent=1.0)
    assert search.choose().trial == cheap
    search.policy._progress = lambda: 1.0
    assert search.choose().trial == dear


def test_a_trial_goes_on_where_nothing_else_is_worth_the_switch() -> None:
    search = Search(first=0, trials=0)
    for _ in range(6):
        search.add(0.4, 0.6, 0.7, 0.75, state=TrialState.COMPLETE)
    own = search.add(0.41)
    search.paused.clear()
    search.choose(busy=(own,))
    assert not search.trials[own].should_prune()


def test_a_trial_pauses_where_a_paused_one_promises_more() -> None:
    search = bad_and_good()
    own = search.add(0.1, quality=0.2)
    better = search.add(0.42, quality=0.8)
    search.paused = {better}
    search.choose(busy=(own, better))  # as if other workers held both
    search.policy._busy = {own}
    assert search.trials[own].should_prune()
    assert search.choose().trial == better


def test_the_rest_of_a_trial_that_costs_less_than_a_switch_is_computed_at_once() -> None:
    search = Search(first=1)
    search.policy._cost_of = lambda params: Cost(start=0.0, epoch=0.001, switch=1.0)
    search.turn()
    assert search.study.trials[0].state == TrialState.COMPLETE


def test_nothing_is_left_where_all_trials_have_ended() -> None:
    search = Search(trials=2)
    for _ in range(20):
        if search.turn() == NOTHING:
            break
    assert search.choose() == NOTHING
    assert len(search.study.trials) == 2


def test_paused_trials_that_cannot_gain_are_left_and_no_new_ones_begin_when_flat_stops_a_search() -> None:
    search = Search(first=0, rise=0.0, noise=1e-6)
    search.add(0.3, 0.3, 0.3, 0.3, state=TrialState.COMPLETE, quality=0.2)
    for arm in 20 * ["small", "large"]:
        search.add(0.2, 0.2, 0.2, 0.2, state=TrialState.COMPLETE, backbone=arm, quality=0.2)
    search.add(0.2, quality=0.2)
    assert search.choose() != NOTHING
    search.policy._stop_when_flat = True
    assert search.choose() == NOTHING


def test_a_failed_trial_counts_as_the_lowest_score() -> None:
    search = Search(first=0, trials=0, rise=0.0)
    for quality in np.linspace(0.0, 1.0, 12):
        if quality < 0.5:
            search.add(state=TrialState.FAIL, quality=quality)
        else:
            search.add(0.5, 0.5, 0.5, 0.6, state=TrialState.COMPLETE, quality=quality)
    hopeless = search.add(quality=0.1)
    good = search.add(quality=0.9)
    assert search.choose().trial == good
    assert search.policy.least_promising(search.study, {hopeless, good}) == hopeless


def test_workers_that_choose_at_once_get_different_trials() -> None:
    search = Search(first=0, trials=0)
    for _ in range(4):
        search.add(0.4, 0.6, 0.7, 0.75, state=TrialState.COMPLETE)
    numbers = {search.add(0.4 + 0.01 * i) for i in range(6)}
    chosen: set[int] = set()
    for _ in range(6):
        search.paused = numbers - chosen
        choice = search.choose(busy=tuple(chosen))
        assert choice.trial is not None
        chosen.add(choice.trial)
    assert chosen == numbers


def test_decisions_repeat_with_the_same_seed() -> None:
    def params(seed: int) -> list[dict[str, Any]]:
        search = Search(seed=seed)
        for _ in range(8):
            search.turn()
        return [trial.params for trial in search.study.trials]

    assert params(1) == params(1)
    assert params(1) != params(2)


def test_a_good_configuration_is_found_for_less_than_by_random_search() -> None:
    """Quality is the score at the end; a random search needs 100 draws for the best per cent."""

    def seconds(seed: int) -> float:
        search = Search(seed=seed, trials=100)
        while search.best < 0.92 and search.turn() != NOTHING:
            pass
        return search.seconds

    def random_seconds(seed: int) -> float:
        random, total, best = np.random.default_rng(seed), 0.0, 0.0
        while best < 0.92:
            params = draw_from(SPACE)(random).params
            total += EPOCHS * cost_of(params).epoch
            best = max(best, score(params, EPOCHS))
        return total

    ours = np.median([seconds(seed) for seed in range(3)])
    assert ours < 0.2 * np.median([random_seconds(seed) for seed in range(25)])


def test_without_anything_that_pauses_it_samples_and_prunes_a_plain_study() -> None:
    policy = FreezeThaw(draw=draw_from(SPACE), cost_of=cost_of, max_epochs=EPOCHS, arm="backbone", seed=0)
    study = optuna.create_study(
        direction="maximize", sampler=CostAwareSampler(policy), pruner=CostAwarePruner(policy)
    )

    def objective(trial: optuna.Trial) -> float:
        params = {
            "backbone": trial.suggest_categorical("backbone", ("small", "large")),
            "frozen_share": trial.suggest_float("frozen_share", 0, 1),
            "quality": trial.suggest_float("quality", 0, 1),
        }
        for epoch in range(1, EPOCHS + 1):
            trial.report(score(params, epoch), epoch)
            if trial.should_prune():
                raise optuna.TrialPruned
        return score(params, EPOCHS)

    study.optimize(objective, n_trials=40)
    states = {trial.state for trial in study.trials}
    assert states == {TrialState.COMPLETE, TrialState.PRUNED}
    assert study.best_value > 0.8


def test_given_candidates_are_all_tried_and_nothing_else_is() -> None:
    random = np.random.default_rng(0)
    left = [draw_from(SPACE)(random) for _ in range(12)]
    every = [dict(configuration.params) for configuration in left]
    policy = FreezeThaw(
        draw=draw_from(SPACE),
        candidates=lambda: left,
        cost_of=cost_of,
        max_epochs=EPOCHS,
        arm="backbone",
    )
    study = optuna.create_study(direction="maximize", sampler=CostAwareSampler(policy))
    tried = []
    while left:
        trial = study.ask(SPACE)
        tried.append(trial.params)
        left = [configuration for configuration in left if dict(configuration.params) != trial.params]
        study.tell(trial, score(trial.params, EPOCHS))
    assert len(tried) == len(every)
    assert all(params in every for params in tried)


def test_a_conditional_space_whose_parameters_appear_one_after_the_other_can_be_searched() -> None:
    def draw(random: np.random.Generator) -> Configuration:
        backbone = str(random.choice(["small", "large"], p=[0.9, 0.1]))
        own: dict[str, BaseDistribution] = {
            "backbone": SPACE["backbone"],
            f"blocks_{backbone}": IntDistribution(0, 3),
            "quality": SPACE["quality"],
        }
        drawn = draw_from({name: one for name, one in own.items() if name != "backbone"})(random)
        return Configuration({"backbone": backbone, **drawn.params}, own)

    search = Search(seed=3, drawn=8, varied=8)
    search.policy._draw = draw
    search.policy._cost_of = lambda params: Cost(start=0.0, epoch=1.0, switch=0.1)
    for _ in range(25):
        choice = search.choose()
        trial = search.study.ask() if choice.new else search.trials[choice.trial or 0]
        search.trials[trial.number] = trial
        if choice.new:
            backbone = trial.suggest_categorical("backbone", ("small", "large"))
            trial.suggest_int(f"blocks_{backbone}", 0, 3)
            trial.suggest_float("quality", 0, 1)
        search.paused.discard(trial.number)
        done = len(search.study.trials[trial.number].intermediate_values)
        trial.report(score(trial.params, done + 1), done + 1)
        if done + 1 == EPOCHS:
            search.study.tell(trial, score(trial.params, EPOCHS))
        else:
            trial.should_prune()
            search.paused.add(trial.number)
    assert {trial.params["backbone"] for trial in search.study.trials} == {"small", "large"}
