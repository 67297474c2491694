"""Output: in any encoding, errors on one line, and the next step after an interrupt."""

import io
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
import soundfile
import typer
from command_line import in_process
from conftest import Command
from rich.console import Console
from rich.text import Text

from genre_core.errors import ErrorCode, InputError
from search.cli import output
from search.cli import search as search_commands
from search.config.schema import SearchConfig
from search.display.progress import Detail, Display

C_LOCALE = {"LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
NARROW = ("ascii", "cp1252")
"""Encodings that lack some of the characters printed."""

SCREEN = search_commands._Screen(detail=Detail.TRIALS, log_file=None)


@pytest.fixture
def foreign(tmp_path: Path) -> Path:
    """A folder of silent files, whose names need Unicode."""
    for genre in ("Música", "Łódź"):
        (tmp_path / genre).mkdir()
        soundfile.write(tmp_path / genre / "silent ±.wav", np.zeros(70_000), 22_050)
    return tmp_path


@pytest.mark.parametrize("charset", NARROW)
def test_results_and_errors_are_printed_in_a_narrow_encoding(charset: str, run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))  # because best writes a file into it
    for arguments, code in (
        (("best", copy), 0),
        (("results", run, "--costs"), 0),
        (("results", run / "…±ą"), output.USER_MISTAKE),
    ):
        done = in_process(*arguments, charset=charset)
        assert done.returncode == code, done.stderr
        assert done.stdout + done.stderr


@pytest.mark.parametrize("charset", NARROW)
def test_file_names_are_printed_in_a_narrow_encoding(charset: str, foreign: Path) -> None:
    done = in_process("data", "check", foreign, "--cache", foreign / "cache", charset=charset)
    assert done.returncode == output.FAILED, done.stderr
    assert done.stdout.count("silent") >= 2


def test_results_and_file_names_are_printed_in_the_c_locale(
    run: Path, foreign: Path, genre_search_process: Command, tmp_path: Path
) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "copy"))  # because best writes a file into it
    for arguments, code in (
        (("best", copy), 0),
        (("results", run / "…±ą"), output.USER_MISTAKE),
        (("data", "check", foreign), output.FAILED),
    ):
        done = genre_search_process(*arguments, env=C_LOCALE, errors="surrogateescape")
        assert done.returncode == code, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_every_character_that_is_printed_has_a_form_in_every_encoding(
    encoding: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "0.58 ± 0.02 · 3\N{MULTIPLICATION SIGN}3 \N{EN DASH} \N{EM DASH} … → ▁▂▃▄▅▆▇█ ▏▎▍▌▋▊▉ ━─ Łódź 音 \udcff"
    out = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    err = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", err)
    output.replace_unencodable()
    output.echo(text)
    output.show(Text(text))
    Console(file=out).print(text)
    assert output.complain(text, 2) == 2
    for stream in (out, err):
        stream.flush()
        written = stream.buffer.getvalue().decode(encoding)
        assert "0.58" in written
        assert "\\udcff" in written
        assert ("±" in written) == (encoding != "ascii")


def test_in_the_c_locale_names_are_printed_as_they_are_on_the_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii", errors="surrogateescape")
    monkeypatch.setattr(sys, "stdout", out)
    output.replace_unencodable()
    output.echo("M\udcfasica ±\ud800")
    out.flush()
    assert out.buffer.getvalue() == b"M\xfasica +-\\ud800\n"


def test_a_name_keeps_its_spaces_in_a_mistake_of_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    output.complain(
        InputError("two  spaces\n  and a break", code=ErrorCode.UNKNOWN_LEVEL), output.USER_MISTAKE
    )
    assert capsys.readouterr().err == "error: two  spaces and a break\n"


def test_a_full_disk_is_one_line_with_the_file_and_the_command_that_continues(
    capsys: pytest.CaptureFixture[str],
) -> None:
    end = output.disk_full(OSError(28, "No space left on device", "/small/file"), "genre-search resume r")
    said = capsys.readouterr().err
    assert (end.exit_code, said.count("\n")) == (output.USER_MISTAKE, 1)
    assert "/small/file" in said
    assert "genre-search resume r" in said


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.parametrize("started", [False, True])
def test_an_interrupt_at_any_time_prints_the_next_step(
    number: signal.Signals,
    started: bool,
    tiny: Callable[..., SearchConfig],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    folder = tmp_path / "my run"

    def interrupted(screen: Display) -> NoReturn:
        if started:
            folder.mkdir()
            (folder / "config.yaml").touch()
        signal.raise_signal(number)
        raise AssertionError("a signal is handled before the next step")

    with pytest.raises(typer.Exit) as end:
        search_commands._drive(interrupted, tiny(), folder, screen=SCREEN)
    assert end.value.exit_code == output.INTERRUPTED
    said = capsys.readouterr().out
    assert "interrupted" in said
    assert (f"genre-search resume '{folder}'" in said) == started
