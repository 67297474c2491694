"""Train, validation and test: every genre on each side, every group on one."""

import os
import unicodedata
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

from genre_core.corpus.tracks import SPLITS, Corpus, Track
from genre_core.errors import InputError

K = TypeVar("K")
V = TypeVar("V")

SEEDS_TRIED = 5  # shuffles looked over for the fold that is nearest to the share asked for
CLOSE_ENOUGH = 0.01  # mean distance from that share, over genres, at which the looking ends


def split_corpus(
    corpus: Corpus, *, validation: float, test: float, seed: int, draw_validation: bool = False
) -> Corpus:
    """The usable tracks parted over groups; a split that the manifest gave is verified and kept.

    `validation` and `test` are shares of the tracks, approached per genre as near as whole groups allow, each
    by one of n equal folds (1/2, 1/3, 1/4, ...). With `draw_validation`, a given split that has no validation part
    gets one, drawn from its train part. The same tracks and seed give the same split. Raises InputError unless every
    genre is on every side and no group on two.
    """
    if not (validation > 0 and test > 0 and validation + test <= 0.5):
        raise InputError(
            "validation and test are shares above 0 and at most 0.5 together, "
            f"but got validation={validation} and test={test}"
        )
    require_genres(corpus)
    tracks = sorted(corpus.usable, key=lambda track: track.track_id)  # the draw must not hang on their order
    given = {track.split for track in tracks}
    if given == {None}:
        sides = _drawn_sides(tracks, validation, test, seed)
        tracks = [replace(track, split=sides[track.group]) for track in tracks]
    elif draw_validation and "validation" not in given:
        tracks = _with_validation(tracks, validation, seed)
    _verify_split(tracks)
    split_of = {track.track_id: track.split for track in tracks}
    return Corpus(tuple(replace(track, split=split_of.get(track.track_id)) for track in corpus.tracks))


def require_genres(corpus: Corpus) -> None:
    """Raise InputError for a corpus of fewer than two genres, which says where others may be."""
    if len(corpus.genres) > 1:
        return
    hint = "add some"
    if below := _folders_below(corpus):
        where, names = below
        shown = f"{', '.join(map(repr, names[:3]))}{' and others' if len(names) > 3 else ''}"
        hint = f"add some, or, if the folders {shown} in {where} are the genres, give that folder"
    raise InputError(f"a corpus needs two genres with usable tracks, but has {list(corpus.genres)}: {hint}")


def _folders_below(corpus: Corpus) -> tuple[Path, list[str]] | None:
    """Where, within the folder of an only genre, several folders hold all tracks, and what they are called."""
    of_folders = [
        track.path.parent
        for track in corpus.usable
        if track.genre == unicodedata.normalize("NFC", track.track_id.partition("/")[0])
    ]
    if not of_folders or len(of_folders) < len(corpus.usable):
        return None
    where = Path(os.path.commonpath(of_folders))
    names = {folder.relative_to(where).parts[:1] for folder in of_folders}
    return (where, sorted(name[0] for name in names)) if () not in names else None


def _with_validation(tracks: Sequence[Track], validation: float, seed: int) -> list[Track]:
    """The tracks with a validation part out of the train part, of so large a share of all tracks."""
    train = [track for track in tracks if track.split == "train"]
    for genre, groups in sorted(_collected((track.genre, track.group) for track in train).items()):
        if len(groups) < 2:
            raise InputError(
                f"the split: genre {genre!r} has one group in train, {next(iter(groups))!r}, and to draw validation "
                "from it needs two: add tracks of other artists or recordings, or drop the genre"
            )
    share = validation * len(tracks) / max(1, len(train))
    held = _held_out(train, min(share, 0.5), seed, leave=1) if train else frozenset()
    return [replace(track, split="validation") if track.group in held else track for track in tracks]


def _verify_split(tracks: Sequence[Track]) -> None:
    """Every track has a side, every genre is on every side, and no group is on two."""
    if bare := [track.track_id for track in tracks if track.split is None]:
        raise InputError(f"the split: {bare[0]!r} has no split though others have; fill all or none")
    sides = _collected((track.group, track.split or "") for track in tracks)
    for group, found in sides.items():
        if len(found) > 1:
            raise InputError(
                f"the split: group {group!r} is in {' and '.join(sorted(found))}; keep it in one"
            )
    present = _collected((track.split or "", track.genre) for track in tracks)
    if absent := [split for split in SPLITS if split not in present]:
        raise InputError(_without_parts(absent))
    for split in SPLITS:
        if missing := {track.genre for track in tracks} - present[split]:
            names = ", ".join(map(repr, sorted(missing)))
            raise InputError(f"the split: no usable {split} track of {names}; add some or drop the genre")


def _without_parts(absent: Sequence[str]) -> str:
    """What to do about a given split that lacks whole parts."""
    if absent == ["validation"]:
        return (
            "the split has train and test and no validation, which chooses among trials: have it drawn from train, "
            "with --set split.draw_validation=true, or name its tracks"
        )
    return (
        f"the split has no usable {' and no '.join(absent)} track: name some, or leave the split empty for all tracks "
        "to have every part drawn"
    )


def _collected(pairs: Iterable[tuple[K, V]]) -> defaultdict[K, set[V]]:
    sets: defaultdict[K, set[V]] = defaultdict(set)
    for key, value in pairs:
        sets[key].add(value)
    return sets


def _drawn_sides(tracks: Sequence[Track], validation: float, test: float, seed: int) -> dict[str, str]:
    """Group -> side: the test part from all, then the validation part from what is left."""
    groups = _collected((track.genre, track.group) for track in tracks)
    for genre, names in sorted(groups.items()):
        if len(names) < len(SPLITS):
            raise InputError(
                f"genre {genre!r} has {len(names)} group(s), {', '.join(map(repr, sorted(names)))}, and a "
                f"split needs {len(SPLITS)}: add tracks of other artists or recordings, or drop the genre"
            )
    held_test = _held_out(tracks, test, seed, leave=2)
    rest = [track for track in tracks if track.group not in held_test]
    held_validation = _held_out(rest, validation / (1 - test), seed, leave=1)
    sides = dict.fromkeys((track.group for track in tracks), "train")
    return sides | dict.fromkeys(held_test, "test") | dict.fromkeys(held_validation, "validation")


def _held_out(tracks: Sequence[Track], share: float, seed: int, leave: int) -> frozenset[str]:
    """The groups of the fold nearest to `share` of each genre, of those that leave each genre `leave` groups.

    Where no fold of the wanted size has every genre, as with few groups a genre, larger folds do; thirds come
    last, since they part three groups a genre where halves cannot.
    """
    groups = _collected((track.genre, track.group) for track in tracks)
    most = max(map(len, groups.values()))
    for folds in [*range(min(max(2, round(1 / share)), most), 1, -1), min(3, most)]:
        distances: dict[frozenset[str], float] = {}
        for attempt in range(SEEDS_TRIED):
            for held in _folds(tracks, folds, (seed + attempt) % 2**32):
                if all(0 < len(names & held) <= len(names) - leave for names in groups.values()):
                    distances[held] = _distance(tracks, held, share)
            if min(distances.values(), default=1.0) < CLOSE_ENOUGH:
                break
        if distances:
            return min(distances, key=distances.__getitem__)
    scarce = min(groups, key=lambda genre: (len(groups[genre]), genre))
    raise InputError(
        f"no split found with every genre on every side: groups that span genres leave too few, "
        f"genre {scarce!r} the fewest with {len(groups[scarce])}; add groups to it or drop it"
    )


def _folds(tracks: Sequence[Track], folds: int, seed: int) -> Iterator[frozenset[str]]:
    """The groups of each of `folds` stratified parts."""
    from sklearn.model_selection import StratifiedGroupKFold  # takes a second: only a drawn split pays it

    genres, groups = [track.genre for track in tracks], [track.group for track in tracks]
    with warnings.catch_warnings():
        # A genre with fewer tracks than folds: the caller looks at which folds have it.
        warnings.filterwarnings("ignore", "The least populated class in y", UserWarning)
        parts = list(
            StratifiedGroupKFold(folds, shuffle=True, random_state=seed).split(genres, genres, groups)
        )
    return (frozenset(groups[index] for index in held) for _, held in parts)


def _distance(tracks: Sequence[Track], held: frozenset[str], share: float) -> float:
    """Mean over genres of how far the held share of its tracks is from `share`."""
    total = Counter(track.genre for track in tracks)
    kept = Counter(track.genre for track in tracks if track.group in held)
    return sum(abs(kept[genre] / total[genre] - share) for genre in total) / len(total)
