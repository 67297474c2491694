"""Splits: every group in one part, every genre in each part, whatever the corpus."""

import random
import warnings
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corpora import corpus_of, flat, sides_of
from hypothesis import given, settings
from hypothesis import strategies as st
from refusals import refused
from sklearn.model_selection import StratifiedGroupKFold

from genre_core.corpus.splits import SCARCE_GENRE_WARNING, split_corpus
from genre_core.corpus.tracks import SPLITS, Corpus, read_corpus
from genre_core.errors import ErrorCode, InputError

SOUNDTRACKS = Path(__file__).parents[3] / "shared/data/soundtracks"


@pytest.mark.parametrize(("validation", "test"), [(0.15, 0.15), (0.2, 0.1), (0.1, 0.33), (0.25, 0.25)])
def test_a_drawn_split_is_stratified_and_close_to_the_requested_shares(
    validation: float, test: float
) -> None:
    corpus = split_corpus(flat(jazz=100, metal=60, soul=37), validation=validation, test=test, seed=3)
    for genre, total in {"jazz": 100, "metal": 60, "soul": 37}.items():
        for split, share in (("validation", validation), ("test", test)):
            held = sum(track.genre == genre for track in corpus.part(split))
            assert held / total == pytest.approx(share, abs=0.06)


def test_three_groups_per_genre_are_enough() -> None:
    pairs = [(f"genre {n}", f"{n} {group}") for n in range(10) for group in (0, 0, 0, 0, 1, 2)]
    corpus = split_corpus(corpus_of(*pairs), validation=0.1, test=0.1, seed=0)
    assert all(sides == set(SPLITS) for sides in sides_of(corpus, "genre").values())


@pytest.mark.parametrize("sizes", [(5, 1, 1), (1, 1, 1), (9, 5, 1), (2, 2, 1, 1)])
@pytest.mark.parametrize("test", [0.05, 0.3, 0.42])
def test_the_test_split_leaves_groups_for_both_other_splits(sizes: tuple[int, ...], test: float) -> None:
    pairs = [
        (genre, f"{genre} {n}")
        for genre in ("jazz", "soul")
        for n, size in enumerate(sizes)
        for _ in range(size)
    ]
    for seed in range(5):
        corpus = split_corpus(corpus_of(*pairs), validation=0.08, test=test, seed=seed)
        assert all(sides == set(SPLITS) for sides in sides_of(corpus, "genre").values())


@st.composite
def corpora(draw: st.DrawFn) -> Corpus:
    genres = [f"genre {number}" for number in range(draw(st.integers(1, 6)))]
    pairs = []
    for genre in genres:
        shared = draw(st.booleans())  # whether other genres have groups of the same names
        for group in range(draw(st.integers(1, 8))):
            name = f"shared {group}" if shared else f"{genre} {group}"
            pairs += [(genre, name)] * draw(st.integers(1, 5))
    return corpus_of(*pairs)


@settings(max_examples=80, deadline=None)
@given(corpora(), st.floats(0.03, 0.25), st.floats(0.03, 0.25), st.integers(0, 2**32 - 1), st.randoms())
def test_any_corpus_is_split_correctly_or_refused(
    corpus: Corpus, validation: float, test: float, seed: int, shuffler: random.Random
) -> None:
    groups = defaultdict(set)
    for track in corpus.tracks:
        groups[track.genre].add(track.group)
    try:
        parted = split_corpus(corpus, validation=validation, test=test, seed=seed)
    except InputError:
        disjoint = sum(map(len, groups.values())) == len(set().union(*groups.values()))
        assert len(groups) < 2 or min(map(len, groups.values())) < 3 or not disjoint
        return
    assert all(len(sides) == 1 for sides in sides_of(parted, "group").values())
    assert all(sides == set(SPLITS) for sides in sides_of(parted, "genre").values())
    assert [replace(track, split=None) for track in parted.tracks] == list(corpus.tracks)
    shuffled = Corpus(tuple(shuffler.sample(corpus.tracks, len(corpus.tracks))))
    again = split_corpus(shuffled, validation=validation, test=test, seed=seed)
    assert set(again.tracks) == set(parted.tracks)


def test_another_seed_gives_another_split() -> None:
    corpus = flat(jazz=30, soul=30)
    drawn = {split_corpus(corpus, validation=0.2, test=0.2, seed=seed) for seed in range(4)}
    assert len(drawn) == 4


def test_excluded_tracks_have_no_split_and_do_not_count() -> None:
    corpus = flat(jazz=4, soul=4)
    spoilt = replace(corpus.tracks[0], excluded_reason="silent")
    parted = split_corpus(Corpus((spoilt, *corpus.tracks[1:])), validation=0.25, test=0.25, seed=0)
    assert parted.tracks[0] == spoilt
    assert len(parted.usable) == 7


def test_a_given_split_is_kept() -> None:
    bare = flat(jazz=3, soul=3)
    tracks = tuple(replace(t, split=SPLITS[n % 3]) for n, t in enumerate(bare.tracks))
    assert split_corpus(Corpus(tracks), validation=0.2, test=0.2, seed=0).tracks == tracks


FANO = ["123", "145", "167", "246", "257", "347", "356"]
"""Lines of the Fano plane: no colouring of its 7 points with 3 colours has all colours on every line."""

# corpus, shares of validation and test, code of the refusal, values in its message
REFUSED: list[tuple[Corpus, tuple[float, float], ErrorCode, list[str]]] = [
    (flat(jazz=9), (0.2, 0.2), ErrorCode.TOO_FEW_GENRES, ["'jazz'"]),
    (flat(jazz=9, soul=2), (0.2, 0.2), ErrorCode.TOO_FEW_GROUPS, ["'soul'", "'soul 0', 'soul 1'"]),
    (
        corpus_of(*[("jazz", "x")] * 5, *[("soul", "y")] * 5),
        (0.2, 0.2),
        ErrorCode.TOO_FEW_GROUPS,
        ["'jazz'", "'x'"],
    ),
    (
        corpus_of(*((line, p) for line in FANO for p in line)),
        (0.2, 0.2),
        ErrorCode.SPLIT_NOT_POSSIBLE,
        ["'123'"],
    ),
    (flat(jazz=9, soul=9), (0.0, 0.2), ErrorCode.SPLIT_SHARES, ["validation=0.0", "test=0.2"]),
    (flat(jazz=9, soul=9), (0.2, 0.7), ErrorCode.SPLIT_SHARES, ["validation=0.2", "test=0.7"]),
    (flat(jazz=9, soul=9), (0.3, 0.3), ErrorCode.SPLIT_SHARES, ["0.5"]),
    (flat(jazz=9, soul=9), (float("nan"), 0.5), ErrorCode.SPLIT_SHARES, ["validation=nan"]),
]


@pytest.mark.parametrize(("corpus", "shares", "code", "values"), REFUSED)
def test_an_impossible_split_is_refused(
    corpus: Corpus, shares: tuple[float, float], code: ErrorCode, values: list[str]
) -> None:
    with refused(code, *values):
        split_corpus(corpus, validation=shares[0], test=shares[1], seed=0)


# changes to a valid given split of three jazz and three soul tracks, code of the refusal, values in its message
INVALID: list[tuple[dict[int, dict[str, Any]], ErrorCode, list[str]]] = [
    ({0: {"split": None}}, ErrorCode.SPLIT_PARTLY_GIVEN, ["'jazz/0000.wav'"]),
    ({0: {"group": "jazz 1"}}, ErrorCode.GROUP_IN_TWO_SPLITS, ["'jazz 1'", "train and validation"]),
    ({5: {"split": "train"}}, ErrorCode.SPLIT_WITHOUT_GENRE, ["test", "'soul'"]),
    ({1: {"excluded_reason": "silent"}}, ErrorCode.SPLIT_WITHOUT_GENRE, ["validation", "'jazz'"]),
]


@pytest.mark.parametrize(("changes", "code", "values"), INVALID)
def test_an_invalid_given_split_is_refused(
    changes: dict[int, dict[str, Any]], code: ErrorCode, values: list[str]
) -> None:
    tracks = [
        replace(track, **{"split": SPLITS[number % 3]} | changes.get(number, {}))
        for number, track in enumerate(flat(jazz=3, soul=3).tracks)
    ]
    with refused(code, *values):
        split_corpus(Corpus(tuple(tracks)), validation=0.2, test=0.2, seed=0)


def without_validation(groups: int, test: int = 2) -> Corpus:
    """Two genres of `groups` groups with three tracks each, of which the last `test` are in the test split."""
    pairs = [(genre, f"{genre} {n}") for genre in ("jazz", "soul") for n in range(groups) for _ in range(3)]
    tracks = corpus_of(*pairs).tracks
    held = {f"{genre} {n}" for genre in ("jazz", "soul") for n in range(groups - test, groups)}
    return Corpus(tuple(replace(t, split="test" if t.group in held else "train") for t in tracks))


@pytest.mark.parametrize("groups", [4, 10, 30])
def test_validation_is_drawn_from_train_on_request_and_the_test_split_is_kept(groups: int) -> None:
    corpus = without_validation(groups)
    parted = split_corpus(corpus, validation=0.2, test=0.2, seed=1, draw_validation=True)
    assert parted.part("test") == corpus.part("test")
    assert all(len(sides) == 1 for sides in sides_of(parted, "group").values())
    assert all(sides == set(SPLITS) for sides in sides_of(parted, "genre").values())
    share = len(parted.part("validation")) / len(parted.usable)
    assert share == pytest.approx(0.2, abs=0.06)
    again = split_corpus(parted, validation=0.2, test=0.2, seed=2, draw_validation=True)
    assert again == parted, "an existing validation split is kept"


def test_a_split_without_validation_is_refused_with_the_way_out() -> None:
    with refused(ErrorCode.SPLIT_WITHOUT_VALIDATION, "--set split.draw_validation=true"):
        split_corpus(without_validation(10), validation=0.2, test=0.2, seed=0)
    with refused(ErrorCode.TOO_FEW_GROUPS, "train", "'jazz'", "'jazz 0'"):
        split_corpus(without_validation(2, test=1), validation=0.2, test=0.2, seed=0, draw_validation=True)


@pytest.mark.parametrize(
    ("given", "absent", "absent_after_drawing"),
    [
        (("train", "validation"), "no usable test", "no usable test"),
        (("test",), "no usable train and no validation", "no usable train and no validation"),
        (("train",), "no usable validation and no test", "no usable test"),
    ],
)
def test_a_given_split_that_lacks_a_part_is_refused_with_its_name(
    given: tuple[str, ...], absent: str, absent_after_drawing: str
) -> None:
    tracks = tuple(replace(t, split=given[n % len(given)]) for n, t in enumerate(flat(jazz=4, soul=4).tracks))
    with refused(ErrorCode.SPLIT_WITHOUT_PART, absent):
        split_corpus(Corpus(tracks), validation=0.2, test=0.2, seed=0)
    with refused(ErrorCode.SPLIT_WITHOUT_PART, absent_after_drawing):
        split_corpus(Corpus(tracks), validation=0.2, test=0.2, seed=0, draw_validation=True)


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["Data/genres_original/blues/1.wav", "Data/genres_original/rock/1.wav"], "Data/genres_original"),
        (["all/blues/a/1.wav", "all/rock/1.wav"], "all"),
        (["jazz/1.wav", "jazz/Nina/1.wav"], None),
        (["jazz/Nina/1.wav", "jazz/Nina/2.wav"], None),
    ],
)
def test_the_folder_that_may_have_the_genres_is_suggested_if_there_is_only_one_genre(
    tmp_path: Path, names: list[str], hint: str | None
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError) as caught:
        split_corpus(read_corpus(tmp_path), validation=0.2, test=0.2, seed=0)
    assert caught.value.code is ErrorCode.TOO_FEW_GENRES
    if hint:
        assert f" {tmp_path / hint} " in str(caught.value)
    else:
        assert str(tmp_path) not in str(caught.value)


GIVEN = "\n".join(["path,genre,group,split", "a.wav,jazz,x,train", "b.wav,soul,y,train", ""])


@pytest.mark.parametrize(
    ("row", "code", "values"),
    [
        ("c.wav,jazz,z,", ErrorCode.SPLIT_PARTLY_GIVEN, ["'c.wav'"]),
        ("c.wav,jazz,z,test", ErrorCode.SPLIT_WITHOUT_VALIDATION, []),
        (
            "c.wav,jazz,z,test\nd.wav,jazz,v,val",
            ErrorCode.SPLIT_WITHOUT_GENRE,
            ["validation", "'soul'"],
        ),
        ("c.wav,jazz,x,test", ErrorCode.GROUP_IN_TWO_SPLITS, ["'x'", "test and train"]),
    ],
)
def test_an_invalid_split_in_a_manifest_is_refused(
    tmp_path: Path, row: str, code: ErrorCode, values: list[str]
) -> None:
    (tmp_path / "manifest.csv").write_text(f"{GIVEN}{row}\n")
    with refused(code, *values):
        split_corpus(read_corpus(tmp_path), validation=0.2, test=0.2, seed=0)


def test_canary_scikit_learn_warns_of_a_genre_with_fewer_tracks_than_folds() -> None:
    genres, groups = ["jazz"] * 9 + ["soul"] * 2, list(range(11))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        list(StratifiedGroupKFold(3).split(genres, genres, groups))
    texts = {str(warning.message)[: len(SCARCE_GENRE_WARNING)] for warning in caught}
    assert texts == {SCARCE_GENRE_WARNING}, (
        f"scikit-learn now warns {texts} of a scarce genre: adapt SCARCE_GENRE_WARNING in genre_core/corpus/splits.py"
    )


@pytest.mark.skipif(not SOUNDTRACKS.is_dir(), reason="needs real music in ../shared/data")
def test_a_manifest_of_real_music_is_split_by_recording() -> None:
    corpus = split_corpus(read_corpus(SOUNDTRACKS), validation=0.15, test=0.15, seed=0)
    assert (len(corpus.usable), len(corpus.genres)) == (240, 5)
    assert all(track.path.is_file() for track in corpus.usable)
    assert all(len(sides) == 1 for sides in sides_of(corpus, "group").values())
    assert all(20 <= len(corpus.part(split)) <= 50 for split in ("validation", "test"))
