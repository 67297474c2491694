"""docs/comparison.md gives a source for what it says of others, and its numbers are those of the recorded results."""

import json
import re
import statistics
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
TEXT, _, SOURCES = (ROOT / "docs" / "comparison.md").read_text(encoding="utf-8").partition("## Sources")
MEASURED = {
    row[0]: row[1:5]
    for line in TEXT.partition("## What was measured")[2].splitlines()
    if line.startswith("| ") and len(row := [cell.strip() for cell in line.strip("| ").split("|")]) == 6
}
CONTENDERS = ("a", "c", "d", "e")
"""Letters of the contenders in the results, in the order of the columns."""


def _results(name: str) -> Any:
    return json.loads((ROOT / "benchmarks" / "results" / name).read_text(encoding="utf-8"))


def _row(start: str) -> list[str]:
    [row] = [cells for question, cells in MEASURED.items() if question.startswith(start)]
    return row


def _medians(target: float) -> list[str]:
    """Median seconds of each contender until a validation F1; `not reached` if no run did."""
    shown = []
    for letter in CONTENDERS:
        runs = [run for run in _results("time_to_f1.json")["runs"] if run["letter"] == letter]
        seconds = [next((at for at, f1 in run["improvements"] if f1 >= target), float("inf")) for run in runs]
        reached = [at for at in seconds if at < float("inf")]
        shown.append(f"{statistics.median(seconds):.0f}" if reached else "not reached")
    return shown


def test_every_source_is_used_and_every_used_one_is_listed() -> None:
    listed = re.findall(r"^- ([A-Z]\d): (.*)$", SOURCES, re.MULTILINE)
    used = set(re.findall(r"\b([ROWSF]\d)\b", TEXT))
    assert used == {code for code, _ in listed}
    assert len({code for code, _ in listed}) == len(listed)
    assert not [code for code, text in listed if "https://" not in text and "package" not in text]


def test_files_that_the_comparison_names_exist() -> None:
    named = set(re.findall(r"`(benchmarks/[\w./]+)`", TEXT))
    assert named >= {"benchmarks/results/time_to_f1.json", "benchmarks/results/chaos_stock.json"}
    assert not [path for path in named if not (ROOT / path).exists()]


def test_the_times_to_a_score_are_those_recorded() -> None:
    runs = _results("time_to_f1.json")["runs"]
    best = max(f1 for run in runs for _, f1 in run["improvements"])
    assert f"F1 {best - 0.03:.3f}" in next(iter(key for key in MEASURED if "best of all" in key))
    assert _row("median seconds to F1 0.781") == _medians(best - 0.03)
    assert _row("median seconds to F1 0.65") == _medians(0.65)


@pytest.mark.parametrize(("start", "field"), [("trials per hour", "rate"), ("start of a search", "start")])
def test_rates_and_starts_are_those_recorded(start: str, field: str) -> None:
    runs = {run["letter"]: run for run in _results("compare.json")["runs"]}
    assert _row(start) == [f"{runs[letter][field]:.0f}" for letter in CONTENDERS]


def test_the_kills_are_those_recorded() -> None:
    own = next(row for row in _results("chaos.json")["scenarios"] if row["scenario"] == "driver")
    assert own["driver killed"] == 20
    assert own["trials"] == 80
    assert own["epochs repeated"] == own["rows lost"] == 0
    text = " ".join(TEXT.split())
    for storage, sentence in (
        ("journal", "{failed} of {restores} restores failed and none of six searches completed"),
        ("memory", "in memory, all three completed and repeated {repeated} of {epochs} epochs"),
        ("journal_often", "at every checkpoint, all three completed and repeated {repeated} of {epochs} ("),
    ):
        runs = [run for run in _results("chaos_stock.json") if run["storage"] == storage]
        total = {
            key: sum(run[key] for run in runs)
            for key in ("restores", "restores_failed", "epochs", "epochs_repeated")
        }
        assert (
            sentence.format(
                failed=total["restores_failed"],
                restores=total["restores"],
                repeated=total["epochs_repeated"],
                epochs=total["epochs"],
            )
            in text
        )
        assert [run["finished"] for run in runs] == ([False] * 6 if storage == "journal" else [True] * 3)
