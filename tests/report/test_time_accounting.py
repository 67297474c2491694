"""Time accounting: every second of a worker is counted once, and savings are estimated."""

from datetime import UTC, datetime, timedelta
from typing import Any

import pandas as pd

from search.report.time_accounting import time_spent


def _trials(*rows: dict[str, Any]) -> pd.DataFrame:
    """Trials that ran one after the other on one worker, 1 s apart, each with 0.5 s of overhead."""
    start, table = datetime(2026, 1, 1, tzinfo=UTC), []
    for number, row in enumerate(rows):
        end = start + timedelta(seconds=row["seconds"] + 0.5)
        same = {
            "trial": number,
            "backbone": "resnet18",
            "frozen_blocks": 2,
            "attempt": 1,
            "node": "n",
            "pid": 1,
            "stopped": None,
            "pauses": 0,
        }
        own = {
            "training_seconds": row["seconds"] - row["features_seconds"],
            "started": start,
            "finished": end,
        }
        table.append(same | {"max_epochs": 10} | own | row)
        start = end + timedelta(seconds=1)
    return pd.DataFrame(table)


def test_time_is_accounted_for_and_savings_are_estimated() -> None:
    complete = {"state": "COMPLETE", "epochs": 10}
    spent = time_spent(
        _trials(
            complete | {"features": "shared", "seconds": 24.0, "features_seconds": 4.0},
            complete | {"features": "shared", "seconds": 20.0, "features_seconds": 0.0},
            {"state": "PRUNED", "epochs": 4} | {"features": "none", "seconds": 8.0, "features_seconds": 0.0},
        )
    )
    assert spent.by_backbone.loc["resnet18"].to_dict() == {
        "features": 4.0,
        "training": 40.0,
        "pruned": 8.0,
        "overhead": 3 * 0.5 + 2 * 1.0,
    }
    assert spent.whole == spent.wall == 55.5
    assert spent.busy == 55.5 - 2 * 1.0
    assert spent.pruning_saved == 6 * 8.0 / 4  # six epochs at its own speed
    assert spent.sharing_saved == (10 * 4.0 - 4.0) + 10 * 4.0  # a pass of 4 s for each epoch


def test_the_time_during_which_a_trial_was_paused_is_not_a_workers_overhead() -> None:
    complete = {"state": "COMPLETE", "epochs": 10, "features": "none", "features_seconds": 0.0}
    paused = complete | {"state": "PRUNED", "epochs": 1, "pauses": 1}
    spent = time_spent(_trials(complete | {"seconds": 20.0}, paused | {"seconds": 2.0}))
    assert spent.by_backbone.loc["resnet18"].to_dict() == {
        "features": 0.0,
        "training": 20.0,
        "pruned": 2.0,
        "overhead": 0.0,
    }
