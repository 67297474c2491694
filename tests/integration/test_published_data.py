"""A published data set, from its archive on a web server to a model's predictions, through the commands."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import yaml
from conftest import Command, sets
from mirrors import File, serving
from shaped import CORRUPT, fma_archives, gtzan_archive
from without_ray import by_torch, finishes_in_process, searches_in_process

from genre_core.corpus.corpus_table import load_corpus
from genre_core.models.artifact import read_card
from search.run.tables import read_test_tracks, read_trials

SHAPES: dict[str, tuple[Callable[[Path, Path], list[Path]], str, int]] = {
    # data set: archives of generated music, what `run` shows of its faults, usable tracks in each part of the split
    "gtzan": (
        lambda music, folder: [gtzan_archive(music, folder)],
        f"'genres/jazz/{CORRUPT}.wav': unreadable",
        20,
    ),
    "fma_small": (fma_archives, "fma_small: 48 tracks in 8 genres", 16),
}


@pytest.mark.parametrize("name", ["gtzan", pytest.param("fma_small", marks=pytest.mark.long)])
def test_an_archive_leads_to_predictions(
    name: str, music: Path, genre_search: Command, tmp_path: Path
) -> None:
    make, fault, tracks = SHAPES[name]
    data, run = tmp_path / "data", tmp_path / "runs" / name
    archives = {path.name: path.read_bytes() for path in make(music, tmp_path)}
    said = []

    def call(*arguments: object, code: int = 0) -> str:
        done = genre_search(*arguments)
        assert (done.returncode, done.stderr) == (code, ""), done.stdout + done.stderr
        said.append(done.stdout)
        return done.stdout

    with serving(
        **{path: File(content, cuts=[len(content) // 2]) for path, content in archives.items()}
    ) as mirror:
        listed = [
            {"name": path, "urls": [f"{mirror.url}/{path}"], "sha256": hashlib.sha256(content).hexdigest()}
            for path, content in archives.items()
        ]
        (tmp_path / "mirrors.yaml").write_text(yaml.safe_dump({name: listed}))
        call("data", "get", name, data, "--mirrors", tmp_path / "mirrors.yaml")
    call("data", "check", data, code=1 if name == "gtzan" else 0)
    config = Path(__file__).parents[2] / "configs" / f"{name}.yaml"
    tiny = sets(pruner="none", space__masking=0.0, space__label_smoothing=0.0, workers=2)
    options = ("--config", config, "--data", data, "--runs", run.parent, "--name", name, *tiny)
    with searches_in_process(by_torch):
        call("run", *options, "--trials", 2)
    assert fault in "".join(said)
    parts = load_corpus(run / "corpus.parquet")
    assert {len(parts.part(part)) for part in ("train", "validation", "test")} == {tracks}
    assert read_trials(run)["state"].tolist() == ["COMPLETE"] * 2

    with finishes_in_process():
        assert f"{tracks} tracks" in call("finish", run, "--top", 1, "--seeds", 1)
    tested = read_test_tracks(run)
    assert len(tested) == tracks
    call("report", run)
    page = (run / "report.html").read_text()
    assert all(genre in page for genre in parts.genres)
    call("export", run, tmp_path / "model")

    said_then = tested.set_index("track_id")["probabilities"]
    genres = read_card(tmp_path / "model")["genres"]
    test = parts.part("test")
    lines = call("predict", tmp_path / "model", "--json", *[track.path for track in test]).splitlines()
    for track, line in zip(test, lines, strict=True):
        says = json.loads(line)["probabilities"]
        assert list(says) == genres == list(parts.genres)
        np.testing.assert_allclose(list(says.values()), said_then[track.track_id], atol=1e-4)
