"""The cost of a trial is measured where trials have run, and follows from the others elsewhere."""

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_runs import trial_row

from genre_core.models.block_costs import multiply_adds, trainable_parameters
from genre_core.models.registry import BLOCKS
from search.engine.costs import (
    BUILD_BYTES_PER_SECOND,
    BUILD_SECONDS,
    CHECKPOINT_BYTES_PER_SECOND,
    STEP_SECONDS,
    UPDATE,
    Costs,
    Workload,
)
from search.run.schemas import TrialRow

WORKLOAD = Workload(train_segments=100, validation_segments=50, batch_size=10)


def _row(
    trial: int,
    backbone: str,
    frozen: int,
    seconds: float | None,
    epochs: int,
    state: str = "RUNNING",
    *,
    features: str = "shared",
    features_seconds: float = 0.0,
    device: str = "cpu",
) -> TrialRow:
    return trial_row(
        trial,
        backbone=backbone,
        frozen_blocks=frozen,
        training_seconds=seconds,
        epochs=epochs,
        state=state,
        features=features if frozen else "none",
        features_seconds=features_seconds,
        device=device,
    )


def _observed(*rows: TrialRow) -> Costs:
    costs = Costs(WORKLOAD)
    for row in rows:
        costs.observe(row)
    return costs


def _work(backbone: str, frozen: int) -> float:
    """Multiply-adds of an epoch, in which 100 segments pass three times forward or backward and 50 forward."""
    arithmetic = 350 * sum(multiply_adds(backbone)[frozen:])
    return arithmetic + UPDATE * 10 * trainable_parameters(backbone, frozen)


def _build(backbone: str, frozen: int) -> float:
    return BUILD_SECONDS + 4 * trainable_parameters(backbone, frozen) / BUILD_BYTES_PER_SECOND


@pytest.mark.parametrize(
    ("backbone", "frozen", "seconds"), [("resnet18", 1, 2.0), ("resnet18", 4, 0.5), ("alexnet", 2, 3.0)]
)
def test_a_measured_cell_costs_the_mean_of_its_epochs(backbone: str, frozen: int, seconds: float) -> None:
    costs = _observed(
        _row(0, "resnet18", 1, None, 0),
        _row(0, "resnet18", 1, 1.0, 1),
        _row(1, "resnet18", 4, 2.0, 4),
        _row(0, "resnet18", 1, 4.0, 2, "PRUNED"),
        _row(2, "resnet18", 1, 6.0, 3),
        _row(3, "alexnet", 2, 9.0, 3, "FAIL"),
    )
    assert costs.epoch_seconds(backbone, frozen) == costs.of(backbone, frozen).epoch == seconds


def test_before_the_first_epoch_no_time_is_expected_but_a_cost_is_estimated() -> None:
    costs = _observed(_row(0, "resnet18", 1, None, 0))
    assert costs.epoch_seconds("resnet18", 1) is None
    assert costs.of("vgg16", 0).epoch > costs.of("resnet18", 0).epoch > costs.of("resnet18", 5).epoch > 0


def test_another_depth_costs_as_much_per_work_as_the_nearest_of_its_backbone() -> None:
    overhead = 10 * STEP_SECONDS
    costs = _observed(
        _row(0, "resnet18", 0, 90.0, 3), _row(1, "resnet18", 3, 8.0, 1), _row(2, "vgg16", 0, 1.0, 1)
    )
    for frozen, nearest, seconds in ((1, 0, 30.0), (2, 3, 8.0), (4, 3, 8.0)):
        expected = (seconds - overhead) / _work("resnet18", nearest) * _work("resnet18", frozen) + overhead
        assert costs.of("resnet18", frozen).epoch == pytest.approx(expected)


def test_another_backbone_costs_as_much_per_work_as_the_others() -> None:
    overhead = 10 * STEP_SECONDS
    costs = _observed(
        _row(0, "resnet18", 0, 30.0, 1), _row(1, "resnet34", 0, 30.0, 1), _row(2, "alexnet", 0, 30.0, 1)
    )
    rates = sorted((30.0 - overhead) / _work(name, 0) for name in ("resnet18", "resnet34", "alexnet"))
    assert costs.of("vgg11", 2).epoch == pytest.approx(rates[1] * _work("vgg11", 2) + overhead)


def test_a_backbone_whose_activations_were_slow_to_compute_is_slow_to_train() -> None:
    def estimate(features_seconds: float) -> float:
        quick = 150 * sum(multiply_adds("resnet18")) * 1e-10
        return (
            _observed(
                _row(0, "resnet18", 5, 0.01, 1, features_seconds=quick),
                _row(1, "resnet18", 0, 30.0, 1),
                _row(2, "densenet121", 5, 0.01, 1, features_seconds=features_seconds),
            )
            .of("densenet121", 0)
            .epoch
        )

    whole = 150 * sum(multiply_adds("densenet121")) * 1e-10
    assert 1.2 * estimate(whole) < estimate(1.5 * whole) < 1.5 * estimate(whole)


def test_a_head_costs_the_same_on_all_backbones() -> None:
    costs = _observed(_row(0, "resnet18", 5, 0.3, 3), _row(1, "resnet18", 0, 30.0, 1))
    assert costs.of("vgg16", 7).epoch == pytest.approx(0.1)


def test_before_its_first_epoch_a_trial_pays_the_pass_through_its_frozen_blocks_once_per_search() -> None:
    blocks = multiply_adds("resnet18")
    rate = 9.0 / (150 * sum(blocks[:3]))
    costs = _observed(_row(0, "resnet18", 3, 30.0, 1, features_seconds=9.0))

    def activations(frozen: int) -> float:
        return costs.of("resnet18", frozen).start - _build("resnet18", frozen)

    assert activations(3) == pytest.approx(0.0)
    assert activations(0) == pytest.approx(0.0)
    assert activations(5) == pytest.approx(rate * 150 * sum(blocks[3:5]))
    assert activations(2) == pytest.approx(0.0), "the pass has stored them on its way"


def test_a_pass_from_stored_activations_does_not_make_the_backbone_look_fast() -> None:
    whole = _observed(_row(0, "resnet18", 0, 30.0, 1), _row(1, "resnet18", 4, 5.0, 1, features_seconds=15.0))
    stored = _observed(
        _row(0, "resnet18", 0, 30.0, 1), _row(1, "resnet18", 4, 5.0, 1, features_seconds=0.001)
    )
    ratio = stored.of("resnet18", 5).start / whole.of("resnet18", 5).start
    assert 0.3 < ratio < 3


def test_activations_that_are_not_shared_cost_a_pass_in_every_epoch() -> None:
    shared = _observed(_row(0, "resnet18", 0, 30.0, 1), _row(1, "resnet18", 3, 9.0, 1))
    computed = _observed(_row(0, "resnet18", 0, 30.0, 1), _row(1, "resnet18", 3, 9.0, 1, features="computed"))
    assert computed.of("resnet18", 2).start == pytest.approx(_build("resnet18", 2))
    assert computed.of("vgg16", 6).epoch == pytest.approx(shared.of("vgg16", 6).epoch, rel=0.5)
    without = Costs(Workload(train_segments=100, validation_segments=50, batch_size=10, sharing=False))
    assert without.of("vgg16", 6).epoch > 2 * Costs(WORKLOAD).of("vgg16", 6).epoch


def test_taking_up_a_paused_trial_costs_its_network_and_its_checkpoint() -> None:
    checkpoint = 8 * trainable_parameters("vgg16", 0) / CHECKPOINT_BYTES_PER_SECOND
    assert Costs().of("vgg16", 0).switch == pytest.approx(_build("vgg16", 0) + checkpoint)


def test_devices_are_kept_apart_and_the_one_with_most_epochs_is_meant() -> None:
    costs = _observed(_row(0, "resnet18", 0, 30.0, 1), _row(1, "resnet18", 0, 2.0, 2, device="NVIDIA H100"))
    assert costs.of("resnet18", 0).epoch == costs.of("resnet18", 0, device="NVIDIA H100").epoch == 1.0
    assert costs.of("resnet18", 0, device="cpu").epoch == 30.0
    assert (
        costs.of("resnet18", 0, device="NVIDIA A10").epoch
        == Costs(WORKLOAD).of("resnet18", 0, device="GPU").epoch
    )


@given(
    backbone=st.sampled_from(sorted(BLOCKS)),
    measured=st.lists(
        st.tuples(st.sampled_from(sorted(BLOCKS)), st.integers(0, 5), st.floats(0.01, 1e4)), max_size=5
    ),
)
def test_estimates_are_positive_and_those_without_own_measurements_fall_with_the_depth(
    backbone: str, measured: list[tuple[str, int, float]]
) -> None:
    rows = [
        _row(n, name, depth, seconds, 1)
        for n, (name, depth, seconds) in enumerate(measured)
        if name != backbone
    ]
    costs = _observed(*rows)
    epochs = [costs.of(backbone, depth).epoch for depth in range(len(BLOCKS[backbone]))]
    assert all(shallow > deep > 0 for shallow, deep in itertools.pairwise(epochs))


def test_what_turns_of_trials_cost_beyond_their_epochs_is_learned() -> None:
    row = _row(0, "resnet18", 3, None, 1)
    costs = Costs(WORKLOAD)
    costs.epoch(row, seconds=0.1)
    before = costs.of("resnet18", 3)
    for resumed in (False, True, False):
        restore = before.switch - before.start if resumed else 0.0
        costs.turn(row, seconds=before.start + restore + 1.5, resumed=resumed)
    assert costs.of("resnet18", 3).start == pytest.approx(before.start + 1.5)
    assert costs.of("resnet18", 3).switch == pytest.approx(before.switch + 1.5)
    assert costs.of("resnet18", 3).epoch == pytest.approx(0.1)
    assert costs.of("alexnet", 0).start == pytest.approx(_build("alexnet", 0) + 1.5), "and for all others"
    costs.turn(row, seconds=1000.0, resumed=False)
    assert costs.of("resnet18", 3).start < before.start + 2, "one long wait is no rule"


def test_the_overhead_of_an_earlier_search_is_expected_until_another_is_measured() -> None:
    row = _row(0, "resnet18", 3, None, 1)
    earlier = Costs(WORKLOAD)
    earlier.epoch(row, seconds=0.1)
    for _ in range(5):
        earlier.turn(row, seconds=2.0, resumed=False)
    costs = Costs(WORKLOAD)
    for known in earlier.measured()["cpu"]:
        costs.prime(known, device="cpu")
    assert costs.of("resnet18", 3).start == pytest.approx(2.0, rel=0.1)
    for _ in range(5):
        costs.turn(row, seconds=0.5, resumed=False)
    assert costs.of("resnet18", 3).start == pytest.approx(0.5, rel=0.1)
