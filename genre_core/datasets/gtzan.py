"""The tracks of an unpacked GTZAN, with the fault- and artist-filtered split or a stratified one that leaks."""

import re
from pathlib import Path

from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import SYSTEM_FOLDER, Corpus, Track
from genre_core.errors import ErrorCode, InputError

SPLITS = ("filtered", "stratified")
STRATIFIED_SHARE = 0.2
"""Share of the tracks for validation; as many are for test."""
LEAK = (
    "warning: the stratified split leaks. 64% of its test tracks share an artist with its training tracks, and it "
    "includes GTZAN's replicas and mislabeled tracks: scores are far too high and not comparable with those on "
    "--split filtered"
)

_RECORDING = re.compile(
    r"([a-z]+)\.\d{5}\.(wav|au)"
)  # does not match files that archivers add: ._blues.00000.wav


def recordings(folder: Path) -> dict[str, Path]:
    """Find GTZAN's files GENRE/GENRE.NUMBER.wav anywhere in a folder, by names such as `blues.00012`."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.*.*")):
        match = _RECORDING.fullmatch(path.name)
        if any(SYSTEM_FOLDER.match(name) for name in path.relative_to(folder).parts[:-1]):
            continue
        if match and match[1] == path.parent.name:
            found.setdefault(path.stem, path)
    return found


def require_split(split: str) -> None:
    """Raise InputError if this is none of SPLITS."""
    if split not in SPLITS:
        raise InputError(
            f"--split of gtzan must be {' or '.join(SPLITS)}, but got --split {split}",
            code=ErrorCode.UNKNOWN_SPLIT,
        )


def tracks(folder: Path, split: str) -> tuple[tuple[Track, ...], list[str]]:
    """List the tracks of a split that are in a folder.

    Each track is its own group: no list of artists is published with the audio, and the filtered split already
    separates them.

    Args:
        folder: has the audio, at any depth.
        split: one of SPLITS.

    Returns:
        The tracks, and messages about missing and skipped ones.

    Raises:
        InputError: the split is unknown, or the folder has none of its tracks.
    """
    require_split(split)
    found = recordings(folder)
    if split == "stratified":
        listed = tuple(_track(folder, name, path, None) for name, path in found.items())
        share = STRATIFIED_SHARE
        return split_corpus(Corpus(listed), validation=share, test=share, seed=0).tracks, [LEAK]
    sides = filtered_split()
    listed = tuple(_track(folder, name, path, sides[name]) for name, path in found.items() if name in sides)
    if not listed:
        raise InputError(
            f"{folder} contains none of the tracks in GTZAN's filtered split: delete its files and repeat the command",
            code=ErrorCode.NO_TRACKS,
        )
    notes = []
    if missing := [name for name in sides if name not in found]:
        notes.append(
            f"{len(missing)} of the filtered split's {len(sides)} tracks are missing, the first is {missing[0]}"
        )
    if unlisted := len(found) - len(listed):
        notes.append(
            f"skipped {unlisted} files that the filtered split does not list because they are faulty or replicas"
        )
    return listed, notes


def _track(folder: Path, name: str, path: Path, side: str | None) -> Track:
    place = path.relative_to(folder).as_posix()
    genre = name.partition(".")[0]
    return Track(track_id=place, location=str(path), genre=genre, group=place, split=side)


def filtered_split() -> dict[str, str]:
    """Map the names in the filtered split (443, 197 and 290 tracks) to train, validation or test.

    The lists are undocumented in torchaudio; a canary test fails if they change.
    """
    from torchaudio.datasets import gtzan  # imports torch, which takes two seconds

    parts = {"train": gtzan.filtered_train, "validation": gtzan.filtered_valid, "test": gtzan.filtered_test}
    return {name: side for side, names in parts.items() for name in names}
