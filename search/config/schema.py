"""The shape of configs/*.yaml: every setting of a search, validated; a value to search is fixed or a range."""

import difflib
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails
from yaml.composer import ComposerError

from genre_core.errors import InputError
from genre_core.models.registry import block_names
from genre_core.recipe import Recipe
from genre_core.synthetic.corpus import SyntheticCorpus
from search.config.grid import endless
from search.config.space import Settings, Space, choices, ends

NAMED_WEIGHTS = ("imagenet", "random")
"""Values of `weights` that are no path."""
BUILTIN = "builtin"
"""The value of `data` that stands for the built-in corpus."""

_UNION_MEMBERS = (
    "fixed",
    "choices",
    "range",
    "int",
    "constrained-int",
    "literal['all']",
    "literal['auto']",
    "str",
    "constrained-str",
    "dict[str,str]",
    "dict[str,constrained-str]",
)
"""What pydantic adds to the path of a mistake inside a union; no setting is called so."""


_SHOWN = 200
"""Characters of a refused value that a message repeats."""

Name = Annotated[str, Field(min_length=1)]


class Training(Settings):
    """What is the same for all trials of a search; see `genre_core.recipe.Recipe`."""

    epochs: int = 20
    patience: int = 8
    warmup_epochs: float = 1.0
    schedule: str = "cosine"
    class_weights: str = "none"
    augment_at: str = "cut"


class Split(Settings):
    """Shares of the tracks for validation and test, and the seed of the draw; groups stay whole."""

    validation: float = Field(default=0.2, gt=0, lt=0.5)
    test: float = Field(default=0.2, gt=0, lt=0.5)
    seed: int = 0
    draw_validation: bool = False
    """Whether a manifest's split of train and test only gets its validation part drawn from train."""


class Optuna(BaseModel):
    """An Optuna sampler or pruner by name; every other key is a parameter of Optuna's own class."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: Name

    @property
    def parameters(self) -> dict[str, Any]:
        """What goes to the constructor."""
        return dict(self.model_extra or {})


def _named(value: object) -> object:
    """`tpe` alone -> {name: tpe}."""
    return {"name": value} if isinstance(value, str) else value


_DURATIONS = ("time_budget", "epoch_limit")
"""Settings that are a time."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""Units of a duration."""


def _seconds(value: object) -> object:
    """`90s`, `30m`, `2h`, `1.5d` -> seconds. A number alone may be meant in any unit."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)([smhd])", value) if isinstance(value, str) else None
    if match:
        return float(match[1]) * _SECONDS[match[2]]
    if value is None:
        return None
    raise ValueError(f"must have a unit, as in 90s, 30m, 2h or 1.5d, but got {_shown(value)}")


class SearchConfig(Settings):
    """A whole search."""

    data: Name = BUILTIN
    """A folder with a folder for each genre, a manifest (CSV or Parquet), or `builtin`."""
    synthetic: SyntheticCorpus = SyntheticCorpus()
    """The built-in corpus, where it is used."""
    split: Split = Split()
    max_bad_share: float = Field(default=0.1, ge=0, le=1)
    """More bad audio files than this share of all stop the run before any trial."""
    front_end: str = "mel128"
    level: Literal["track", "absolute"] = "track"
    """What mels are relative to; a run that does not name it is older than it, and absolute."""
    segment_seconds: float = Field(default=3.0, gt=0)
    segments_per_track: int = Field(default=10, ge=1)
    """A track longer than so many segments is heard at so many places, evenly spread."""
    weights: Name | dict[str, Name] = "imagenet"
    """`imagenet`, `random` or a state dict's path; or one of these for each backbone (`imagenet` where none)."""
    space: Space = Space()
    training: Training = Training()
    sampler: Annotated[Optuna, BeforeValidator(_named)] = Optuna(name="tpe")
    pruner: Annotated[Optuna, BeforeValidator(_named)] = Optuna(name="median")
    trials: int = Field(default=50, ge=1)
    time_budget: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_seconds)] = None
    """90s, 30m, 2h or 1.5d after which the search ends in order; in seconds."""
    seed: int = Field(default=0, ge=0)
    """Of the sampler, and of every trial: trials differ by their settings, not by their luck."""
    repeat_seeds: int = Field(default=1, ge=1)
    """Seeds, from `seed` on, with which each configuration of a finite space is tried, when all were with the last."""
    keep_models: int = Field(default=3, ge=0)
    """The best so many trials' models are kept."""
    address: Name | None = None
    """A running Ray cluster (`auto` or its address); without one, Ray is started on this machine."""
    workers: int | None = Field(default=None, ge=1)
    """Trials at a time; without it, as many as the cluster has room for."""
    cpus_per_trial: float = Field(default=1.0, gt=0)
    trials_per_gpu: Annotated[int, Field(ge=0)] | Literal["auto"] = "auto"
    """Trials that share a GPU: as many as their measured memory allows, or so many; with 0 all run on CPUs."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """What layers compute in; `auto` is bfloat16 on GPUs and float32 on CPUs."""
    feature_cache: float = Field(default=10.0, ge=0)
    """GiB of a node's disk for what its trials share: starting points and activations at cuts. 0 shares nothing."""
    storage: str | None = None
    """Where a copy of the run's folder is kept, as an address that pyarrow takes: s3://bucket/prefix, gs://…"""
    retries: int = Field(default=3, ge=0)
    """How often a trial goes on elsewhere after its worker or its node died, before it fails."""
    epoch_limit: Annotated[Annotated[float, Field(gt=0)], BeforeValidator(_seconds)] = 3600.0
    """90s, 30m, 2h or 1.5d after which an epoch is taken to hang: its worker is ended, which is a death; in seconds."""
    checkpoint_budget: float = Field(default=20.0, ge=0)
    """GiB in the run's folder for running trials' checkpoints. 0 keeps none: a trial that is cut off begins anew."""
    warm_start: tuple[Name, ...] = ()
    """Folders of earlier searches whose trials the sampler and the pruner know from the start."""
    mlflow: Name | None = None
    """Where MLflow is told of every trial: the address of its server, or sqlite:///FILE."""
    provenance: dict[str, Any] | None = None
    """Written by a run: versions and the corpus it saw. Read only to know the file of a run from others."""

    @model_validator(mode="before")
    @classmethod
    def _level_of_an_older_run(cls, settings: Any) -> Any:
        if isinstance(settings, dict) and settings.get("provenance") is not None:
            return {"level": "absolute"} | settings
        return settings

    def weights_of(self, backbone: str) -> str:
        """Where this backbone's weights come from."""
        if isinstance(self.weights, str):
            return self.weights
        return self.weights.get(backbone, "imagenet")

    @property
    def backbones(self) -> tuple[str, ...]:
        """All backbones that may be drawn."""
        return choices(self.space.backbone)


def load(path: Path | None, overrides: Mapping[str, Any]) -> SearchConfig:
    """The search of a YAML file (or the defaults), with overrides by dotted key.

    Raises:
        InputError: the file cannot be read, a key is unknown, a value has the wrong type or an illegal value.
    """
    settings = _with_units(_read(path)) if path else {}
    for key, value in overrides.items():
        _set(settings, key.split("."), value)
    try:
        config = SearchConfig.model_validate(settings)
    except ValidationError as error:
        raise InputError(_one_line(error)) from error
    for option, address, way_out in (
        (
            "--storage",
            config.storage,
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or as your cloud's own tools do",
        ),
        ("mlflow", config.mlflow, "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"),
    ):
        if address and "@" in address:
            raise InputError(
                f"{option} must hold no keys, for the run's config.yaml would hold them too, "
                f"but got an address with @; give them as {way_out}"
            )
    config = _with_absolute_paths(config)
    _check_space(config)
    return config


def parse_override(text: str) -> tuple[str, Any]:
    """`key=value` -> (dotted key, the value as YAML reads it).

    Raises:
        InputError: there is no `=`, or the value is not YAML.
    """
    key, equals, value = text.partition("=")
    if not (key and equals):
        raise InputError(
            f"--set must be key=value, but got --set {text}; for example --set training.epochs=5"
        )
    return key.strip(), parse_value(value)


def parse_value(text: str) -> Any:
    """A setting's value on the command line, read as YAML.

    Raises:
        InputError: it is not YAML.
    """
    try:
        return _parse(text)
    except _UNPARSABLE as error:
        raise InputError(f"a setting must be a YAML value, but got {_shown(text)}; quote it") from error


def to_yaml(config: SearchConfig) -> str:
    """The whole configuration, resolved, as YAML that `load` reads back to an equal one."""
    durations = {name: f"{value!r}s" for name in _DURATIONS if (value := getattr(config, name)) is not None}
    text: str = yaml.safe_dump(config.model_dump() | durations, sort_keys=False)
    return text


def _with_absolute_paths(config: SearchConfig) -> SearchConfig:
    """Paths as they are seen from anywhere: workers, and the command that repeats a trial, start elsewhere."""

    def absolute(value: str, *names: str) -> str:
        try:
            return value if value in names else str(Path(value).expanduser().resolve())
        except (OSError, RuntimeError, ValueError) as error:  # no such user, a loop of links, a zero byte
            raise InputError(f"a path must lead somewhere, but {value!r} does not: {error}") from error

    weights = (
        absolute(config.weights, *NAMED_WEIGHTS)
        if isinstance(config.weights, str)
        else {backbone: absolute(value, *NAMED_WEIGHTS) for backbone, value in config.weights.items()}
    )
    paths = {
        "data": absolute(config.data, BUILTIN),
        "weights": weights,
        "warm_start": tuple(absolute(run) for run in config.warm_start),
    }
    return config.model_copy(update=paths)


class _Loader(yaml.SafeLoader):
    """YAML without what it would take in silence, or into an endless message: a key twice, and aliases."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark  # type: ignore[no-untyped-call]
            raise ComposerError(None, None, "an alias is not read, write the value out", mark)
        return super().compose_node(parent, index)

    def compose_mapping_node(self, anchor: Any) -> yaml.MappingNode:
        node = super().compose_mapping_node(anchor)
        seen = set()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ComposerError(None, None, f"{key.value} is there twice, keep one", key.start_mark)
            seen.add(key.value if isinstance(key, yaml.ScalarNode) else None)
        return node


_UNPARSABLE = (yaml.YAMLError, ValueError, LookupError, AttributeError, RecursionError)
"""What reading YAML raises: of impossible dates, of numbers in thousands of digits, of nests without end."""


def _parse(text: str) -> Any:
    return yaml.load(text, _Loader)


def _read(path: Path) -> dict[str, Any]:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"--config must be a readable YAML file, but {path} is not: {error}") from error
    try:
        settings = _parse(text)
    except _UNPARSABLE as error:
        mark = getattr(error, "problem_mark", None)
        place = f" at line {mark.line + 1}" if mark else ""
        raise InputError(
            f"--config must be YAML, but {path} is not{place}: {getattr(error, 'problem', error)}"
        ) from error
    if settings is None:
        return {}
    if not isinstance(settings, dict):
        raise InputError(f"--config must hold keys and values, but {path} holds a {type(settings).__name__}")
    return settings


def _with_units(settings: dict[str, Any]) -> dict[str, Any]:
    """Give durations their unit in the file of a run, which has a `provenance`: earlier versions wrote seconds."""
    if not settings.get("provenance"):
        return settings
    numbers = {name: settings.get(name) for name in _DURATIONS}
    return settings | {
        name: f"{value!r}s" for name, value in numbers.items() if isinstance(value, int | float)
    }


def _set(settings: dict[str, Any], keys: list[str], value: object) -> None:
    for key in keys[:-1]:
        if not isinstance(settings.get(key), dict):
            settings[key] = {}
        settings = settings[key]
    settings[keys[-1]] = value


def _one_line(error: ValidationError) -> str:
    """The first mistake, in one line, and how many more there are."""
    first, *others = error.errors()
    more = f" (and {len(others)} more)" if others else ""
    return f"{_explain(first)}{more}"


def _explain(mistake: ErrorDetails) -> str:
    unknown = mistake["type"] == "extra_forbidden"  # then the last part is a name, whatever it is
    *outer, last = mistake["loc"] or ("",)
    path = [str(part) for part in outer if part not in _UNION_MEMBERS]
    path += [str(last)] if unknown or last not in _UNION_MEMBERS else []
    key = ".".join(path) or "''"
    if unknown:
        near = difflib.get_close_matches(path[-1], _known_keys(SearchConfig), n=1)
        return f"{key} is not a setting" + (
            f"; did you mean {near[0]}?" if near else "; see --help for the settings"
        )
    if cause := mistake.get("ctx", {}).get("error"):
        return f"{key}: {cause}"
    message = mistake["msg"][0].lower() + mistake["msg"][1:]
    return f"{key}: {message}, but got {path[-1] if path else 'it'}={_shown(mistake['input'])}"


def _shown(value: object) -> str:
    try:
        text = repr(value)
    except ValueError:  # a number of thousands of digits
        text = type(value).__name__
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}…"


def _known_keys(model: type[BaseModel]) -> list[str]:
    keys = []
    for name, field in model.model_fields.items():
        keys.append(name)
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            keys += _known_keys(field.annotation)
    return keys


def _check_space(config: SearchConfig) -> None:
    """Both ends of every range, for every backbone, must make a recipe that can be followed."""
    if isinstance(config.weights, dict):
        for backbone in config.weights:
            block_names(backbone)
    if config.repeat_seeds > 1 and (name := endless(config.space)):
        raise InputError(
            f"--repeat-seeds must be 1 where there is no end of configurations to try, but got {config.repeat_seeds} "
            f"with a range for space.{name}; list its values, or give the range a step"
        )
    sampled = [name for name in Space.model_fields if name != "backbone"]
    extremes = {name: ends(name, getattr(config.space, name)) for name in sampled}
    for backbone in config.backbones:
        n_blocks = len(block_names(backbone))
        depths = tuple(n_blocks if depth == "all" else depth for depth in extremes["frozen_blocks"])
        own = {**extremes, "frozen_blocks": depths}
        lowest = Recipe(
            backbone=backbone,
            weights=config.weights_of(backbone),
            seed=config.seed,
            **config.training.model_dump(),
            **{name: values[0] for name, values in own.items()},
        )
        for name, values in own.items():
            for value in values:
                replace(lowest, **{name: value})
