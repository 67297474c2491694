"""The command line: a user's mistake is one line on stderr and exit code 2; results are on stdout."""

import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from conftest import Command

# arguments -> what the message names: the option or argument, the value given, the way out
MISTAKES = [
    ("run --trials many", ("trials", "'many'", "whole number")),
    ("run --trials 0", ("trials", "trials=0", "1")),
    ("run --budget 0s", ("--budget", "above 0,")),
    ("run --budget 2", ("--budget", "got 2", "30m")),
    ("run --set synthetic.tracks_per_genre=true", ("synthetic.tracks_per_genre", "true")),
    ("run --data manifest.csv --set weights=random", ("max_bad_share", "2 of 2", "jazz/a.wav", "manifest")),
    ("run --trails 3", ("--trails", "--trials")),
    ("run -q -v", ("--quiet", "--verbose")),
    ("run --set trials", ("--set", "trials", "key=value")),
    ("run --set space.momentun=0.9", ("space.momentun", "momentum?")),
    ("run --config nowhere.yaml", ("nowhere.yaml",)),
    ("run --data nowhere --set weights=random", ("nowhere",)),
    ("search", ("'search'",)),
    ("results nowhere", ("RUN", "nowhere", "genre-search list")),
    ("best nowhere", ("RUN", "nowhere", "genre-search list")),
    ("data check nowhere", ("nowhere",)),
    ("results", ("RUN", "runs/", "genre-search run")),
    ("simulate runs --set training.epochs=5", ("--set", "sampler, pruner, seed", "training.epochs")),
    ("results --top x", ("--top", "whole number", "x")),
    ("results --top 0", ("--top", "at least 1", "0")),
    ("best", ("RUN", "genre-search best --help")),
    ("predict nowhere song.mp3", ("MODEL", "nowhere", "genre-search list")),
    ("run --log-file /proc/nowhere/log", ("--log-file", "/proc/nowhere/log")),
    ("data get gtzan music --split artist", ("--split", "filtered", "artist")),
    ("data make new --difficulty 2", ("difficulty", "0", "1", "2.0")),
    ("data make .", ("DIR", "another folder")),
    ("data make file/new", ("file/new", "Not a directory")),
]


@pytest.mark.parametrize(
    ("arguments", "named"), MISTAKES, ids=lambda case: case if isinstance(case, str) else ""
)
def test_a_mistake_is_one_line_on_stderr(
    arguments: str, named: tuple[str, ...], genre_search: Command, tmp_path: Path
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "manifest.csv").write_text("path,genre\njazz/a.wav,jazz\nrock/b.wav,rock\n")
    done = genre_search(*arguments.split(), cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: ")
    assert not [word for word in named if word not in done.stderr], done.stderr
    assert done.stderr.count("\n") == 1
    assert {path.name for path in tmp_path.iterdir()} == {"file", "manifest.csv"}


def test_data_check_accepts_the_built_in_corpus_and_names_each_bad_file(
    genre_search: Command, tmp_path: Path
) -> None:
    music = tmp_path / "m"
    made = genre_search("data", "make", music, "--tracks-per-genre", 5, "--seconds", 3)
    assert made.returncode == 0, made.stderr
    good = genre_search("data", "check", music)
    assert good.returncode == 0
    assert good.stdout.splitlines()[-1].startswith("50 files in 10 genres, all good")
    clipped = np.sign(np.sin(0.1 * np.arange(70_000)))
    soundfile.write(music / "jazz" / "jazz.00000.wav", clipped, 22_050)
    for _ in range(2):
        prepared = genre_search(
            "data", "prepare", music, "--set", "front_end=mel64", "--cache", tmp_path / "c"
        )
        assert prepared.returncode == 0, prepared.stderr
        assert prepared.stdout.splitlines()[-1].startswith("50 tracks, ")
    assert "computing spectrograms" not in prepared.stdout, "they exist"
    warned = genre_search("data", "check", music)
    assert warned.returncode == 0
    assert "'jazz/jazz.00000.wav': warning: clipped" in warned.stdout
    assert "warning" in warned.stdout.splitlines()[-1]
    soundfile.write(music / "jazz" / "jazz.00001.wav", np.zeros(70_000), 22_050)
    (music / "rock" / "rock.00000.wav").write_text("not audio")
    bad = genre_search("data", "check", music)
    assert bad.returncode == 1
    assert "'jazz/jazz.00001.wav': silent" in bad.stdout
    assert "'rock/rock.00000.wav': unreadable" in bad.stdout
    assert bad.stdout.splitlines()[-1].startswith("2 of 50 files left out: ")
    listed = genre_search("data", "check", music, "--json")
    assert listed.returncode == 1
    found = json.loads(listed.stdout)
    assert (found["files"], found["usable"], found["refusal"]) == (50, 48, None)
    assert set(found["excluded"]) == {"jazz/jazz.00001.wav", "rock/rock.00000.wav"}
    assert sum(found["genres"]["jazz"].values()) == 4
    assert set(found["genres"]["blues"]) == {"train", "validation", "test"}
    assert found["file_warnings"][0][0] == "jazz/jazz.00000.wav"


def test_version_names_every_package_and_device(genre_search: Command) -> None:
    shown = genre_search("version").stdout
    assert all(name in shown for name in ("genre-search", "torch", "torchaudio", "ray", "optuna", "cpu, "))
