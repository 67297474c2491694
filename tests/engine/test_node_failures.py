"""A node that fails: its trials go to other workers and are not used up, its workers rest, nothing goes on for ever."""

import pytest
from coordinated import Clock

from search.engine.node_failures import (
    IDLE_SECONDS,
    LONGEST_REST_SECONDS,
    REST_SECONDS,
    NodeFailures,
    Verdict,
)


@pytest.fixture
def clock() -> Clock:
    return Clock()


def _failures(clock: Clock, *, workers: int, retries: int = 2) -> NodeFailures:
    """Of workers called a, b, c ..., each with a trial."""
    failures = NodeFailures(workers=workers, retries=retries, clock=clock)
    for worker in "abcdefgh"[:workers]:
        failures.began(worker)
    return failures


def test_a_trial_goes_elsewhere_and_the_worker_rests(clock: Clock) -> None:
    failures = _failures(clock, workers=2)
    failures.works("b", "good")
    assert failures.failed("a", "bad", number=0) is Verdict.ELSEWHERE
    assert failures.rests("a")
    assert not failures.rested("a")
    clock.now += REST_SECONDS
    assert failures.rested("a")
    assert not failures.rests("a")


def test_a_node_that_fails_again_and_again_rests_longer_until_it_works(clock: Clock) -> None:
    failures, rests = _failures(clock, workers=2), []
    failures.works("b", "good")
    for number in (0, 1, 2, 3, 4, 5):
        began = clock.now
        assert failures.failed("a", "bad", number) is Verdict.ELSEWHERE
        while not failures.rested("a"):
            clock.now += 1
        failures.began("a")
        rests.append(clock.now - began)
        if number == 4:
            failures.works("a", "bad")
    assert rests == [60, 120, 240, 480, LONGEST_REST_SECONDS, 60]


@pytest.mark.parametrize("epochs", [0, 1])
def test_a_bad_node_with_many_workers_uses_up_no_trial(epochs: int, clock: Clock) -> None:
    failures = _failures(clock, workers=8, retries=0)
    for _ in range(epochs):  # or the other node has not got so far
        failures.works("h", "good")
    assert {failures.failed(worker, "bad", number=0) for worker in "abcdefg"} == {Verdict.ELSEWHERE}


def test_a_trial_that_every_node_fails_comes_to_nothing(clock: Clock) -> None:
    failures = _failures(clock, workers=5, retries=1)
    for worker, node in zip("abcde", ["one", "two", "one", "two", "one"], strict=True):
        failures.works(worker, node)
    verdicts = [
        failures.failed(worker, node, 0) for worker, node in zip("abc", ["one", "two", "one"], strict=True)
    ]
    assert verdicts == [Verdict.ELSEWHERE, Verdict.ELSEWHERE, Verdict.FAIL]


def test_where_there_is_one_worker_it_tries_again_at_once_and_not_for_ever(clock: Clock) -> None:
    failures = _failures(clock, workers=1, retries=2)
    assert [failures.failed("a", "only", 0) for _ in range(3)] == [Verdict.AGAIN, Verdict.AGAIN, Verdict.FAIL]


def test_a_worker_does_not_rest_on_where_no_trial_runs(clock: Clock) -> None:
    failures = _failures(clock, workers=2)
    failures.failed("a", "bad", number=0)
    failures.ended("b")
    assert not failures.rested("a"), "the other one may get the trial in this moment"
    clock.now += IDLE_SECONDS + 1
    assert failures.rested("a")
