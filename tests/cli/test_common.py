"""What is printed: in any encoding, on one line where it is a mistake, and with the way on after an interrupt."""

import io
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import soundfile
import typer
from rich.console import Console
from rich.text import Text

from genre_core.errors import InputError
from search.cli import common, main
from search.config.schema import SearchConfig, to_yaml
from search.evaluate import finish
from search.run.tables import require_run
from search.tune import search

NOT_UTF8 = {
    "ascii": {"PYTHONIOENCODING": "ascii"},
    "cp1252": {"PYTHONIOENCODING": "cp1252"},
    "C": {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"},
}


def _called(encoding: str, *arguments: object) -> "subprocess.CompletedProcess[bytes]":
    program = Path(sys.executable).parent / "genre-search"
    environment = {key: value for key, value in os.environ.items() if key not in ("LANG", "LC_ALL")}
    return subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        env=environment | NOT_UTF8[encoding],
        timeout=100,
        check=False,
    )


@pytest.mark.parametrize("encoding", NOT_UTF8)
def test_what_a_screen_cannot_show_is_written_otherwise(encoding: str, run: Path) -> None:
    for arguments in (["best", run], ["results", run, "--costs"], ["results", run / "…±ą"]):
        done = _called(encoding, *arguments)
        assert done.returncode in (0, common.USER_MISTAKE)
        assert b"Traceback" not in done.stderr
        assert (done.stdout + done.stderr).decode("ascii" if encoding != "cp1252" else "cp1252")


@pytest.mark.parametrize("encoding", NOT_UTF8)
def test_names_of_music_are_printed_in_any_encoding(encoding: str, tmp_path: Path) -> None:
    for genre in ("Música", "Łódź"):
        (tmp_path / genre).mkdir()
        soundfile.write(tmp_path / genre / "silent ±.wav", np.zeros(70_000), 22_050)
    done = _called(encoding, "data", "check", tmp_path, "--cache", tmp_path / "cache")
    assert done.returncode == common.FAILED, done.stderr
    assert b"Traceback" not in done.stderr
    assert b"silent" in done.stdout


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_character_that_is_printed_has_a_form_in_every_encoding(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "0.58 ± 0.02 · 3\N{MULTIPLICATION SIGN}3 \N{EN DASH} \N{EM DASH} … → ▁▂▃▄▅▆▇█ Łódź 音 \udcff"
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    err = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    common.use_plain_characters()
    common.echo(text)
    common.show(Text(text))
    Console(file=out).print(text)
    assert common.complain(text, 2) == 2
    for stream in (out, err):
        stream.flush()
        written = stream.buffer.getvalue().decode(encoding)
        assert "0.58" in written
        assert "\\udcff" in written
        assert ("±" in written) == (encoding != "ascii")


def test_in_the_c_locale_names_are_printed_as_they_are_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="surrogateescape")
    monkeypatch.setattr(sys, "stdout", out)
    common.use_plain_characters()
    common.echo("M\udcfasica ±\ud800")
    out.flush()
    assert out.buffer.getvalue() == b"M\xfasica +-\\ud800\n"


def test_a_name_keeps_its_spaces_in_a_mistake_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    common.complain(InputError("two  spaces\n  and a break"), common.USER_MISTAKE)
    assert capsys.readouterr().err == "error: two  spaces and a break\n"


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("begun", [False, True])
def test_an_interrupt_at_any_time_says_what_is_next(
    how: signal.Signals,
    begun: bool,
    tiny: Callable[..., SearchConfig],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "my run"

    def interrupted(*_: object, **__: object) -> NoReturn:
        if begun:
            folder.mkdir()
            (folder / "config.yaml").touch()
        signal.raise_signal(how)
        raise AssertionError("a signal is handled before the next step")

    monkeypatch.setattr(search, "run", interrupted)
    with pytest.raises(typer.Exit) as ended:
        main._drive("run", "Search", tiny(), folder, tmp_path / "cache")
    assert ended.value.exit_code == common.INTERRUPTED
    said = capsys.readouterr().out
    assert (f"genre-search resume '{folder}'" in said) == begun
    assert ("nothing was started" in said) != begun


@pytest.mark.parametrize(
    "arguments",
    [
        ("run", "--data", "a", "--data", "b"),
        ("run", "--trials=1", "--trials=1"),
        ("run", "--set", "trials=1", "--set", "trials=2"),
        ("resume", "runs/x", "--trials", "1", "--trials", "2"),
        ("finish", "runs/x", "--seeds", "1", "--seeds", "2"),
        ("data", "make", "new", "--seed", "1", "--seed", "2"),
    ],
    ids=" ".join,
)
def test_an_option_given_twice_is_refused(arguments: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=r"^--(data|trials|seeds|seed|set) must .* once"):
        main.app(list(arguments), standalone_mode=False)


def test_what_may_be_given_often_still_may(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    driven: dict[str, Any] = {}
    monkeypatch.setattr(
        main, "_drive", lambda how, title, config, folder, cache: driven.update(config=config)
    )
    monkeypatch.chdir(tmp_path)
    sets = ("--set", "training.epochs=2", "--set", "seed=3", "--warm-start", "a", "--warm-start", "b")
    main.app(["run", *sets], standalone_mode=False)
    config: SearchConfig = driven["config"]
    assert (config.training.epochs, config.seed, len(config.warm_start)) == (2, 3, 2)
    with pytest.raises(InputError):
        require_run(tmp_path / "runs")


def test_finish_and_resume_can_say_how_many_trials_share_a_gpu(
    tiny: Callable[..., SearchConfig], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else a search of a cluster whose nodes with GPUs have gone could not be resumed or finished there."""
    (tmp_path / "config.yaml").write_text(to_yaml(tiny(address="auto", workers=4)), encoding="utf-8")
    seen: list[SearchConfig] = []

    def see(config: SearchConfig, **_: object) -> NoReturn:
        seen.append(config)
        raise KeyboardInterrupt

    monkeypatch.setattr(search, "resume", see)
    monkeypatch.setattr(finish, "finish", see)
    for verb in ("resume", "finish"):
        done = main.app([verb, str(tmp_path), "--trials-per-gpu", "2"], standalone_mode=False)
        assert done == common.INTERRUPTED
    assert [(config.trials_per_gpu, config.workers) for config in seen] == [(2, 4), (2, 4)]
