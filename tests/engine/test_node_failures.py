"""Failures of nodes: trials move to other workers, workers rest, and retries are limited."""

import pytest
from coordinated import Clock

from search.engine.node_failures import (
    IDLE_SECONDS,
    MAX_REST_SECONDS,
    REST_SECONDS,
    NodeFailures,
    Verdict,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _failures(clock: Clock, *, workers: int, retries: int = 2) -> NodeFailures:
    """Counted failures of workers a, b, c, ..., each of which has a trial."""
    failures = NodeFailures(workers=workers, retries=retries, clock=clock)
    for worker in "abcdefgh"[:workers]:
        failures.trial_started(worker)
    return failures


def test_the_trial_moves_to_another_worker_while_its_own_rests(clock: Clock) -> None:
    failures = _failures(clock, workers=2)
    failures.epoch_done("b", "good")
    assert failures.failed("a", "bad", number=0) is Verdict.ELSEWHERE
    assert failures.is_resting("a")
    assert not failures.end_rest("a")
    clock.now += REST_SECONDS
    assert failures.end_rest("a")
    assert not failures.is_resting("a")


def test_rests_double_with_each_failure_until_an_epoch_is_done(clock: Clock) -> None:
    failures, rests = _failures(clock, workers=2), []
    failures.epoch_done("b", "good")
    for number in (0, 1, 2, 3, 4, 5):
        began = clock.now
        assert failures.failed("a", "bad", number) is Verdict.ELSEWHERE
        while not failures.end_rest("a"):
            clock.now += 1
        failures.trial_started("a")
        rests.append(clock.now - began)
        if number == 4:
            failures.epoch_done("a", "bad")
    assert rests == [60, 120, 240, 480, MAX_REST_SECONDS, 60]


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_bad_node_with_many_workers_fails_no_trial(epochs: int, clock: Clock) -> None:
    failures = _failures(clock, workers=8, retries=0)
    for _ in range(epochs):  # with 0, the other node has not finished an epoch yet
        failures.epoch_done("h", "good")
    assert {failures.failed(worker, "bad", number=0) for worker in "abcdefg"} == {Verdict.ELSEWHERE}


def test_a_trial_that_every_node_fails_is_failed(clock: Clock) -> None:
    failures = _failures(clock, workers=5, retries=1)
    for worker, node in zip("abcde", ["one", "two", "one", "two", "one"], strict=True):
        failures.epoch_done(worker, node)
    verdicts = [
        failures.failed(worker, node, 0) for worker, node in zip("abc", ["one", "two", "one"], strict=True)
    ]
    assert verdicts == [Verdict.ELSEWHERE, Verdict.ELSEWHERE, Verdict.FAIL]


def test_a_single_worker_retries_at_once_a_limited_number_of_times(clock: Clock) -> None:
    failures = _failures(clock, workers=1, retries=2)
    assert [failures.failed("a", "only", 0) for _ in range(3)] == [Verdict.RETRY, Verdict.RETRY, Verdict.FAIL]


def test_a_rest_ends_early_if_no_trial_runs(clock: Clock) -> None:
    failures = _failures(clock, workers=2)
    failures.failed("a", "bad", number=0)
    failures.trial_ended("b")
    assert not failures.end_rest("a"), "the other worker may be about to take the trial"
    clock.now += IDLE_SECONDS + 1
    assert failures.end_rest("a")
