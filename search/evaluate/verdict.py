"""Results of a finished search: scores of its final configurations, and whether it was extended since."""

from collections.abc import Sequence
from pathlib import Path

import pandas as pd

from genre_core.training.bootstrap import bootstrap
from genre_core.training.metrics import SCORES
from search.run.identity import EXTENDED, read_provenance
from search.run.tables import as_indices, read_test_use, read_trials

_SHARED = ["rank", "trial", "backbone", "frozen_blocks", "learning_rate", "momentum", "epochs", "val_f1"]
"""Columns in which the final models of a configuration do not differ."""


def configurations(finish: pd.DataFrame, predictions: pd.DataFrame, genres: Sequence[str]) -> pd.DataFrame:
    """Aggregate the final models over seeds.

    Args:
        finish: one row per final model, as returned by `read_finish`.
        predictions: one row per final model and test track, as returned by `read_test_tracks`.
        genres: in the order of the models' outputs.

    Returns:
        One row per configuration, the winner first: the settings that its models share, and for each score S the mean
        over seeds test_S, the ends of its bootstrap interval test_S_low and test_S_high, and over seeds the standard
        deviation test_S_sd (None for a single seed), test_S_min and test_S_max.
    """
    rows = []
    for _, models in finish.groupby("rank"):
        row = models.iloc[0][_SHARED].to_dict()
        own = predictions[predictions["trial"] == row["trial"]]
        intervals = bootstrap(*as_indices(own, genres), len(genres))
        for name in SCORES:
            over_seeds = models[f"test_{name}"]
            row[f"test_{name}"] = over_seeds.mean()
            row[f"test_{name}_low"], row[f"test_{name}_high"] = intervals[name]
            row[f"test_{name}_sd"] = over_seeds.std() if len(models) > 1 else None
            row[f"test_{name}_min"], row[f"test_{name}_max"] = over_seeds.min(), over_seeds.max()
        rows.append(row)
    return pd.DataFrame(rows)


def extension_note(run: Path) -> str | None:
    """A warning about a search that was extended after its test set had been used; None for any other search."""
    look = read_test_use(run)
    if look is None or not read_provenance(run).get(EXTENDED):
        return None
    added = len(read_trials(run)) - look.trials
    return (
        f"the search was extended after its test set had been used ({look.at:%Y-%m-%d %H:%M} UTC), by {added} "
        f"{'trial' if added == 1 else 'trials'}: the test scores are those of configurations chosen among the first "
        f"{look.trials} trials; later trials have no test score, and choosing by both would bias the result"
    )
