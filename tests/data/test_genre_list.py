"""Genres, warnings about them and the split are shown before a search spends time on a corpus."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import soundfile
from corpora import corpus_of, flat
from rich.console import Console
from typer.testing import CliRunner, Result

from genre_core.corpus.splits import split_corpus
from genre_core.corpus.tracks import SPLITS, Corpus
from genre_core.synthetic.styles import GENRES
from search.cli import data as cli_data
from search.data import genre_list

PAIRS = [(genre, f"{genre} {n // 2}") for genre in ("jazz", "soul", "rock") for n in range(12)]
SOUND = corpus_of(*PAIRS)


def with_genre(name: str, other: str = "jazz") -> Corpus:
    """SOUND with a genre renamed."""
    return Corpus(tuple(replace(t, genre=name if t.genre == other else t.genre) for t in SOUND.tracks))


def test_a_sound_corpus_has_no_warnings() -> None:
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
def test_suspicious_genres_and_groups_are_named_in_one_line(corpus: Corpus, named: str) -> None:
    found = genre_list.warnings(corpus)
    assert any(named in sentence for sentence in found)
    assert all("\n" not in sentence for sentence in found)


@pytest.mark.parametrize(
    "name", ["80s", "trance", "tested", "unknown pleasures", "Música", "2-step", "soul jazz"]
)
def test_an_ordinary_name_has_no_warning(name: str) -> None:
    assert genre_list.warnings(with_genre(name)) == []


def test_a_warning_about_many_genres_names_a_few_and_counts_the_rest() -> None:
    corpus = corpus_of(*((f"genre {n:03}", f"group {n} {m // 2}") for n in range(200) for m in range(4)))
    (few,) = genre_list.warnings(corpus)
    assert "'genre 000'" in few
    assert "196" in few
    assert len(few) < 200


def test_the_summary_has_tracks_and_groups_of_each_genre_and_is_short() -> None:
    assert re.findall(r"(\w+) (\d+)/(\d+)", genre_list.summary(SOUND)) == [
        ("jazz", "12", "6"),
        ("rock", "12", "6"),
        ("soul", "12", "6"),
    ]
    many = genre_list.summary(flat(**{f"g{n:03}": 3 for n in range(161)}))
    assert "g000 3/3" in many
    assert "137" in many
    assert len(many) < 500


def shown(corpus: Corpus) -> list[list[str]]:
    """The cells of the table at a width of 80 columns."""
    console = Console(width=80)
    with console.capture() as captured:
        console.print(genre_list.table(corpus), soft_wrap=True)
    lines = captured.get().splitlines()
    assert all(len(line) <= 80 for line in lines)
    return [line.split() for line in lines]


def test_the_table_has_every_genre_by_part_and_a_total() -> None:
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


def test_the_table_fits_80_columns_with_the_whole_name_of_each_genre() -> None:
    names = ["x" * 200, "two\nlines", "日本の音楽" * 20]
    pairs = [(name, f"{name} {n}") for name in names for n in range(100)]
    parted = split_corpus(corpus_of(*pairs), validation=0.2, test=0.2, seed=0)
    console = Console(width=80)
    with console.capture() as captured:
        console.print(genre_list.table(parted), soft_wrap=True)
    lines = captured.get().splitlines()
    shown = "".join(line[:38].split("  ")[0].strip() for line in lines)
    assert "x" * 200 in shown
    assert "日本の音楽" * 20 in shown
    assert all(console.measure(line).maximum <= 80 for line in lines)


# Commands


def music(folder: Path, files: dict[str, str]) -> Path:
    """A folder of tones, two seconds each, with a manifest: path -> genre, group and split."""
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


def test_data_check_fails_if_no_split_is_possible_and_shows_a_possible_one(
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


def test_data_check_fails_for_a_single_genre_and_suggests_a_subfolder(tmp_path: Path) -> None:
    files = {f"Data/{genre}/{n}.wav": "" for genre in ("jazz", "soul") for n in range(3)}
    folder = music(tmp_path / "music", files)
    (folder / "manifest.csv").unlink()
    done = check(folder, tmp_path / "cache")
    assert done.exit_code == 1
    assert str(folder / "Data") in done.output
    inside = check(folder / "Data", tmp_path / "cache")
    assert inside.exit_code == 0, inside.output
    assert "warning: " in inside.output
    assert "`group`" in inside.output
