"""Untrusted settings, manifests, folders and audio are either accepted or refused in one line."""

import csv
import io
import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import soundfile
import yaml
from hypothesis import example, given, settings
from hypothesis import strategies as st

from genre_core.audio.decode import BadAudio, Reason, inspect, read
from genre_core.corpus.audit import audit
from genre_core.corpus.tracks import SPLITS, Corpus, read_corpus
from genre_core.errors import InputError
from genre_core.models.registry import BLOCKS
from search.config.schema import SearchConfig, Split, Training, load, to_yaml
from search.config.space import Space
from search.config.yaml_reader import parse_override

MANY = settings(max_examples=400, deadline=None)


@contextmanager
def refusals_are_one_line() -> Iterator[None]:
    """No exception may be raised but an InputError of one line."""
    said = ""
    try:
        yield
    except InputError as error:
        said = str(error)
    assert len(said.splitlines()) <= 1


# Settings

anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8) | st.dates(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
numbers = st.integers(-1, 40) | st.floats(-0.1, 1.1) | st.sampled_from([0, 0.5, 1e-3, 2**31, 10**30])
ranges = st.fixed_dictionaries(
    {"low": numbers, "high": numbers | st.just("all")},
    optional={"log": st.booleans(), "step": numbers, "hgih": numbers},
)
names = st.sampled_from(
    [
        *BLOCKS,
        "imagenet",
        "random",
        "~/w.pth",
        "tpe",
        "median",
        "cosine",
        "balanced",
        "float32",
        "mel64",
        "2h",
    ]
)
plausible = (
    numbers
    | ranges
    | names
    | st.booleans()
    | st.lists(numbers | names | st.booleans(), max_size=3)
    | st.dictionaries(st.just("name") | st.sampled_from(sorted(BLOCKS)), names | numbers, max_size=2)
)
known = st.sampled_from(
    [
        *SearchConfig.model_fields,
        *(f"space.{name}" for name in Space.model_fields),
        *(f"training.{name}" for name in Training.model_fields),
        *(f"split.{name}" for name in Split.model_fields),
        *(f"synthetic.{name}" for name in ("seed", "seconds", "difficulty", "tracks_per_genre")),
    ]
)


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


def require_round_trip(config: SearchConfig, folder: Path) -> None:
    path = folder / "again.yaml"
    path.write_text(to_yaml(config), encoding="utf-8")
    assert repr(load(path, {})) == repr(config)  # not ==, because nan != nan


@MANY
@given(overrides=st.dictionaries(known | st.text(max_size=8), plausible | anything, max_size=3))
@example(overrides={"sampler": {"name": "tpe", "seed": float("nan")}})
@example(overrides={"provenance": {"a": [[1], float("inf")]}})
def test_any_overrides_are_refused_or_survive_a_round_trip(overrides: dict[str, Any], folder: Path) -> None:
    with refusals_are_one_line():
        require_round_trip(load(None, overrides), folder)


@MANY
@given(content=st.dictionaries(known | st.text(max_size=8), plausible | anything, max_size=3) | anything)
def test_any_yaml_file_is_refused_or_survives_a_round_trip(content: object, folder: Path) -> None:
    path = folder / "given.yaml"
    path.write_text(yaml.safe_dump(content, allow_unicode=True), encoding="utf-8")
    with refusals_are_one_line():
        require_round_trip(load(path, {}), folder)


@MANY
@given(text=st.text(max_size=40) | st.text("[]{}:,&*!|>-?#'\"\n \t0a.", max_size=40))
def test_any_text_is_accepted_or_refused_as_an_override_and_as_a_file(text: str, folder: Path) -> None:
    with refusals_are_one_line():
        load(None, dict([parse_override(text)]))
    (folder / "given.yaml").write_text(text, encoding="utf-8")
    with refusals_are_one_line():
        load(folder / "given.yaml", {})


def values(low: float, high: float) -> st.SearchStrategy[object]:
    """A value, a list of values or a range."""
    one = st.floats(low, high)
    ends = st.tuples(one, one).map(sorted).filter(lambda pair: pair[0] < pair[1])
    between = ends.map(lambda pair: dict(zip(("low", "high"), pair, strict=True)))
    return one | st.lists(one, min_size=1, max_size=3) | between


paths = st.text(min_size=1, max_size=8).filter(lambda text: "\0" not in text and not text.startswith("~"))
whole = st.integers(1, 2**32 - 1)
legal = {
    "data": paths,
    "space.backbone": st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=3),
    "space.learning_rate": values(1e-9, 10),
    "space.momentum": values(0.01, 0.99),
    "space.frozen_blocks": st.integers(0, 5) | st.fixed_dictionaries({"low": st.integers(0, 5)}),
    "space.nesterov": st.booleans() | st.just([False, True]),
    "space.weight_decay": values(0, 1),
    "space.batch_size": st.integers(2, 512) | st.lists(st.integers(2, 512), min_size=1, max_size=3),
    "space.masking": values(0, 0.9),
    "training": st.fixed_dictionaries({}, optional={"epochs": whole, "warmup_epochs": st.floats(0, 1e9)}),
    "split.validation": st.floats(0.1, 0.2),
    "sampler": st.just("random") | st.dictionaries(paths, anything).map({"name": "tpe"}.__ror__),
    "weights": st.sampled_from(["imagenet", "random"]) | paths | st.dictionaries(st.just("vgg16"), paths),
    "time_budget": st.none() | st.floats(1, 1e18).map("{!r}s".format) | st.just("1.5h"),
    "workers": st.none() | whole,
    "trials_per_gpu": whole | st.just("auto"),
    "provenance": st.dictionaries(paths, anything),
}


@settings(max_examples=150, deadline=None)
@given(overrides=st.fixed_dictionaries({}, optional=legal))
def test_a_valid_configuration_survives_a_round_trip(overrides: dict[str, Any], folder: Path) -> None:
    require_round_trip(load(None, overrides), folder)


# Damage

TELLING = [b"\0" * 4, b"\xff" * 4, b"\x7f\xff\xff\xff", b"\xff\xff\xff\x7f"]

damages = st.lists(
    st.tuples(
        st.sampled_from(["overwrite", "insert", "remove", "cut", "repeat"]),
        st.integers(0, 64) | st.integers(0, 20_000),  # headers are the most fragile part
        st.binary(min_size=1, max_size=16) | st.sampled_from(TELLING),
    ),
    min_size=1,
    max_size=4,
)


def damaged(content: bytes, damages: list[tuple[str, int, bytes]]) -> bytes:
    data = bytearray(content)
    for how, place, piece in damages:
        at = place % (len(data) + 1)
        match how:
            case "overwrite":
                data[at : at + len(piece)] = piece
            case "insert":
                data[at:at] = piece
            case "remove":
                del data[at : at + len(piece)]
            case "cut":
                del data[at:]
            case "repeat":
                data[at:at] = data[at : at + 512]
    return bytes(data)


# Corpora


def require_valid(corpus: Corpus) -> None:
    ids = [track.track_id for track in corpus.tracks]
    assert ids == sorted(set(ids))
    for track in corpus.tracks:
        assert track.path.is_absolute()
        assert track.group
        assert track.genre or track.excluded_reason
        assert track.split in (None, *SPLITS)


cells = st.text(max_size=6) | st.sampled_from(["a.wav", "b/../a.wav", "jazz", "train", "val", "", "\0", "/"])
columns = st.lists(st.sampled_from(["path", "genre", "group", "split"]) | st.text(max_size=4), max_size=5)


@MANY
@given(
    header=columns, rows=st.lists(st.lists(cells, max_size=5), max_size=4), dialect=st.sampled_from(",;\t")
)
@example(header=["path", "genre"], rows=[["a.wav", "jazz"], ["ü\n.mp3", "soul"]], dialect=",")
def test_a_manifest_with_any_cells_is_a_corpus_or_refused(
    header: list[str], rows: list[list[str]], dialect: str, folder: Path
) -> None:
    text = io.StringIO()
    csv.writer(text, delimiter=dialect).writerows([header, *rows])
    (folder / "m.csv").write_text(text.getvalue(), encoding="utf-8", newline="")
    with refusals_are_one_line():
        require_valid(read_corpus(folder / "m.csv"))


@MANY
@given(content=st.binary(max_size=200) | st.binary(max_size=60).map(b"path,genre\na.wav,jazz\n".__add__))
def test_a_manifest_of_any_bytes_is_a_corpus_or_refused(content: bytes, folder: Path) -> None:
    for suffix in ("csv", "parquet"):
        (folder / f"m.{suffix}").write_bytes(content)
        with refusals_are_one_line():
            require_valid(read_corpus(folder / f"m.{suffix}"))


@MANY
@given(damages=damages)
def test_a_damaged_parquet_manifest_is_a_corpus_or_refused(
    damages: list[tuple[str, int, bytes]], folder: Path
) -> None:
    table = pa.table({"path": ["a.wav", "b.wav"], "genre": ["jazz", None], "group": [1, 2]})
    pq.write_table(table, folder / "m.parquet")
    whole = (folder / "m.parquet").read_bytes()
    (folder / "m.parquet").write_bytes(damaged(whole, damages))
    with refusals_are_one_line():
        require_valid(read_corpus(folder / "m.parquet"))


entries = st.sampled_from(
    [
        "jazz",
        "a.wav",
        "b.FLAC",
        ".c.wav",
        "two\nlines.mp3",
        "ü 🎵.ogg",
        r"\udcff.wav",
        os.fsdecode(b"\xff.wav"),
    ]
)
places = st.lists(entries, min_size=1, max_size=3).map("/".join)
trees = st.lists(
    st.tuples(
        places, st.sampled_from(["file", "file", "file", "folder", "pipe", "link"]), places | st.just(".")
    ),
    max_size=8,
)


def create(root: Path, tree: list[tuple[str, str, str]]) -> None:
    """Create a tree, without the entries that conflict with others."""
    for name, kind, target in tree:
        path = root / name
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            match kind:
                case "file":
                    with path.open("xb") as file:  # never write into an existing pipe
                        file.write(b"RIFF")
                case "folder":
                    path.mkdir()
                case "pipe":
                    os.mkfifo(path)
                case "link":
                    path.symlink_to(root / target)
        except OSError:
            continue


@MANY
@given(tree=trees)
@example(tree=[("jazz/a.wav", "file", "."), ("jazz/b.FLAC", "link", ".")])
@example(tree=[("a.wav/a.wav", "link", "a.wav"), ("jazz", "link", "jazz"), ("jazz/a.wav", "file", ".")])
def test_any_folder_is_refused_or_a_corpus_with_a_reason_for_each_excluded_file(
    tree: list[tuple[str, str, str]],
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        create(Path(folder), tree)
        with refusals_are_one_line():
            corpus = read_corpus(Path(folder))
            require_valid(corpus)
            checked = audit(corpus, minimum_seconds=1.0, cache=None, workers=1)
            assert all(track.excluded_reason for track in checked.tracks)


# Audio

FORMATS = {"wav": "FLOAT", "flac": "PCM_16", "ogg": "VORBIS", "mp3": "MPEG_LAYER_III"}


@pytest.fixture(scope="module")
def sounds(folder: Path) -> dict[str, bytes]:
    """Stereo audio files of a fifth of a second, by extension."""
    noise = np.random.default_rng(0).normal(scale=0.2, size=(4_000, 2))
    for suffix, subtype in FORMATS.items():
        soundfile.write(folder / f"whole.{suffix}", noise, 22_050, subtype=subtype)
    return {suffix: (folder / f"whole.{suffix}").read_bytes() for suffix in FORMATS}


def require_readable_or_refused(path: Path) -> None:
    """Inspecting and reading a file give the same reason for a refusal, or finite samples."""
    inspected, heard = reason_for_refusal(inspect, path), reason_for_refusal(listen, path)
    assert len(heard.splitlines()) <= 1
    assert heard == ("" if inspected.startswith(Reason.SILENT) else inspected)


def listen(path: Path) -> None:
    samples = read(path, 8_000)
    assert samples.dtype == np.float32
    assert np.isfinite(samples).all()


def reason_for_refusal(call: Callable[[Path], object], path: Path) -> str:
    try:
        call(path)
    except BadAudio as bad:
        return str(bad)
    return ""


@MANY
@given(
    suffix=st.sampled_from(sorted(FORMATS)), named=st.sampled_from([*FORMATS, "au", "raw"]), damages=damages
)
def test_a_damaged_file_is_readable_or_refused(
    suffix: str, named: str, damages: list[tuple[str, int, bytes]], sounds: dict[str, bytes], folder: Path
) -> None:
    for path in (folder / f"damaged.{suffix}", folder / f"damaged.{named}"):
        path.write_bytes(damaged(sounds[suffix], damages))
        require_readable_or_refused(path)


@MANY
@given(content=st.binary(max_size=600), named=st.sampled_from([*FORMATS, "au", "snd", "raw", "opus", "caf"]))
def test_any_bytes_are_readable_or_refused(content: bytes, named: str, folder: Path) -> None:
    (folder / f"bytes.{named}").write_bytes(content)
    require_readable_or_refused(folder / f"bytes.{named}")
