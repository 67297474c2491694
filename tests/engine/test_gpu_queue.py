"""Which trials of a shared GPU have its memory: those that fit, in order, and none waits for ever."""

import random
from itertools import count

import pytest

from search.engine.gpu_demand import Demand
from search.engine.gpu_queue import FORGETTING, MOST_PASSES, GpuQueue, Worker

A, B, C, D = (Worker(number, 0.0) for number in range(4))


def of(kind: str, estimate: int | None = None) -> Demand:
    """A demand for memory."""
    return Demand(kind=kind, estimate=estimate)


def queue(**peaks: int) -> GpuQueue:
    """A queue for 100 bytes that knows these peaks, and whose processes take nothing."""
    return GpuQueue(capacity=100, context=0, peaks=peaks)


def test_kinds_that_were_not_measured_run_side_by_side_as_far_as_their_estimates_fit() -> None:
    own = queue()
    asked = [own.request(worker, of(f"kind {worker.pid}", 30), alone=False) for worker in (A, B, C, D)]
    assert asked == [True, True, True, False]
    own.release(B)
    assert own.is_granted(D)


def test_a_kind_without_an_estimate_takes_all() -> None:
    own = queue()
    assert own.request(A, of("a"), alone=False)
    assert not own.request(B, of("b", 1), alone=False)
    own.measured(A, 60)
    assert own.is_granted(B)


def test_what_was_measured_replaces_the_estimate_of_all_trials_of_the_kind() -> None:
    own = queue()
    own.request(A, of("a", 30), alone=False)
    own.measured(A, 60)
    assert own.requests[0].bytes == 60
    assert not own.request(B, of("a", 30), alone=False)
    assert own.request(C, of("c", 40), alone=False)


def test_small_trials_pass_a_large_one_that_waits_but_only_so_often() -> None:
    own = queue()
    own.request(A, of("running", 60), alone=False)
    assert not own.request(B, of("large", 80), alone=False)
    passed = [worker for worker in (Worker(number, 1.0) for number in range(20)) if _passes(own, worker)]
    assert len(passed) == MOST_PASSES
    own.release(A)
    assert own.is_granted(B)


def _passes(own: GpuQueue, worker: Worker) -> bool:
    """Whether a small trial, which ends at once, is granted its memory."""
    granted = own.request(worker, of("small", 20), alone=False)
    own.release(worker)
    return granted


def test_alone_means_that_no_other_trial_has_memory() -> None:
    own = queue(a=20)
    own.request(A, of("a"), alone=False)
    own.request(B, of("a"), alone=False)
    assert not own.request(A, of("a"), alone=True)
    own.release(B)
    assert own.is_granted(A)
    assert not own.request(B, of("a"), alone=False)
    own.measured(A, 70)
    assert own.is_granted(B), "now it is known to take 70"


def test_processes_that_wait_take_memory_too() -> None:
    own = GpuQueue(capacity=100, context=10)
    assert own.request(A, of("a", 60), alone=False)
    assert not own.request(B, of("b", 60), alone=False)
    assert not own.request(C, of("c", 35), alone=False), "60 + 35, and 10 of the one that waits"
    assert own.request(D, of("d", 20), alone=False), "60 + 20, and 20 of the two that wait"


def test_data_that_a_worker_keeps_between_its_trials_takes_memory_until_it_waits_itself() -> None:
    own = queue()
    own.request(A, of("a", 30), alone=False)
    own.request(B, of("b", 50), alone=False)
    own.release(A, holds=30)
    assert not own.request(C, of("c", 40), alone=False), "50 + 40 + 30"
    assert not own.request(A, of("d", 60), alone=False), "who waits gives its data back"
    assert own.is_granted(C)


def test_a_worker_knows_that_another_one_waits_for_the_whole_gpu() -> None:
    own, wanted = queue(), []
    own.request(A, of("a", 30), alone=False)
    for alone in (False, True):
        own.request(B, of("b", 80), alone=alone)
        wanted.append(own.whole_is_wanted)
    own.release(A)
    assert own.is_granted(B)
    assert [*wanted, own.whole_is_wanted] == [False, True, False]


def test_more_than_there_is_is_granted_when_nothing_else_is() -> None:
    own = queue(a=500)
    assert own.request(A, of("a"), alone=False)
    assert not own.request(B, of("b", 1), alone=False)


def test_a_peak_that_later_trials_do_not_reach_falls_towards_theirs() -> None:
    own = queue(a=80)
    own.request(A, of("a"), alone=False)
    own.measured(A, 40)
    assert own.peaks["a"] == 80, "others of the kind may run now"
    own.release(A)
    assert own.peaks["a"] == round(80 - 40 * FORGETTING)
    for _ in range(30):
        own.request(A, of("a"), alone=False)
        own.measured(A, 40)
        own.release(A)
    assert 40 <= own.peaks["a"] <= 42
    own.request(A, of("a"), alone=False)
    own.measured(A, 90)
    own.release(A)
    assert own.peaks["a"] == 90


def test_the_dead_hold_nothing() -> None:
    own = GpuQueue(capacity=100, context=30)
    own.request(A, of("a", 90), alone=False)
    assert not own.request(B, of("b", 90), alone=False)
    own.keep_alive(lambda worker: worker == B)
    assert own.is_granted(B)
    assert own.request(C, of("c", 10), alone=False)


def test_a_lost_request_is_restored_with_what_it_was_granted() -> None:
    own = queue()
    own.restore(A, of("a", 70), alone=False, granted=True)
    assert not own.request(B, of("b", 40), alone=False)
    own.restore(B, of("b", 40), alone=False, granted=False)
    assert not own.is_granted(B)
    assert len(own.requests) == 2


def test_a_queue_continues_from_its_text() -> None:
    own = queue(a=20)
    own.request(A, of("a"), alone=False)
    own.request(B, of("b", 90), alone=False)
    own.request(C, of("a"), alone=False)
    own.measured(C, 30)
    again = GpuQueue.of_json(own.to_json(), capacity=100, context=0)
    assert again == own


@pytest.mark.parametrize(
    "text",
    [
        "",
        "null",
        "[]",
        "{}",
        "0",
        '{"peaks": {"a"',
        '{"peaks": [], "asked": [], "workers": []}',
        '{"peaks": {"a": null}, "asked": [], "workers": []}',
        '{"peaks": {"a": 1}, "asked": [{"by": [1, 2.0], "bytes": 3}]}',
        '{"peaks": {}, "asked": [null], "workers": []}',
        '{"peaks": {}, "asked": [], "workers": [1]}',
    ],
)
def test_a_damaged_text_is_an_empty_queue(text: str) -> None:
    own = GpuQueue.of_json(text, capacity=100)
    assert (own.requests, own.peaks, own.workers) == ([], {}, {})
    assert own.request(A, of("a"), alone=False)


@pytest.mark.parametrize("seed", range(20))
def test_whatever_is_asked_no_more_is_granted_than_there_is_and_every_trial_has_its_turn(seed: int) -> None:
    chance = random.Random(seed)
    workers = [Worker(number, 0.0) for number in range(6)]
    own = GpuQueue(capacity=100, context=2, workers=dict.fromkeys(workers, 0))
    kinds = {f"kind {size}": size for size in (5, 20, 45, 70, 98)}
    waits: dict[Worker, int] = {}
    longest = 0
    for turn in count():
        worker = chance.choice(workers)
        if any(request.by == worker and request.granted for request in own.requests):
            own.release(worker)
        elif worker not in waits and turn < 2000:
            kind, size = chance.choice(list(kinds.items()))
            waits[worker] = 0
            own.request(worker, of(kind, size), alone=chance.random() < 0.05)
        for request in own.requests:
            if own.is_granted(request.by):
                longest = max(longest, waits.pop(request.by, 0))
            else:
                waits[request.by] += 1
        granted = [request for request in own.requests if request.granted]
        contexts = own.context * (len(own.workers) - len(granted))
        assert len(granted) <= 1 or sum(request.bytes for request in granted) + contexts <= own.capacity
        if turn >= 2000 and not own.requests:
            break
        assert turn < 5000, "some trial waits for ever"
    assert longest < 500
