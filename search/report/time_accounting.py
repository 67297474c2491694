"""Where a search's time went, and what pruning and sharing saved it: estimates, from the trials' table alone."""

from dataclasses import dataclass

import pandas as pd

PARTS = ("features", "training", "pruned", "overhead")
"""What a worker's time goes to: activations at the cut, epochs of trials that the pruner did not end and of those that
it did, and the rest: starting, and waiting between trials."""


@dataclass(frozen=True, kw_only=True)
class TimeSpent:
    """Seconds, summed over workers; what runs at the same time counts each."""

    by_backbone: pd.DataFrame
    """A row for each backbone, a column for each of PARTS, s."""
    wall: float
    """From the first trial's start to the last known moment, pauses included."""
    busy: float
    """While a trial ran at least, s."""
    pruning_saved: float
    """Epochs that pruned trials were spared, if they had run as long as complete ones, at their own pace."""
    sharing_saved: float
    """Passes through frozen blocks that trials were spared, where one of the same cut shows what a pass takes."""

    @property
    def whole(self) -> float:
        """All workers' seconds."""
        return float(self.by_backbone.to_numpy().sum())


def time_spent(trials: pd.DataFrame) -> TimeSpent:
    """Args: the table of `results.read_trials`, with a row at least."""
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
    """The length of all trials' times laid over each other; a running trial's lasts until now."""
    spans = trials.assign(finished=trials["finished"].fillna(now)).sort_values("started")
    covered = spans["finished"].cummax().shift(fill_value=spans["started"].iloc[0])
    return float(
        (spans["finished"] - spans["started"].clip(lower=covered)).dt.total_seconds().clip(lower=0).sum()
    )


def _overhead(ran: pd.DataFrame) -> "pd.Series[float]":
    """A trial's seconds on its worker without work, and those that the worker waited before it.

    A trial that went on after a pause, or elsewhere, is left out: its times are of several workers.
    """
    once = ran[(ran["attempt"] == 1) & ran["finished"].notna()].sort_values("started")
    idle = (once["finished"] - once["started"]).dt.total_seconds() - once["seconds"]
    earlier = once.groupby(["node", "pid"], dropna=False)["finished"].shift()
    waited = (once["started"] - earlier).dt.total_seconds().fillna(0.0)
    return (idle + waited).clip(lower=0.0).reindex(ran.index, fill_value=0.0).astype(float)


def _by_the_pruner(trials: pd.DataFrame) -> "pd.Series[bool]":
    """Which trials the pruner ended, and nothing else."""
    return (trials["state"] == "PRUNED") & trials["stopped"].isna()


def _pruning_saved(ran: pd.DataFrame) -> float:
    """Where no trial is complete yet, pruned ones are taken to have had all their epochs before them."""
    pruned, complete = ran[_by_the_pruner(ran)], ran[ran["state"] == "COMPLETE"]
    share = (complete["epochs"] / complete["max_epochs"]).mean() if len(complete) else 1.0
    spared = (pruned["max_epochs"] * share - pruned["epochs"]).clip(lower=0)
    return float((spared * pruned["training_seconds"] / pruned["epochs"]).sum())


def _sharing_saved(ran: pd.DataFrame) -> float:
    """The slowest trial of a cut is taken to have computed its activations, in one pass: others would each epoch."""
    shared = ran[ran["features"] == "shared"]
    one_pass = shared.groupby(["backbone", "frozen_blocks"])["features_seconds"].transform("max")
    return float((shared["epochs"] * one_pass - shared["features_seconds"]).clip(lower=0).sum())
