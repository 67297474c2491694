"""The messages, settings and commands in docs/troubleshooting.md exist in the program."""

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

import pytest
from commands import parsed

from search.cli.output import USER_MISTAKE
from search.config.reference import entries
from search.run.schemas import EPOCHS, TRIALS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")

LITERAL = 18
"""Characters that a template must have apart from its values, so that it does not match just any message."""


class Template(NamedTuple):
    """A text of the program in which values are to be filled in."""

    pattern: re.Pattern[str]
    refuses: bool
    """Whether it is the message of an InputError."""


class Quoted(NamedTuple):
    """A row of the page that quotes a message."""

    message: str
    exit: str


def code_spans(text: str) -> list[str]:
    """The inline code of a Markdown text, also between double backticks."""
    return [two or one for two, one in re.findall(r"``(.+?)``|`([^`]+)`", text)]


def _cells(row: str) -> list[str]:
    return [cell.strip() for cell in row.strip().strip("|").split(" | ")]


def _quoted() -> list[Quoted]:
    rows = [_cells(line) for line in PAGE.splitlines() if re.match(r"\| ``?[^`]", line)]
    return [
        Quoted(spans[0], row[1])
        for row in rows
        if (spans := code_spans(row[0])) and len(row[0]) - len(spans[0]) <= len("````")
    ]


QUOTED = _quoted()


@cache
def _templates() -> tuple[Template, ...]:
    paths = [path for package in ("search", "genre_core") for path in (ROOT / package).rglob("*.py")]
    return tuple(template for path in paths for template in _templates_of(ast.parse(path.read_text("utf-8"))))


def _templates_of(module: ast.Module) -> Iterator[Template]:
    """The texts in a module that are long enough to be messages."""
    refusals = {inner for call in ast.walk(module) if _is_refusal(call) for inner in ast.walk(call)}
    for node in ast.walk(module):
        if isinstance(node, ast.JoinedStr | ast.Constant | ast.BinOp):
            parts = _parts(node)
            if sum(len(part) for part in parts if part) >= LITERAL:
                text = "".join(".*" if part is None else re.escape(part) for part in parts)
                yield Template(re.compile(text), node in refusals)


def _is_refusal(node: ast.AST) -> bool:
    return isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "InputError"


def _parts(node: ast.AST) -> list[str | None]:
    """The parts of an expression for a text in order; None for a value that is filled in."""
    if isinstance(node, ast.Constant):
        return [node.value] if isinstance(node.value, str) else [None]
    if isinstance(node, ast.JoinedStr):
        return [part for value in node.values for part in _parts(value)]
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Add):
        return _parts(node.left) + _parts(node.right)
    return [None]


def _matching(message: str) -> list[Template]:
    text = re.sub(r"^(error|warning|Diverged): ", "", message)
    return [template for template in _templates() if template.pattern.fullmatch(text)]


def test_the_page_quotes_messages() -> None:
    assert len(QUOTED) > 25


@pytest.mark.parametrize("quoted", QUOTED, ids=lambda quoted: quoted.message[:40])
def test_a_quoted_message_is_one_of_the_program(quoted: Quoted) -> None:
    assert _matching(quoted.message)


@pytest.mark.parametrize(
    "message",
    ["error: the moon must be full, but got half; wait", "warning: nothing of the sort was ever printed"],
)
def test_an_invented_message_is_not_found(message: str) -> None:
    assert not _matching(message)


@pytest.mark.parametrize("quoted", QUOTED, ids=lambda quoted: quoted.message[:40])
def test_the_exit_code_of_a_refused_input_is_that_of_a_mistake(quoted: Quoted) -> None:
    refused = any(template.refuses for template in _matching(quoted.message))
    assert not refused or quoted.exit == str(USER_MISTAKE)
    assert quoted.message.startswith("error: ") == (quoted.exit != "-")


def test_named_settings_and_columns_exist() -> None:
    keys = {entry.key for entry in entries()}
    known = keys | {key.rpartition(".")[2] for key in keys} | set(TRIALS.names) | set(EPOCHS.names)
    messages = {quoted.message for quoted in QUOTED}
    spans = [span for span in code_spans(PAGE) if span not in messages]
    named = {
        span.partition(":")[0] for span in spans if re.fullmatch(r"[a-z]+([._][a-z]+)+(: [\w{].*)?", span)
    }
    assert {"epoch_limit", "checkpoint_budget"} <= named
    unknown = {name for name in named - known if not name.endswith((".html", ".py", ".md"))}
    assert not unknown


@pytest.mark.parametrize(
    "command", sorted({span for span in code_spans(PAGE) if re.match(r"genre-search [a-z]+", span)})
)
def test_a_named_command_parses(command: str) -> None:
    parsed(command)
