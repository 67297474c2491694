"""Time accounting: how workers spent their time, and estimates of what pruning and sharing saved."""

from dataclasses import dataclass

import pandas as pd

PARTS = ("features", "training", "pruned", "overhead")
"""Categories of worker time: computing activations of frozen blocks, training of trials that were not pruned, training
of pruned trials, and overhead, which is starting trials and waiting between them."""


@dataclass(frozen=True, kw_only=True)
class TimeSpent:
    """Time of a search in seconds; where workers are summed, concurrent time counts once for each."""

    by_backbone: pd.DataFrame
    """One row per backbone and one column per category in PARTS; summed over workers."""
    wall: float
    """From the start of the first trial to the last recorded time, including interruptions."""
    busy: float
    """Time in which at least one trial was running."""
    pruning_saved: float
    """Estimated time of the epochs that pruned trials did not train; summed over workers."""
    sharing_saved: float
    """Estimated time of the forward passes through frozen blocks that trials did not compute; summed over workers."""

    @property
    def whole(self) -> float:
        """Total time of all workers."""
        return float(self.by_backbone.to_numpy().sum())


def time_spent(trials: pd.DataFrame) -> TimeSpent:
    """Account for the time of a search.

    Args:
        trials: at least one row, as returned by `search.run.tables.read_trials`.
    """
    ran = trials[trials["seconds"].notna()].astype({"seconds": float})
    pruned = _by_the_pruner(ran)
    parts = pd.DataFrame(
        {
            "features": ran["features_seconds"],
            "training": ran["training_seconds"].where(~pruned, 0.0),
            "pruned": ran["training_seconds"].where(pruned, 0.0),
            "overhead": _overhead(ran),
        }
    ).astype(float)
    moments = pd.concat([trials["started"], trials["finished"]])
    return TimeSpent(
        by_backbone=parts.groupby(ran["backbone"].astype(str)).sum(),
        wall=(moments.max() - moments.min()).total_seconds(),
        busy=_busy(trials, moments.max()),
        pruning_saved=_pruning_saved(ran),
        sharing_saved=_sharing_saved(ran),
    )


def _busy(trials: pd.DataFrame, now: pd.Timestamp) -> float:
    """The length of the union of all trials' time spans; a running trial's span ends now."""
    spans = trials.assign(finished=trials["finished"].fillna(now)).sort_values("started")
    covered = spans["finished"].cummax().shift(fill_value=spans["started"].iloc[0])
    return float(
        (spans["finished"] - spans["started"].clip(lower=covered)).dt.total_seconds().clip(lower=0).sum()
    )


def _overhead(ran: pd.DataFrame) -> "pd.Series[float]":
    """The idle seconds of a worker during each trial and before it.

    Zero for trials that were resumed, because their times come from several workers, and for searches that pause
    trials, because what a worker did between two trials is unknown.
    """
    if pd.to_numeric(ran["pauses"]).fillna(0).any():
        return pd.Series(0.0, ran.index)
    once = ran[(ran["attempt"] == 1) & ran["finished"].notna()].sort_values("started")
    idle = (once["finished"] - once["started"]).dt.total_seconds() - once["seconds"]
    earlier = once.groupby(["node", "pid"], dropna=False)["finished"].shift()
    waited = (once["started"] - earlier).dt.total_seconds().fillna(0.0)
    return (idle + waited).clip(lower=0.0).reindex(ran.index, fill_value=0.0).astype(float)


def _by_the_pruner(trials: pd.DataFrame) -> "pd.Series[bool]":
    """Whether a trial was ended by the pruner, as opposed to a budget."""
    return (trials["state"] == "PRUNED") & trials["stopped"].isna()


def _pruning_saved(ran: pd.DataFrame) -> float:
    """The time of the epochs that pruned trials did not train, at their own speed.

    They are assumed to have otherwise run for the mean share of epochs of the complete trials, or for all epochs if no
    trial is complete yet.
    """
    pruned, complete = ran[_by_the_pruner(ran)], ran[ran["state"] == "COMPLETE"]
    share = (complete["epochs"] / complete["max_epochs"]).mean() if len(complete) else 1.0
    spared = (pruned["max_epochs"] * share - pruned["epochs"]).clip(lower=0)
    return float((spared * pruned["training_seconds"] / pruned["epochs"]).sum())


def _sharing_saved(ran: pd.DataFrame) -> float:
    """The time of the forward passes that trials did not compute.

    A pass is assumed to take as long as the longest recorded one at the same freeze depth. Without sharing, a
    trial computes one pass per epoch.
    """
    shared = ran[ran["features"] == "shared"]
    one_pass = shared.groupby(["backbone", "frozen_blocks"])["features_seconds"].transform("max")
    return float((shared["epochs"] * one_pass - shared["features_seconds"]).clip(lower=0).sum())
