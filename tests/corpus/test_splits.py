"""A split keeps every group whole and every genre on each side, whatever the corpus."""

import random
import re
from collections import defaultdict
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from corpora import corpus_of, flat, sides_of
from hypothesis import given, settings
from hypothesis import strategies as st

from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import SPLITS, Corpus, read_corpus
from genre_core.errors import InputError

SOUNDTRACKS = Path(__file__).parents[3] / "shared/data/soundtracks"


@pytest.mark.parametrize(("validation", "test"), [(0.15, 0.15), (0.2, 0.1), (0.1, 0.33), (0.25, 0.25)])
def test_a_drawn_split_is_stratified_and_near_the_shares_asked_for(validation: float, test: float) -> None:
    corpus = split_corpus(flat(jazz=100, metal=60, soul=37), validation=validation, test=test, seed=3)
    for genre, total in {"jazz": 100, "metal": 60, "soul": 37}.items():
        for split, share in (("validation", validation), ("test", test)):
            held = sum(track.genre == genre for track in corpus.part(split))
            assert held / total == pytest.approx(share, abs=0.06)


def test_three_groups_a_genre_are_enough() -> None:
    pairs = [(f"genre {n}", f"{n} {group}") for n in range(10) for group in (0, 0, 0, 0, 1, 2)]
    corpus = split_corpus(corpus_of(*pairs), validation=0.1, test=0.1, seed=0)
    assert all(sides == set(SPLITS) for sides in sides_of(corpus, "genre").values())


@pytest.mark.parametrize("sizes", [(5, 1, 1), (1, 1, 1), (9, 5, 1), (2, 2, 1, 1)])
@pytest.mark.parametrize("test", [0.05, 0.3, 0.42])
def test_the_test_part_leaves_groups_for_both_other_parts(sizes: tuple[int, ...], test: float) -> None:
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
        shared = draw(st.booleans())  # whether its groups' names are those of other genres too
        for group in range(draw(st.integers(1, 8))):
            name = f"shared {group}" if shared else f"{genre} {group}"
            pairs += [(genre, name)] * draw(st.integers(1, 5))
    return corpus_of(*pairs)


@settings(max_examples=80, deadline=None)
@given(corpora(), st.floats(0.03, 0.25), st.floats(0.03, 0.25), st.integers(0, 2**32 - 1), st.randoms())
def test_any_corpus_is_split_soundly_or_refused(
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


def test_excluded_tracks_have_no_split_and_count_for_nothing() -> None:
    corpus = flat(jazz=4, soul=4)
    spoilt = replace(corpus.tracks[0], excluded_reason="silent")
    parted = split_corpus(Corpus((spoilt, *corpus.tracks[1:])), validation=0.25, test=0.25, seed=0)
    assert parted.tracks[0] == spoilt
    assert len(parted.usable) == 7


def test_a_split_that_was_given_is_kept() -> None:
    bare = flat(jazz=3, soul=3)
    tracks = tuple(replace(t, split=SPLITS[n % 3]) for n, t in enumerate(bare.tracks))
    assert split_corpus(Corpus(tracks), validation=0.2, test=0.2, seed=0).tracks == tracks


FANO = ["123", "145", "167", "246", "257", "347", "356"]  # no three colours of 7 points show on every line

# tracks as (genre, group), shares, what the refusal must name
REFUSED = [
    (flat(jazz=9), (0.2, 0.2), r"two genres with usable tracks, but has \['jazz'\]"),
    (flat(jazz=9, soul=2), (0.2, 0.2), r"genre 'soul' has 2 group\(s\), 'soul 0', 'soul 1', .* add tracks"),
    (
        corpus_of(*[("jazz", "x")] * 5, *[("soul", "y")] * 5),
        (0.2, 0.2),
        r"genre 'jazz' has 1 group\(s\), 'x',",
    ),
    (corpus_of(*((line, p) for line in FANO for p in line)), (0.2, 0.2), "groups that span genres .* '123'"),
    (flat(jazz=9, soul=9), (0.0, 0.2), "got validation=0.0 and test=0.2"),
    (flat(jazz=9, soul=9), (0.2, 0.7), "got validation=0.2 and test=0.7"),
    (flat(jazz=9, soul=9), (0.3, 0.3), "at most 0.5 together"),
    (flat(jazz=9, soul=9), (float("nan"), 0.5), "got validation=nan"),
]


@pytest.mark.parametrize(("corpus", "shares", "words"), REFUSED, ids=[case[2] for case in REFUSED])
def test_a_split_that_cannot_be_is_refused(corpus: Corpus, shares: tuple[float, float], words: str) -> None:
    with pytest.raises(InputError, match=words):
        split_corpus(corpus, validation=shares[0], test=shares[1], seed=0)


# changes to a sound given split of three jazz and three soul tracks, what the refusal must name
UNSOUND = [
    ({0: {"split": None}}, "'jazz/0000.wav' has no split"),
    ({0: {"group": "jazz 1"}}, "group 'jazz 1' is in train and validation; keep it in one"),
    ({5: {"split": "train"}}, "no usable test track of 'soul'; add some or drop the genre"),
    ({1: {"excluded_reason": "silent"}}, "no usable validation track of 'jazz'"),
]


@pytest.mark.parametrize(("changes", "words"), UNSOUND)
def test_an_unsound_given_split_is_refused(changes: dict[int, dict[str, Any]], words: str) -> None:
    tracks = [
        replace(track, **{"split": SPLITS[number % 3]} | changes.get(number, {}))
        for number, track in enumerate(flat(jazz=3, soul=3).tracks)
    ]
    with pytest.raises(InputError, match=re.escape(words)):
        split_corpus(Corpus(tuple(tracks)), validation=0.2, test=0.2, seed=0)


def of_two_parts(groups: int, test: int = 2) -> Corpus:
    """Two genres with so many groups of three tracks; the last `test` of each are the test part."""
    pairs = [(genre, f"{genre} {n}") for genre in ("jazz", "soul") for n in range(groups) for _ in range(3)]
    tracks = corpus_of(*pairs).tracks
    held = {f"{genre} {n}" for genre in ("jazz", "soul") for n in range(groups - test, groups)}
    return Corpus(tuple(replace(t, split="test" if t.group in held else "train") for t in tracks))


@pytest.mark.parametrize("groups", [4, 10, 30])
def test_validation_is_drawn_from_train_where_that_is_wanted_and_the_test_part_stays(groups: int) -> None:
    corpus = of_two_parts(groups)
    parted = split_corpus(corpus, validation=0.2, test=0.2, seed=1, draw_validation=True)
    assert parted.part("test") == corpus.part("test")
    assert all(len(sides) == 1 for sides in sides_of(parted, "group").values())
    assert all(sides == set(SPLITS) for sides in sides_of(parted, "genre").values())
    share = len(parted.part("validation")) / len(parted.usable)
    assert share == pytest.approx(0.2, abs=0.06)
    again = split_corpus(parted, validation=0.2, test=0.2, seed=2, draw_validation=True)
    assert again == parted, "a validation part that is there stays"


def test_a_split_without_validation_is_refused_with_the_way_out() -> None:
    with pytest.raises(InputError, match=r"no validation.*split\.draw_validation=true"):
        split_corpus(of_two_parts(10), validation=0.2, test=0.2, seed=0)
    with pytest.raises(InputError, match="genre 'jazz' has one group in train, 'jazz 0'"):
        split_corpus(of_two_parts(2, test=1), validation=0.2, test=0.2, seed=0, draw_validation=True)


@pytest.mark.parametrize(
    ("parts", "words"),
    [
        (("train", "validation"), "no usable test track: name some, or leave the split empty"),
        (("test",), "no usable train and no validation track"),
        (("train",), "no usable validation and no test track"),
    ],
)
@pytest.mark.parametrize("draw", [False, True])
def test_a_split_that_lacks_a_part_names_it(parts: tuple[str, ...], words: str, draw: bool) -> None:
    tracks = tuple(replace(t, split=parts[n % len(parts)]) for n, t in enumerate(flat(jazz=4, soul=4).tracks))
    if draw and parts == ("train",):
        words = "no usable test track"
    with pytest.raises(InputError, match=words):
        split_corpus(Corpus(tracks), validation=0.2, test=0.2, seed=0, draw_validation=draw)


@pytest.mark.parametrize(
    ("names", "hint"),
    [
        (["Data/genres_original/blues/1.wav", "Data/genres_original/rock/1.wav"], "Data/genres_original"),
        (["all/blues/a/1.wav", "all/rock/1.wav"], "all"),
        (["jazz/1.wav", "jazz/Nina/1.wav"], None),
        (["jazz/Nina/1.wav", "jazz/Nina/2.wav"], None),
    ],
)
def test_an_only_genre_whose_folders_may_be_the_genres_says_where(
    tmp_path: Path, names: list[str], hint: str | None
) -> None:
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(InputError, match="needs two genres") as caught:
        split_corpus(read_corpus(tmp_path), validation=0.2, test=0.2, seed=0)
    assert (
        (f" in {tmp_path / hint} are the genres" in str(caught.value))
        if hint
        else "are the genres" not in str(caught.value)
    )


GIVEN = "\n".join(["path,genre,group,split", "a.wav,jazz,x,train", "b.wav,soul,y,train", ""])


@pytest.mark.parametrize(
    ("row", "words"),
    [
        ("c.wav,jazz,z,", "'c.wav' has no split though others have"),
        ("c.wav,jazz,z,test", "no validation"),
        ("c.wav,jazz,z,test\nd.wav,jazz,v,val", "no usable validation track of 'soul'"),
        ("c.wav,jazz,x,test", "group 'x' is in test and train"),
    ],
)
def test_an_unsound_split_in_a_manifest_is_refused(tmp_path: Path, row: str, words: str) -> None:
    (tmp_path / "manifest.csv").write_text(f"{GIVEN}{row}\n")
    with pytest.raises(InputError, match=words):
        split_corpus(read_corpus(tmp_path), validation=0.2, test=0.2, seed=0)


@pytest.mark.skipif(
    not SOUNDTRACKS.is_dir(), reason="the soundtracks, real music, are not beside the project"
)
def test_real_music_is_read_by_its_manifest_and_split_by_recording() -> None:
    corpus = split_corpus(read_corpus(SOUNDTRACKS), validation=0.15, test=0.15, seed=0)
    assert (len(corpus.usable), len(corpus.genres)) == (240, 5)
    assert all(track.path.is_file() for track in corpus.usable)
    assert all(len(sides) == 1 for sides in sides_of(corpus, "group").values())
    assert all(20 <= len(corpus.part(split)) <= 50 for split in ("validation", "test"))
