"""Freeze-thaw: always computes the epoch, of a new or of a paused trial, with the most expected gain for its cost."""

import math
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import optuna
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState
from scipy.special import ndtr

from search.cost_aware.cost import CostOf
from search.cost_aware.space import Configuration, Draw, varied
from search.cost_aware.surrogate import ConfigurationModel, Derived, Encoder, RiseModel

_VARIED = 8
"""Number of the best trials that are varied."""
_EQUALLY_CHEAP = 1.25
"""Costs up to this factor of the smallest one count as equal."""
_SHORTEST = 0.01
"""Seconds; lower costs are treated as equal."""
FAILED_SCORE = 0.0
"""Score with which the model learns a failed trial: macro F1 cannot be lower."""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Constants of the strategy; benchmarks/strategies.py says on which recorded searches they were chosen."""

    cost_exponent: float = 0.75
    """Gain is divided by cost to this power: 0 ignores cost. It falls to 0 as the budget is spent (CArBO's cooling)."""
    first_per_arm: int = 2
    """Number of cheap configurations of each arm with which a search begins."""
    arm_deviation: float = 0.2
    """Standard deviation, in units of the score, that is added to the prediction for an arm with one trial, and to
    that for an arm with n trials divided by n: the trees are too certain about an arm with few trials."""
    noise: float = 0.01
    """Minimum standard deviation of a prediction, in units of the score."""
    rise: float = 0.25
    """Expected rise of a trial's best score from its first epoch to its last, before any was trained to its end."""
    hold: float = 2.0
    """A trial is paused, or stays paused, only for an alternative with this many times its gain per cost: predictions
    are rough, and the best of many new configurations is usually overrated."""
    flat: float = 0.001
    """Expected gain below which nothing more is worth its cost."""
    drawn: int = 128
    """New configurations that are compared."""
    varied: int = 64
    """Of these, variations of the best ones."""
    refit: float = 1.1
    """The model is fitted again when the number of scores has grown by this factor."""


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The next step of a worker."""

    trial: int | None = None
    """A paused trial to resume."""
    new: bool = False
    """Whether to start a new trial, whose parameters the sampler then returns."""


NOTHING = Choice()
"""Nothing is worth its cost, or there is nothing left."""


@dataclass(eq=False)
class _Candidate:
    """A trial, or a configuration that may become one."""

    configuration: Configuration
    arm: Any
    code: list[float]
    """See `Encoder`."""
    number: int | None = None
    """Of the trial."""
    scores: tuple[float, ...] = ()
    open: bool = True
    """Whether more epochs can be computed."""
    complete: bool = False
    """Whether it was trained to its end."""


def _log_cost(candidates: Sequence[_Candidate]) -> NDArray[np.float64]:
    """Natural logarithm of the seconds per epoch, the last column of a code."""
    return np.array([candidate.code[-1] for candidate in candidates])


class FreezeThaw:
    """Chooses what to compute next in a study that maximises a score reported after each epoch.

    Based on freeze-thaw Bayesian optimisation (Swersky et al. 2014) as Quick-Tune does it (Arango et al. 2024): one
    epoch at a time, expected improvement divided by predicted cost.
    """

    def __init__(
        self,
        *,
        draw: Draw,
        cost_of: CostOf,
        max_epochs: int,
        arm: str | None = None,
        derived: Derived | None = None,
        candidates: Callable[[], Sequence[Configuration]] | None = None,
        progress: Callable[[], float] | None = None,
        stop_when_flat: bool = False,
        seed: int = 0,
        settings: Settings = Settings(),
    ) -> None:
        """Set up.

        Args:
            draw: draws a configuration of the search space.
            cost_of: seconds that a configuration needs.
            max_epochs: maximum number of epochs of a trial.
            arm: a categorical parameter each of whose values is tried first, as cheaply as possible.
            derived: further numbers that a score depends on, computed from parameters.
            candidates: returns all configurations that new trials may have, always as the same objects; by default
                they are drawn, or are variations of good ones.
            progress: returns the spent share of the budget, from 0 to 1; None without a budget.
            stop_when_flat: whether to start no more trials when nothing is worth its cost.
            seed: seed of all random choices.
            settings: constants.
        """
        self._draw = draw
        self._cost_of = cost_of
        self._max_epochs = max_epochs
        self._arm = arm
        self._derived = derived
        self._left = candidates
        self._progress = progress
        self._stop_when_flat = stop_when_flat
        self._settings = settings
        self._random = np.random.default_rng(seed)
        self._known: dict[int, _Candidate] = {}
        """Trials by number."""
        self._new: list[_Candidate] = []
        self._busy: set[int] = set()
        """Numbers of the trials that a worker holds."""
        self._may_ask = True
        self._waiting = False
        """Whether the study has enqueued trials that have not begun."""
        self._pauses = False
        self._proposed: _Candidate | None = None
        self._distributions: dict[str, BaseDistribution] = {}
        self._encoder = Encoder(self._distributions, derived)
        self._columns = 0
        """Length of a code."""
        self._model = ConfigurationModel(self._random)
        self._rises = RiseModel(max_epochs, settings.rise)
        self._fitted_scores = 0
        self._best = FAILED_SCORE
        """The best score so far."""

    def choose(
        self, study: optuna.Study, *, paused: Collection[int], busy: Collection[int], may_ask: bool
    ) -> Choice:
        """Choose the next step of an idle worker.

        Args:
            study: the study.
            paused: numbers of the trials that can be resumed.
            busy: numbers of the trials that other workers hold or will take up again.
            may_ask: whether a new trial may be started.
        """
        self._busy, self._may_ask, self._pauses = set(busy), may_ask, True
        self._update(study)
        if may_ask and self._waiting:  # the study begins it whatever is proposed
            self._proposed = None
            return Choice(new=True)
        if may_ask and (first := self._next_first()):
            self._proposed = first
            return Choice(new=True)
        options = [self._known[number] for number in paused if self._known[number].open]
        options += self._candidates() if may_ask else []
        if not options:
            return NOTHING
        gains, rates = self._rate(options)
        if gains.max() < self._settings.flat and (self._stop_when_flat or not may_ask):
            return NOTHING
        begun = np.array([option.number is not None for option in options])
        best = options[int((rates * np.where(begun, self._settings.hold, 1.0)).argmax())]
        if best.number is None:
            self._proposed = best
            return Choice(new=True)
        self._busy.add(best.number)
        return Choice(trial=best.number)

    def propose(
        self, study: optuna.Study, trial: FrozenTrial, *, fixed: Mapping[str, Any] | None = None
    ) -> Configuration:
        """The configuration of a new trial: the one that `choose` has chosen, else the best new one.

        Args:
            study: the study.
            trial: the new trial.
            fixed: the parameters with which it was enqueued; the others are drawn.
        """
        if fixed:
            return self._completed(fixed)
        if self._proposed is None:
            self._update(study)
            self._proposed = self._next_first() or self._best_new()
        proposed, self._proposed = self._proposed, None
        self._new = [candidate for candidate in self._new if candidate is not proposed]
        self._busy.add(trial.number)
        return proposed.configuration

    def prefers_other(self, study: optuna.Study, trial: FrozenTrial) -> bool:
        """Whether something else is worth more than the next epoch of a trial, the switch included."""
        self._busy.add(trial.number)
        self._update(study)
        own = self._known[trial.number]
        cost = self._cost_of(own.configuration.params)
        if (self._max_epochs - len(own.scores)) * cost.epoch <= cost.switch:
            return False
        others = [
            candidate
            for number, candidate in self._known.items()
            if self._pauses and candidate.open and number not in self._busy
        ]
        others += self._candidates() if self._may_ask else []
        if self._may_ask and (self._waiting or self._next_first()):
            prefers = self._pauses
        else:
            rates = self._rate([own, *others], held=own)[1]
            prefers = len(others) > 0 and bool(rates[1:].max() > self._settings.hold * rates[0])
        if prefers and self._pauses:
            self._busy.discard(trial.number)
        return prefers

    def least_promising(self, study: optuna.Study, paused: Collection[int]) -> int:
        """Of some paused trials, the one that is least worth resuming."""
        self._update(study)
        options = [self._known[number] for number in sorted(paused)]
        worst = options[int(self._rate(options)[1].argmin())].number
        assert worst is not None, "it is a trial"
        return worst

    def _update(self, study: optuna.Study) -> None:
        """Read the scores that the study has got since the last call."""
        trials = study.get_trials(deepcopy=False)
        self._waiting = any(trial.state == TrialState.WAITING for trial in trials)
        for trial in trials:
            known = self._known.get(trial.number)
            if known is None and trial.params and trial.state != TrialState.WAITING:
                known = self._known[trial.number] = self._candidate(
                    Configuration(trial.params, trial.distributions), trial.number
                )
            if known is None or not known.open:
                continue
            if trial.state.is_finished() or len(trial.intermediate_values) > len(known.scores):
                self._read(trial, known)

    def _read(self, trial: FrozenTrial, known: _Candidate) -> None:
        steps = trial.intermediate_values
        known.scores = tuple(steps[step] for step in sorted(steps))
        known.open = not trial.state.is_finished()
        known.complete = trial.state == TrialState.COMPLETE
        if trial.state == TrialState.FAIL:
            known.scores += (FAILED_SCORE,) * (self._max_epochs - len(known.scores))
        self._best = max(self._best, *known.scores, FAILED_SCORE)

    def _candidate(self, configuration: Configuration, number: int | None = None) -> _Candidate:
        if any(name not in self._distributions for name in configuration.distributions):
            self._distributions |= configuration.distributions
            self._encoder = Encoder(self._distributions, self._derived)
            self._fitted_scores = 0
        code = self._encode(configuration)
        self._columns = len(code)
        arm = configuration.params.get(self._arm) if self._arm else None
        return _Candidate(configuration, arm, code, number)

    def _encode(self, configuration: Configuration) -> list[float]:
        cost = self._cost_of(configuration.params)
        return [*self._encoder(configuration.params), math.log(max(cost.epoch, _SHORTEST))]

    def _codes(self, options: Sequence[_Candidate]) -> NDArray[np.float64]:
        """The codes [options, columns]; in a conditional space, a later configuration may bring new parameters."""
        for option in options:
            if len(option.code) < self._columns:
                option.code = self._encode(option.configuration)
        return np.array([option.code for option in options])

    def _candidates(self) -> list[_Candidate]:
        """New configurations, which stay the same until the model is fitted again."""
        if self._left is not None:
            left = {id(configuration): configuration for configuration in self._left()}
            self._new = self._new or [self._candidate(configuration) for configuration in left.values()]
            self._new = [candidate for candidate in self._new if id(candidate.configuration) in left]
        elif len(self._new) < self._settings.drawn // 2:
            self._new = [self._candidate(self._draw(self._random)) for _ in range(self._settings.drawn)]
            best = sorted(self._known.values(), key=lambda known: max(known.scores, default=0.0))[-_VARIED:]
            for known in best:
                for _ in range(self._settings.varied // _VARIED):
                    self._new.append(self._candidate(varied(known.configuration, self._random)))
        return self._new

    def _completed(self, fixed: Mapping[str, Any]) -> Configuration:
        """A random configuration with some fixed parameters, among them perhaps the arm, on which others may depend."""
        drawn = self._draw(self._random)
        while self._arm in fixed.keys() & drawn.params.keys() and drawn.params[self._arm] != fixed[self._arm]:
            drawn = self._draw(self._random)
        own = {name: value for name, value in fixed.items() if name in drawn.params}
        return Configuration({**drawn.params, **own}, drawn.distributions)

    def _best_new(self) -> _Candidate:
        options = self._candidates()
        return options[int(self._rate(options)[1].argmax())]

    def _next_first(self) -> _Candidate | None:
        """The next of the first configurations: a cheap one of the arm with the fewest trials; None if all began."""
        options = self._candidates()
        if not options:
            return None
        started = Counter(known.arm for known in self._known.values())
        left = {option.arm: started[option.arm] for option in options}
        fewest = min(left.values())
        if fewest >= self._settings.first_per_arm:
            return None
        costs = [(self._whole_cost(option), option) for option in options if left[option.arm] == fewest]
        lowest, cheapest = min(costs, key=lambda own: own[0])
        return self._most_different(
            [o for cost, o in costs if o.arm == cheapest.arm and cost <= _EQUALLY_CHEAP * lowest]
        )

    def _most_different(self, options: Sequence[_Candidate]) -> _Candidate:
        """Of options of one arm, the one farthest from its trials; without any, the one in the middle."""
        codes = self._codes(options)
        begun = [known for known in self._known.values() if known.arm == options[0].arm]
        if not begun:
            middle = (codes.min(axis=0) + codes.max(axis=0)) / 2
            return options[int(((codes - middle) ** 2).sum(axis=1).argmin())]
        squares = ((codes[:, None] - self._codes(begun)) ** 2).sum(axis=2)
        return options[int(squares.min(axis=1).argmax())]

    def _whole_cost(self, candidate: _Candidate) -> float:
        cost = self._cost_of(candidate.configuration.params)
        return cost.start + self._max_epochs * cost.epoch

    def _rate(
        self, options: Sequence[_Candidate], *, held: _Candidate | None = None
    ) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """The expected gain of each option, and its gain per cost, both [options].

        Args:
            options: what to compare.
            held: the trial that the worker has, which costs no switch.
        """
        self._fit()
        left = np.array([max(1, self._max_epochs - len(option.scores)) for option in options])
        costs = [self._cost_of(option.configuration.params) for option in options]
        once = np.array(
            [
                0.0 if option is held else cost.switch if option.scores else cost.start
                for option, cost in zip(options, costs, strict=True)
            ]
        )
        epoch = np.array([cost.epoch for cost in costs])
        if not self._model.fitted:
            return np.full(len(options), math.inf), 1 / np.maximum(once + left * epoch, _SHORTEST)
        exponent = self._settings.cost_exponent * (1 - (self._progress() if self._progress else 0.0))
        gains = self._gains(options)
        return gains, gains / np.maximum(once + left * epoch, _SHORTEST) ** exponent

    def _gains(self, options: Sequence[_Candidate]) -> NDArray[np.float64]:
        """Expected improvement over the best score by training each option to its end, [options]."""
        codes = self._codes(options)
        # workers that choose at the same time see different halves of the trees, so that their choices differ
        mean, variance = self._model.predict(codes, half=bool(self._busy))
        variance += (self._settings.arm_deviation / self._trials_per_arm(options)) ** 2
        begun = [i for i, option in enumerate(options) if option.scores]
        if begun:
            final, uncertainty = self._final([options[i] for i in begun])
            precision = 1 / variance[begun] + 1 / uncertainty
            mean[begun] = (mean[begun] / variance[begun] + final / uncertainty) / precision
            variance[begun] = 1 / precision
        deviation = np.sqrt(variance)
        z = (mean - self._best) / deviation
        density = np.exp(-0.5 * z**2) / math.sqrt(2 * math.pi)
        improvement: NDArray[np.float64] = deviation * (z * ndtr(z) + density)
        return improvement

    def _trials_per_arm(self, options: Sequence[_Candidate]) -> NDArray[np.int64]:
        """Number of trials with scores of each option's arm, at least 1, [options]."""
        trials = Counter(known.arm for known in self._known.values() if known.scores)
        return np.array([max(1, trials[option.arm]) for option in options])

    def _final(self, begun: Sequence[_Candidate]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Mean and variance, each [trials], of the final scores of trials that have begun, from their curves."""
        best = np.array([max(one.scores) for one in begun])
        epochs = np.array([min(len(one.scores), self._max_epochs) for one in begun])
        mean, variance = self._rises.predict(epochs, _log_cost(begun), [one.arm for one in begun])
        return best + mean, variance + self._settings.noise**2

    def _fit(self) -> None:
        """Fit the models if there are enough new scores."""
        begun = [known for known in self._known.values() if known.scores]
        scores = sum(len(known.scores) for known in begun)
        if not begun or scores < max(self._fitted_scores + 1, self._settings.refit * self._fitted_scores):
            return
        for known in begun:  # estimates of their costs have changed
            known.code = self._encode(known.configuration)
        ended = [known for known in begun if known.complete]
        self._rises.fit([one.scores for one in ended], _log_cost(ended), [one.arm for one in ended])
        self._model.fit(np.array([known.code for known in begun]), self._final(begun)[0])
        self._fitted_scores = scores
        if self._may_ask:
            self._new = []
