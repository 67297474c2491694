"""The split as a model's card records it: the tracks of each part, or of a large corpus their number and a digest."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq

from genre_core.corpus.tracks import SPLITS, Corpus, Track

LISTED_TRACKS = 10_000
"""Number of usable tracks up to which a card lists them; corpus.parquet always does."""

SPLIT_TABLE = "split.parquet"

SplitRecord = Mapping[str, Any]
"""Part -> its track ids, or {"tracks": number, "digest": hash of the ids}."""


def split_record(corpus: Corpus) -> SplitRecord:
    """The split as a model's card records it."""
    ids = {part: [track.track_id for track in corpus.part(part)] for part in SPLITS}
    if len(corpus.usable) <= LISTED_TRACKS:
        return ids
    return {part: {"tracks": len(own), "digest": _digest(own)} for part, own in ids.items()}


def sizes(record: SplitRecord) -> dict[str, int]:
    """Part -> its number of tracks."""
    return {part: len(own) if isinstance(own, list) else int(own["tracks"]) for part, own in record.items()}


def tracks_of(record: SplitRecord, part: str, corpus: Corpus) -> list[Track]:
    """The tracks of a part in the order in which the model saw them; none if the corpus is another one.

    Args:
        record: of a model's card.
        part: one of SPLITS.
        corpus: of the model's run.
    """
    own = record[part]
    tracks = {track.track_id: track for track in corpus.usable}
    if isinstance(own, list):
        return [tracks[name] for name in own]
    found = list(corpus.part(part))
    return found if _digest([track.track_id for track in found]) == own["digest"] else []


def _digest(ids: list[str]) -> str:
    return hashlib.sha256("\n".join(ids).encode()).hexdigest()


def write_split(record: SplitRecord, corpus: Path, folder: Path) -> None:
    """Write split.parquet, the tracks of each part, next to an exported card that does not list them.

    Args:
        record: of the card.
        corpus: the corpus.parquet of the model's run.
        folder: of the exported model.
    """
    if all(isinstance(own, list) for own in record.values()):
        return
    table = pq.read_table(corpus, columns=["track_id", "split", "excluded_reason"])
    usable = table.filter(table["excluded_reason"].is_null())
    pq.write_table(usable.drop_columns(["excluded_reason"]), folder / SPLIT_TABLE)
