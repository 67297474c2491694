"""A search that cannot start is refused before anything is spent on it, and leaves nothing behind."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

import pytest
import ray
from reporters import unseen_display

from genre_core.errors import InputError
from search.config.schema import SearchConfig
from search.data import prepare
from search.display.progress import Display
from search.tune import search

# settings -> what the message names
REFUSED = [
    ({"data": "/nowhere"}, ("/nowhere",)),
    ({"segment_seconds": 0.01}, ("segment_seconds", "0.01")),
    ({"sampler": "tea"}, ("tea",)),
    ({"warm_start": ["/nowhere"]}, ("/nowhere",)),
    ({"address": "127.0.0.1:9"}, ("--address", "127.0.0.1:9")),
    ({"cpus_per_trial": 10_000}, ("cpus_per_trial", "10000")),
    # by the number of GPUs on this machine, either of the two options is wrong
    ({"trials_per_gpu": 7, "cpus_per_trial": 10_000}, ("-per-",)),
    ({"storage": "nowhere://bucket"}, ("--storage", "nowhere://bucket")),
    ({"storage": "file:///dev/null/x"}, ("--storage", "file:///dev/null/x")),
]


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Display:
    """A silent display of a search that is not connected to a Ray yet."""
    monkeypatch.setattr(ray, "is_initialized", lambda: False)
    return unseen_display()


@pytest.mark.parametrize(
    ("changes", "named"), REFUSED, ids=lambda case: "-".join(case) if isinstance(case, dict) else ""
)
def test_cheap_checks_come_before_weights_and_audio_and_leave_no_folder(
    changes: dict[str, Any],
    named: tuple[str, ...],
    tiny: Callable[..., SearchConfig],
    screen: Display,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spent(*_: object, **__: object) -> NoReturn:
        raise AssertionError("weights were fetched or audio was decoded")

    for costly in ("check_weights", "audit"):
        monkeypatch.setattr(prepare, costly, spent)
    folder = tmp_path / "runs" / "refused"
    with pytest.raises(InputError) as error:
        search.run(tiny(**changes), folder=folder, cache=tmp_path / "cache", reporter=screen)
    assert not [word for word in named if word not in str(error.value)], error.value
    assert not list(tmp_path.iterdir())


def test_a_start_refused_after_the_storage_was_checked_leaves_the_storage_unchanged(
    tiny: Callable[..., SearchConfig], screen: Display, tmp_path: Path
) -> None:
    (tmp_path / "copy").mkdir()
    config = tiny(weights=str(tmp_path / "nowhere.pth"), storage=(tmp_path / "copy").as_uri())
    with pytest.raises(InputError) as error:
        search.run(config, folder=tmp_path / "runs" / "refused", cache=tmp_path / "cache", reporter=screen)
    assert "nowhere.pth" in str(error.value)
    assert [path.name for path in tmp_path.rglob("*")] == ["copy"]


def test_a_refused_start_keeps_an_existing_folder(
    tiny: Callable[..., SearchConfig], screen: Display, tmp_path: Path
) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").touch()
    with pytest.raises(InputError) as error:
        search.run(tiny(data="/nowhere"), folder=tmp_path / "mine", cache=tmp_path / "cache", reporter=screen)
    assert "/nowhere" in str(error.value)
    assert (tmp_path / "mine" / "notes.txt").exists()
