"""Turns pydantic's validation errors into one line for the user: the key, the rule, the value and the way out."""

import difflib
import re
from collections.abc import Iterator
from dataclasses import fields, is_dataclass

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from genre_core.errors import InputError
from search.config.settings import TAGS, WrongField
from search.errors import SearchErrorCode

ENQUEUE = "enqueue"
"""The setting that lists configurations to try first."""
_UNKNOWN_KEY = ("extra_forbidden", "unexpected_keyword_argument")
"""pydantic's types of the error for a key that a model, or a dataclass, does not have."""
_RULES = {
    **dict.fromkeys(
        ("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "must be a whole number"
    ),
    **dict.fromkeys(("float_type", "float_parsing"), "must be a number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "must be true or false"),
    **dict.fromkeys(("tuple_type", "list_type"), "must be a list"),
    **dict.fromkeys(("model_type", "dict_type", "dataclass_type"), "must be a mapping"),
    "finite_number": "must be finite",
    "string_type": "must be text",
    "greater_than": "must be above {gt}",
    "greater_than_equal": "must be at least {ge}",
    "less_than": "must be below {lt}",
    "less_than_equal": "must be at most {le}",
    "literal_error": "must be {expected}",
    "missing": "must be given",
}
"""pydantic's types of errors -> the rule in the words of our own messages, with pydantic's context filled in."""
_NEAR = 0.7
"""Similarity from which a key counts as a misspelling of another one, from 0 to 1."""
NEIGHBOURS = {
    **dict.fromkeys(("lr", "eta", "step_size"), "space.learning_rate"),
    **dict.fromkeys(("batch", "bs", "batchsize", "train_batch_size"), "space.batch_size"),
    **dict.fromkeys(("wd", "l2", "decay"), "space.weight_decay"),
    **dict.fromkeys(("model", "models", "arch", "architecture", "network", "backbones"), "space.backbone"),
    **dict.fromkeys(("freeze", "frozen", "freeze_depth", "frozen_layers"), "space.frozen_blocks"),
    **dict.fromkeys(("max_epochs", "num_epochs", "n_epochs"), "training.epochs"),
    **dict.fromkeys(("early_stopping", "early_stop", "early_stopping_patience"), "training.patience"),
    **dict.fromkeys(("scheduler", "lr_scheduler", "lr_schedule"), "training.schedule"),
    **dict.fromkeys(("warmup", "warmup_steps"), "training.warmup_epochs"),
    **dict.fromkeys(("num_samples", "n_trials", "max_trials", "num_trials"), "trials"),
    **dict.fromkeys(("timeout", "max_time", "time_limit", "time_budget_s"), "time_budget"),
    **dict.fromkeys(("n_jobs", "jobs", "max_concurrent_trials", "concurrency"), "workers"),
    **dict.fromkeys(("gpus", "gpu", "gpus_per_trial", "resources_per_trial"), "trials_per_gpu"),
    **dict.fromkeys(("cpus", "cpu"), "cpus_per_trial"),
    **dict.fromkeys(("dtype", "amp", "mixed_precision"), "precision"),
    **dict.fromkeys(("random_state", "random_seed"), "seed"),
    **dict.fromkeys(("spec_augment", "specaugment"), "space.masking"),
    **dict.fromkeys(("min", "minimum", "lower", "max", "maximum", "upper"), "a range is {low: …, high: …}"),
    **dict.fromkeys(
        ("metric", "objective", "monitor", "mode", "direction"),
        "every search maximizes the validation macro F1",
    ),
}
"""What other tools call a setting, in lower case -> its key, or a hint if there is no such setting."""
_SHOWN = 200
"""Maximum number of characters of a rejected value that a message repeats."""
_OPTIONS = {"worker_budget": "--budget"}
"""Setting -> its option on the command line, if the names differ."""


def as_input_error(error: ValidationError, model: type[BaseModel]) -> InputError:
    """All mistakes as one InputError, in one line.

    Args:
        error: the error from validating `model`.
        model: the settings; suggestions for an unknown key come from its fields.
    """
    mistakes = error.errors()
    unknown = mistakes[0]["type"] in _UNKNOWN_KEY
    code = SearchErrorCode.SETTING_UNKNOWN if unknown else SearchErrorCode.SETTING_INVALID
    texts = dict.fromkeys(_explain(mistake, model) for mistake in mistakes)
    return InputError("; ".join(texts), code=code)


def rule(mistake: ErrorDetails) -> str:
    """The rule that a value breaks, such as `must be at least 1`; pydantic's own message if it is none of the usual."""
    if template := _RULES.get(mistake["type"]):
        limits = {name: _plain(value) for name, value in mistake.get("ctx", {}).items()}
        return template.format(**limits)
    return mistake["msg"][0].lower() + mistake["msg"][1:]


def _plain(value: object) -> object:
    """A limit without a needless fraction: 0 rather than 0.0."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def shown(value: object) -> str:
    """A value as messages repeat it: its repr, cut off if it is long."""
    try:
        text = repr(value)
    except ValueError:  # an integer with thousands of digits
        text = type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def setting_path(mistake: ErrorDetails) -> list[str]:
    """The keys that lead to a mistake.

    pydantic's location also holds a tag for each union on the way. All unions of settings are tagged by us.
    """
    *outer, last = _with_index(mistake["loc"]) or ("",)
    path = [str(part) for part in outer if part not in TAGS]
    is_key = mistake["type"] in _UNKNOWN_KEY or last not in TAGS  # an unknown key may be called like a tag
    return [*path, str(last)] if is_key else path


def _with_index(location: tuple[int | str, ...]) -> tuple[int | str, ...]:
    """A location in which an enqueued configuration is one key: `enqueue[1]`."""
    match location:
        case (str(name), int(index), *rest) if name == ENQUEUE:
            return (f"{ENQUEUE}[{index}]", *rest)
    return location


def _explain(mistake: ErrorDetails, model: type[BaseModel]) -> str:
    path = setting_path(mistake)
    cause = mistake.get("ctx", {}).get("error")
    if isinstance(cause, WrongField) and cause.field:
        path.append(cause.field)
    key = ".".join(path) or "''"
    if mistake["type"] in _UNKNOWN_KEY:
        return f"{key} is not a setting; {_hint(path, model)}"
    if option := _OPTIONS.get(key):
        key = f"{key} ({option})"
    broken = str(cause) if cause else f"{rule(mistake)}, but got {_given(mistake, path)}"
    return f"{key} {broken}" if broken.startswith("must ") else f"{key}: {broken}"


def _given(mistake: ErrorDetails, path: list[str]) -> str:
    """The rejected value with its key; for a missing key, the mapping that lacks it."""
    value = shown(mistake["input"])
    return value if mistake["type"] == "missing" or not path else f"{path[-1]}={value}"


def _hint(path: list[str], model: type[BaseModel]) -> str:
    """The setting that an unknown key may stand for, with its whole path."""
    given = path[-1]
    if path[0].startswith(f"{ENQUEUE}["):
        return _hint_of_enqueued(path[0], given, model)
    if meant := NEIGHBOURS.get(given.lower()):
        return meant if " " in meant else f"did you mean {meant}?"
    keys = list(_keys(model))
    outermost_last = sorted(keys, key=lambda key: key.count("."), reverse=True)
    names = {key.rpartition(".")[2]: key for key in outermost_last}
    group = "".join(f"{key}." for key in path[:-1])
    siblings = [key.removeprefix(group) for key in keys if group and key.startswith(group)]
    # in an existing group, the whole path is near to any other key of the group
    whole = [] if siblings else difflib.get_close_matches(".".join(path), keys, n=1, cutoff=_NEAR)
    near = whole or [names[name] for name in difflib.get_close_matches(given, names, n=1, cutoff=_NEAR)]
    if near:
        return f"did you mean {near[0]}?"
    if siblings:
        return f"{group.removesuffix('.')} has the settings {', '.join(siblings)}"
    return "list all settings with: genre-search config show"


def _hint_of_enqueued(entry: str, given: str, model: type[BaseModel]) -> str:
    """The hyperparameter that an unknown key of an enqueued configuration may stand for."""
    names = [key.removeprefix("space.") for key in _keys(model) if re.fullmatch(r"space\.\w+", key)]
    near = difflib.get_close_matches(given, names, n=1, cutoff=_NEAR)
    group, _, name = NEIGHBOURS.get(given.lower(), "").partition(".")
    meant = near[0] if near else name if group == "space" else None
    return f"did you mean {entry}.{meant}?" if meant else f"the hyperparameters are {', '.join(names)}"


def _keys(model: type[BaseModel], prefix: str = "") -> Iterator[str]:
    """The dotted keys of a model, and of the models and dataclasses in its fields."""
    for name, field in model.model_fields.items():
        yield prefix + name
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            yield from _keys(field.annotation, f"{prefix}{name}.")
        elif isinstance(field.annotation, type) and is_dataclass(field.annotation):
            yield from (f"{prefix}{name}.{own.name}" for own in fields(field.annotation))
