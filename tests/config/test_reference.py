"""The reference of settings is complete, up to date and valid."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml

from genre_core.recipe import Recipe
from search.config.reference import attribute_docstrings, commented_yaml, entries, json_schema, page
from search.config.schema import SearchConfig, load

ROOT = Path(__file__).parents[2]
CONFIGS = sorted((ROOT / "configs").glob("*.yaml"))


def test_the_page_is_the_generated_one() -> None:
    assert (ROOT / "docs/settings.md").read_text() == page()


def test_every_setting_is_listed_once_with_its_meaning_and_its_default() -> None:
    listed = {entry.key: entry for entry in entries()}
    assert len(listed) == len(entries())
    given = SearchConfig().model_dump(exclude={"provenance"})
    groups = {name for name, value in given.items() if isinstance(value, dict)}
    keys = {name for name in given if name not in groups} | {
        f"{group}.{name}" for group in groups for name in given[group]
    }
    assert set(listed) == keys
    assert [key for key, entry in listed.items() if not entry.description] == []
    assert yaml.safe_load(listed["space.momentum"].default) == {"low": 0.5, "high": 0.99, "log": False}
    assert listed["epoch_limit"].default == "3600s"


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.name)
def test_the_schema_accepts_a_shipped_configuration(path: Path) -> None:
    schema = json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(yaml.safe_load(path.read_text()), schema)


@pytest.mark.parametrize(
    "given",
    [
        {"trails": 5},
        {"trials": 0},
        {"time_budget": 90},
        {"training": {"schedule": "linear"}},
        {"space": {"learning_rate": {"low": 0.1}}},
        {"space": {"momentum": []}},
        {"provenance": {}},
        {"search": "grid"},
    ],
)
def test_the_schema_rejects_what_is_no_setting(given: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(given, json_schema())


@pytest.mark.parametrize(
    "given",
    [
        {"sampler": "tpe", "pruner": {"name": "median", "n_startup_trials": 2}},
        {"time_budget": "2h", "epoch_limit": "90s", "workers": None},
        {"weights": {"alexnet": "random"}, "space": {"frozen_blocks": {"high": "all"}, "momentum": 0.9}},
        {"trials_per_gpu": "auto"},
        {"trials_per_gpu": 2},
    ],
)
def test_the_schema_accepts_what_is_loaded(given: dict[str, Any]) -> None:
    jsonschema.validate(given, json_schema())
    SearchConfig.model_validate(given)


@pytest.mark.parametrize("path", [None, *CONFIGS], ids=str)
def test_commented_settings_are_read_back_equal(path: Path | None, tmp_path: Path) -> None:
    config = load(path, {"time_budget": "90m", "training.epochs": 3})
    (tmp_path / "own.yaml").write_text(text := commented_yaml(config))
    assert load(tmp_path / "own.yaml", {}) == config
    assert "# Maximum number of epochs. Default: 20\n  epochs: 3\n" in text
    assert max(map(len, text.splitlines())) < 200


def test_attribute_docstrings_are_those_below_the_attributes() -> None:
    found = attribute_docstrings(Recipe)
    assert found["momentum"] == "SGD's momentum, or AdamW's beta1, in [0, 1)."
    assert set(found) == set(json.loads(json.dumps(list(Recipe.__dataclass_fields__))))
