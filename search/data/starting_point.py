"""A file of settings to start from, for a corpus and a machine."""

from pathlib import Path
from statistics import median

import yaml

from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import Corpus
from genre_core.errors import InputError
from genre_core.system.addresses import absolute, source_of
from search.config.schema import SearchConfig, Split
from search.errors import SearchErrorCode
from search.run.commands import command

MAX_SEGMENTS = 10
"""Segments per track; more of them cost more than they gain."""
IMBALANCED = 3.0
"""Ratio of the largest to the smallest genre from which the loss is weighted."""
_BUDGETS = {"cpu": ("mel64", "2h"), "cuda": ("mel128", "4h")}
"""Device type -> front end and time budget."""


def starting_point(corpus: Corpus, *, data: Path | str, workers: int, device: str) -> str:
    """Settings as YAML with comments that give the reason for each.

    Args:
        corpus: audited.
        data: where it is.
        workers: trials that this machine runs at a time.
        device: `cpu` or `cuda`.

    Raises:
        InputError: no track is usable.
    """
    if not corpus.usable:
        raise InputError(
            f"DATA must have usable tracks, but got {data} with none of {len(corpus.tracks)}; "
            f"list the bad files with: {command('data', 'check', source_of(data))}",
            code=SearchErrorCode.NO_USABLE_TRACK,
        )
    front_end, budget = _BUDGETS[device]
    segment = SearchConfig().segment_seconds
    seconds = median(track.seconds or segment for track in corpus.usable)
    segments = max(1, min(MAX_SEGMENTS, int(seconds // segment)))
    counts = {genre: sum(track.genre == genre for track in corpus.usable) for genre in corpus.genres}
    processor = "CPU" if device == "cpu" else "GPU"
    at_a_time = f"{workers} {'trial' if workers == 1 else 'trials'} at a time on {processor}s"
    lines = [
        f"# genre-search run --config FILE        {len(corpus.usable)} tracks in {len(counts)} genres, {at_a_time}",
        "# All settings: genre-search config show",
        f"data: {_yaml(absolute(data))}",
        "",
        f"# Half of the tracks are at least {seconds:.0f} s long, which is {segments} segments of {segment:g} s.",
        f"segments_per_track: {segments}",
        "# mel64 needs a quarter of the computation of mel128; on GPUs, mel128 takes only a little longer.",
        f"front_end: {front_end}",
        "",
        "# The backbones to search; with fewer of them, each gets more trials.",
        "space:",
        f"  backbone: {_yaml(list(SearchConfig().backbones))}",
        "",
        "# The search ends after this many trials, after this time, or when no further improvement is expected.",
        "trials: 200",
        f"time_budget: {budget}",
        "stop_when_flat: true",
        *_weighting(counts),
        *_splitting(corpus),
    ]
    return "\n".join(lines) + "\n"


def _weighting(counts: dict[str, int]) -> list[str]:
    """Weighted genres, if their sizes differ much."""
    smallest, largest = (
        min(counts, key=lambda genre: counts[genre]),
        max(counts, key=lambda genre: counts[genre]),
    )
    if counts[largest] < IMBALANCED * counts[smallest]:
        return []
    sizes = f"{smallest} has {counts[smallest]} tracks, {largest} {counts[largest]}"
    return [
        "",
        f"# {sizes}: each genre gets the same weight in the loss.",
        "training:",
        "  class_weights: balanced",
    ]


def _splitting(corpus: Corpus) -> list[str]:
    """A validation part drawn from train, if the corpus has none; the reason, if no split is possible."""
    try:
        split_corpus(corpus, **Split().model_dump())
    except InputError as refusal:
        drawn = Split(draw_validation=True)
        try:
            split_corpus(corpus, **drawn.model_dump())
        except InputError:
            return ["", f"# run would reject this corpus: {refusal}"]
        return [
            "",
            "# The manifest has no validation tracks, so they are drawn from train.",
            "split:",
            "  draw_validation: true",
        ]
    return []


def _yaml(value: object) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10**6)
    return text.strip().removesuffix("...").strip()
