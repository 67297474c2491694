"""A corpus shows its genres before a search is spent on it: the list, what looks wrong in it, and the split."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora import corpus_of, flat
from rich.console import Console
from typer.testing import CliRunner, Result

from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import SPLITS, Corpus, read_corpus
from genre_core.errors import InputError
from genre_core.synthetic.styles import GENRES
from genre_core.system.progress import ProgressCallback
from search.cli import data as cli_data
from search.config.schema import SearchConfig, load
from search.data import genre_list, prepare

PAIRS = [(genre, f"{genre} {n // 2}") for genre in ("jazz", "soul", "rock") for n in range(12)]
SOUND = corpus_of(*PAIRS)


def with_genre(name: str, other: str = "jazz") -> Corpus:
    """A sound corpus with a genre of another name."""
    return Corpus(tuple(replace(t, genre=name if t.genre == other else t.genre) for t in SOUND.tracks))


def test_a_sound_corpus_is_not_suspected() -> None:
    assert genre_list.warnings(SOUND) == []


@pytest.mark.parametrize(
    ("corpus", "named"),
    [
        *((with_genre(name), name) for name in ("train", "Validation", "VAL", "test", "dev", "testing")),
        *((with_genre(name), name) for name in ("0", "12", "3.0", "1990-1999", "1 2")),
        *((with_genre(name), name) for name in ("nan", "NaN", "None", "null", "Unknown", "N/A", "<NA>")),
        (with_genre("Soul"), "Soul"),
        (with_genre("s-o u_l"), "s-o u_l"),
        (with_genre("ＳＯＵＬ"), "ＳＯＵＬ"),  # noqa: RUF001 - full-width letters
        (with_genre("so\N{NON-BREAKING HYPHEN}ul"), "so\N{NON-BREAKING HYPHEN}ul"),
        (flat(jazz=9, soul=10), "jazz"),
        (corpus_of(*PAIRS, *((genre, "Various") for genre in ("jazz", "soul", "rock"))), "Various"),
        (flat(jazz=10, soul=10), "`group`"),
        (flat(**dict.fromkeys(GENRES, 10)), "data get gtzan"),
    ],
)
def test_what_looks_wrong_is_named_in_one_line(corpus: Corpus, named: str) -> None:
    found = genre_list.warnings(corpus)
    assert any(named in sentence for sentence in found)
    assert all("\n" not in sentence for sentence in found)


@pytest.mark.parametrize(
    "name", ["80s", "trance", "tested", "unknown pleasures", "Música", "2-step", "soul jazz"]
)
def test_a_name_of_its_own_is_not_suspected(name: str) -> None:
    assert genre_list.warnings(with_genre(name)) == []


def test_a_warning_about_many_genres_names_a_few_and_counts_the_rest() -> None:
    corpus = corpus_of(*((f"genre {n:03}", f"group {n} {m // 2}") for n in range(200) for m in range(4)))
    (few,) = genre_list.warnings(corpus)
    assert "'genre 000' has 4" in few
    assert few.endswith("and 196 more")
    assert len(few) < 200


def test_the_compact_list_holds_tracks_and_groups_of_each_genre_and_cuts_many() -> None:
    assert genre_list.summary(SOUND) == "Tracks/groups: jazz 12/6, rock 12/6, soul 12/6"
    many = genre_list.summary(flat(**{f"g{n:03}": 3 for n in range(161)}))
    assert "g000 3/3" in many
    assert "137 more" in many
    assert len(many) < 500


def shown(corpus: Corpus) -> list[list[str]]:
    """The table's cells on 80 columns."""
    console = Console(width=80)
    with console.capture() as captured:
        console.print(genre_list.table(corpus), soft_wrap=True)
    lines = captured.get().splitlines()
    assert all(len(line) <= 80 for line in lines)
    return [line.split() for line in lines]


def test_the_table_shows_every_genre_by_part_and_adds_up() -> None:
    parted = split_corpus(SOUND, validation=0.2, test=0.2, seed=0)
    header, *rows, total = shown(parted)
    assert header == ["genre", "tracks", "groups", *SPLITS]
    for genre, tracks, groups, *parts in rows:
        assert (tracks, groups) == ("12", "6")
        assert [int(part) for part in parts] == [
            sum(t.genre == genre for t in parted.part(p)) for p in SPLITS
        ]
    assert total == ["all", "36", "18", *(str(len(parted.part(part))) for part in SPLITS)]
    assert shown(SOUND)[0] == ["genre", "tracks", "groups"]


def test_the_table_fits_80_columns_whatever_a_genre_is_called() -> None:
    names = ["x" * 200, "two\nlines", "日本の音楽" * 20]
    pairs = [(name, f"{name} {n}") for name in names for n in range(100)]
    parted = split_corpus(corpus_of(*pairs), validation=0.2, test=0.2, seed=0)
    console = Console(width=80)
    with console.capture() as captured:
        console.print(genre_list.table(parted), soft_wrap=True)
    lines = captured.get().splitlines()
    assert len(lines) == 5
    assert all(console.measure(line).maximum <= 80 for line in lines)


# Commands


def music(folder: Path, files: dict[str, str]) -> Path:
    """A folder with a manifest of two seconds of tones: each path's genre, group and split."""
    folder.mkdir()
    rows = ["path,genre,group,split"]
    for number, (name, cells) in enumerate(files.items()):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        wave = 0.5 * np.sin(2 * np.pi * (200 + 3 * number) * np.arange(16_000) / 8_000)
        soundfile.write(path, wave, 8_000)
        rows.append(f"{name},{cells}")
    (folder / "manifest.csv").write_text("\n".join(rows))
    return folder


def check(folder: Path, cache: Path, *options: str) -> Result:
    return CliRunner().invoke(
        cli_data.app,
        ["check", str(folder), "--segment-seconds", "1", "--cache", str(cache), *options],
        env={"COLUMNS": "80"},
    )


def test_data_check_fails_where_no_split_is_possible_and_shows_the_one_that_run_would_make(
    tmp_path: Path,
) -> None:
    sides = ["train", "train", "test"]
    files = {f"{g}{n}.wav": f"{g},{g}{n},{sides[n % 3]}" for g in ("jazz", "soul") for n in range(9)}
    folder = music(tmp_path / "music", files)
    refused = check(folder, tmp_path / "cache")
    assert refused.exit_code == 1
    assert "split.draw_validation=true" in refused.output
    assert not refused.output.splitlines()[-1].endswith("all good")
    drawn = check(folder, tmp_path / "cache", "--set", "split.draw_validation=true")
    assert drawn.exit_code == 0, drawn.output
    total = next(line.split() for line in drawn.output.splitlines() if line.startswith("all "))
    assert total[:3] + total[5:] == ["all", "18", "18", "6"]
    assert int(total[3]) + int(total[4]) == 12
    assert int(total[4]) >= 2


def test_data_check_fails_for_one_genre_and_says_where_others_may_be(tmp_path: Path) -> None:
    files = {f"Data/{genre}/{n}.wav": "" for genre in ("jazz", "soul") for n in range(3)}
    folder = music(tmp_path / "music", files)
    (folder / "manifest.csv").unlink()
    done = check(folder, tmp_path / "cache")
    assert done.exit_code == 1
    assert f"in {folder / 'Data'} are the genres, give that folder" in done.output
    inside = check(folder / "Data", tmp_path / "cache")
    assert inside.exit_code == 0, inside.output
    assert "warning: every track is a group of its own" in inside.output


class Lines:
    """A screen that keeps its lines."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    @contextmanager
    def progress(self, title: str) -> Iterator[ProgressCallback]:
        self.said.append(title)
        yield lambda done, total: None


def test_a_run_begins_with_the_genres_and_the_missing_groups() -> None:
    screen = Lines()
    prepare.report_genres(flat(jazz=10, soul=12), screen)
    assert screen.said[0] == "Tracks/groups: jazz 10/10, soul 12/12"
    assert screen.said[1].startswith("warning: every track is a group of its own")


def test_a_run_counts_the_files_with_warnings_and_names_the_command_that_lists_them() -> None:
    tracks = list(flat(jazz=3).tracks)
    tracks[0] = replace(tracks[0], warnings=("clipped", "quiet"))
    tracks[1] = replace(tracks[1], warnings=("clipped",), excluded_reason="shorter than a segment")
    screen = Lines()
    prepare.report_files(Corpus(tuple(tracks)), screen)
    assert screen.said[0].startswith(f"left out {tracks[1].track_id!r}")
    assert screen.said[1:] == ["1 of 2 usable files have warnings; see them with: genre-search data check"]


def test_the_genres_are_listed_before_anything_is_computed(
    tiny: Callable[..., SearchConfig], cache: Path
) -> None:
    screen = Lines()
    prepare.prepare(tiny(), cache=cache, reporter=screen)
    listed = [line for line in screen.said if line.startswith("Tracks/groups: ")]
    assert listed[0].count(" 6/3") == 10
    assert screen.said.index(listed[0]) < screen.said.index("Computing spectrograms")
    assert any("fewer than 10 tracks" in line for line in screen.said)


def test_a_run_draws_validation_where_its_setting_says_so(
    tiny: Callable[..., SearchConfig], music: Path, tmp_path: Path, cache: Path
) -> None:
    tracks = read_corpus(music).tracks
    held = {max(track.group for track in tracks if track.genre == genre) for genre in GENRES}
    rows = [f"{t.path},{t.genre},{t.group},{'test' if t.group in held else 'train'}" for t in tracks]
    (tmp_path / "m.csv").write_text("\n".join(["path,genre,group,split", *rows]))
    data = str(tmp_path / "m.csv")
    with pytest.raises(InputError, match=r"split\.draw_validation=true"):
        prepare.prepare(tiny(data=data), cache=cache, reporter=Lines())
    ready = prepare.prepare(tiny(data=data, split__draw_validation=True), cache=cache, reporter=Lines())
    assert [len(ready.corpus.part(part)) for part in SPLITS] == [20, 20, 20]
    assert {track.group for track in ready.corpus.part("test")} == held


def test_one_genre_is_refused_before_a_file_is_decoded(
    tiny: Callable[..., SearchConfig], tmp_path: Path
) -> None:
    for genre in ("jazz", "soul"):
        (tmp_path / "all" / genre).mkdir(parents=True)
        (tmp_path / "all" / genre / "a.wav").touch()
    with pytest.raises(InputError, match=r"two genres .* in .*/all are the genres"):
        prepare.read_data(tiny(data=str(tmp_path)))


def test_the_setting_that_draws_validation_is_off_unless_it_is_given() -> None:
    assert not load(None, {}).split.draw_validation
    assert load(None, {"split.draw_validation": True}).split.draw_validation
