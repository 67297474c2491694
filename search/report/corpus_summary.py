"""What the report says about a corpus, without holding its tracks."""

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from genre_core.corpus.audit import reason_counts
from genre_core.corpus.corpus_table import load_excluded, read_columns
from genre_core.corpus.tracks import SPLITS, Track


@dataclass(frozen=True, kw_only=True)
class CorpusSummary:
    """The numbers of a corpus, and its excluded files."""

    genres: tuple[str, ...]
    tracks: Mapping[str, Mapping[str, int]]
    """Genre -> part of the split -> number of tracks."""
    splits: Mapping[str, tuple[int, float]]
    """Part of the split -> number of tracks, and their length in seconds."""
    usable: int
    """Number of usable tracks."""
    excluded: tuple[Track, ...]
    reasons: Mapping[str, int]
    """Kind of reason, the most frequent first -> number of excluded files."""

    @property
    def files(self) -> int:
        """Number of files, including the excluded ones."""
        return self.usable + len(self.excluded)

    @classmethod
    def read(cls, corpus: Path) -> "CorpusSummary":
        """Read the summary of a run's corpus.parquet; for the error, see `load_corpus`."""
        columns, excluded = read_columns(corpus, "genre", "split", "seconds"), load_excluded(corpus)
        tracks = Counter(zip(columns["genre"], columns["split"], strict=True))
        seconds: defaultdict[str | None, float] = defaultdict(float)
        for split, length in zip(columns["split"], columns["seconds"], strict=True):
            seconds[split] += length or 0.0
        genres = tuple(sorted(set(columns["genre"])))
        return cls(
            genres=genres,
            tracks={genre: {split: tracks[genre, split] for split in SPLITS} for genre in genres},
            splits={
                split: (sum(tracks[genre, split] for genre in genres), seconds[split]) for split in SPLITS
            },
            usable=len(columns["genre"]),
            excluded=excluded.tracks,
            reasons=reason_counts(excluded),
        )
