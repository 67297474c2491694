"""GTZAN as it lies in a folder -> tracks with a split: the one filtered by artist and fault, or one that leaks."""

import re
from pathlib import Path

from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import SYSTEM_FOLDER, Corpus, Track
from genre_core.errors import InputError

SPLITS = ("filtered", "stratified")
STRATIFIED_SHARE = 0.2  # of the tracks for validation, and as many for test
LEAK = (
    "warning: the stratified split leaks. 64% of its test tracks share an artist with its training tracks, and "
    "GTZAN's replicas and mislabelled tracks are among them: scores come out far too high, and none is comparable "
    "with one on --split filtered"
)

_RECORDING = re.compile(r"([a-z]+)\.\d{5}\.(wav|au)")  # what archives add, such as ._blues.00000.wav, is none


def recordings(folder: Path) -> dict[str, Path]:
    """GTZAN's audio files anywhere below a folder, as GENRE/GENRE.00012.wav, by names such as `blues.00012`."""
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*.*.*")):
        match = _RECORDING.fullmatch(path.name)
        if any(SYSTEM_FOLDER.match(name) for name in path.relative_to(folder).parts[:-1]):
            continue
        if match and match[1] == path.parent.name:
            found.setdefault(path.stem, path)
    return found


def tracks(folder: Path, split: str) -> tuple[tuple[Track, ...], list[str]]:
    """The tracks of one of SPLITS that are in the folder, and what there is to say of the others.

    Each is a group of its own: no list of artists is published with the audio, and the filtered split keeps them
    apart already. Raises InputError for another split, or where no track of it is there.
    """
    if split not in SPLITS:
        raise InputError(f"--split of gtzan must be {' or '.join(SPLITS)}, but got --split {split}")
    found = recordings(folder)
    if split == "stratified":
        listed = tuple(_track(folder, name, path, None) for name, path in found.items())
        share = STRATIFIED_SHARE
        return split_corpus(Corpus(listed), validation=share, test=share, seed=0).tracks, [LEAK]
    sides = _filtered_sides()
    listed = tuple(_track(folder, name, path, sides[name]) for name, path in found.items() if name in sides)
    if not listed:
        raise InputError(
            f"no track of GTZAN's filtered split is in {folder}: take its files away and run it again"
        )
    notes = []
    if lacking := [name for name in sides if name not in found]:
        notes.append(
            f"{len(lacking)} of the filtered split's {len(sides)} tracks are not there, first {lacking[0]}"
        )
    if unlisted := len(found) - len(listed):
        notes.append(
            f"{unlisted} files that the filtered split does not list, faulty or replicas, are left out"
        )
    return listed, notes


def _track(folder: Path, name: str, path: Path, side: str | None) -> Track:
    place = path.relative_to(folder).as_posix()
    return Track(track_id=place, path=path, genre=name.partition(".")[0], group=place, split=side)


def _filtered_sides() -> dict[str, str]:
    """Name -> side, of the 443, 197 and 290 tracks of the split filtered by artist and fault."""
    from torchaudio.datasets import gtzan  # brings torch, and takes two seconds

    parts = {"train": gtzan.filtered_train, "validation": gtzan.filtered_valid, "test": gtzan.filtered_test}
    return {name: side for side, names in parts.items() for name in names}
