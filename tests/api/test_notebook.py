"""docs/search.ipynb runs, shows a search while it runs, and a kernel interrupt ends a search in an orderly way."""

import asyncio
import os
import re
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from nbclient.util import ensure_async
from nbformat.v4 import new_code_cell, new_notebook
from tiny import TINY

DOCS = Path(__file__).parents[2] / "docs"
SECONDS = 240
"""For a cell: a search starts its own Ray, and a busy machine is slow."""
FIRST = f"""
import functools, search
small = {TINY | {"trials": 3}!r}
whole = search.search
search.search = lambda data, config, name, trials: whole('MUSIC', name=name, **small)
"""
"""A cell before those of the notebook, whose search becomes a small one."""


class Listener(NotebookClient):
    """Runs cells, and keeps what was displayed meanwhile, not only what is left at the end."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.displayed: list[str] = []
        self.printed = ""

    def process_message(self, msg: Any, cell: Any, cell_index: int) -> Any:
        """See NotebookClient."""
        content = msg["content"]
        if msg["msg_type"] in ("display_data", "update_display_data"):
            self.displayed.append(content["data"].get("text/html", ""))
        if msg["msg_type"] == "stream":
            self.printed += content["text"]
        return super().process_message(msg, cell, cell_index)


@pytest.fixture
def client(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Listener]:
    """A client whose kernel works in a folder of its own."""
    monkeypatch.setenv("GENRE_SEARCH_CACHE", str(cache))
    for variable in ("JUPYTER_RUNTIME_DIR", "JUPYTER_CONFIG_DIR", "IPYTHONDIR"):
        monkeypatch.setenv(variable, str(tmp_path / variable.lower()))
    path = os.pathsep.join([str(DOCS.parent), os.environ.get("PYTHONPATH", "")])
    monkeypatch.setenv("PYTHONPATH", path)

    def make(notebook: Any) -> Listener:
        resources = {"metadata": {"path": str(tmp_path)}}
        return Listener(notebook, timeout=SECONDS, resources=resources, coalesce_streams=True)

    return make


def test_the_notebook_runs_and_shows_the_search(client: Callable[..., Listener], music: Path) -> None:
    notebook = nbformat.read(DOCS / "search.ipynb", as_version=4)
    notebook.cells.insert(0, new_code_cell(FIRST.replace("MUSIC", str(music))))
    listener = client(notebook)
    listener.execute()
    screens = [re.sub("<.*?>", "", html) for html in listener.displayed]
    assert any("starting Ray" in screen for screen in screens), "phases are shown from the first moment"
    assert any(re.search(r"[━─]+ 0/3", screen) for screen in screens)
    assert "ipywidgets" not in listener.printed
    assert "Search notebook: up to 3 trials" in listener.printed, "nothing clears the output"
    assert listener.printed.count("COMPLETE") + listener.printed.count("PRUNED") >= 3
    outputs = [output for cell in notebook.cells[2:] for output in cell.get("outputs", ())]
    assert not [output for output in outputs if output["output_type"] == "error"]
    assert any("trial" in output.get("data", {}).get("text/html", "") for output in outputs)


def test_a_kernel_interrupt_ends_a_search_which_is_then_resumed(
    client: Callable[..., Listener], music: Path, tmp_path: Path
) -> None:
    long = TINY | {"training.epochs": 500, "training.patience": 500, "trials": 2}
    call = (
        f"search({str(music)!r}, name='long', **{long!r}, on_epoch=lambda epoch: open('begun', 'w').close())"
    )
    listener = client(
        new_notebook(
            cells=[
                new_code_cell(f"from search import open_run, search\n{call}"),
                new_code_cell("print(open_run('long').state, len(open_run('long').epochs) > 0)"),
            ]
        )
    )
    asyncio.run(_interrupted(listener, tmp_path / "begun"))
    assert "interrupted; to continue: resume(" in listener.printed
    assert "interrupted True" in listener.printed


async def _interrupted(listener: Listener, begun: Path) -> None:
    """Run two cells, of which the first is interrupted after its first epoch."""
    async with listener.async_setup_kernel():
        first = asyncio.create_task(listener.async_execute_cell(listener.nb.cells[0], 0))
        deadline = time.monotonic() + SECONDS
        while not begun.exists():
            assert time.monotonic() < deadline, "no epoch ended"
            assert not first.done(), "the cell ended"
            await asyncio.sleep(0.1)
        assert listener.km is not None
        await ensure_async(listener.km.interrupt_kernel())
        with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
            await first
        await listener.async_execute_cell(listener.nb.cells[1], 1)
