"""The settings of a search, as in configs/*.yaml: their types, defaults and checks."""

import re
from collections.abc import Mapping
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from genre_core.errors import InputError
from genre_core.models.registry import block_names, full_name
from genre_core.recipe import ADAMW, SGD, Recipe
from genre_core.synthetic.corpus import SyntheticCorpus
from genre_core.system.addresses import has_credentials, is_address, normalized
from search.config.enqueued import Queue, in_space, with_full_name
from search.config.front_end import needed_front_end
from search.config.grid import continuous
from search.config.mistakes import as_input_error, shown
from search.config.settings import Keyed, Number, Scalar, Settings, Word, by_shape, number_or
from search.config.space import Space, choices, ends
from search.config.yaml_reader import read_file
from search.errors import SearchErrorCode

NAMED_WEIGHTS = ("imagenet", "random")
PRETRAINED, IMAGENET = "pretrained", "imagenet"
"""Two words for the weights that a backbone names; runs and recipes have the second one, as earlier versions do."""
"""Values of `weights` that are not paths."""
BUILTIN = "builtin"
"""Value of `data` for the built-in corpus."""

Name = Annotated[str, Field(min_length=1)]


class Training(Settings):
    """Settings of the fine-tune that are the same for all trials; see `genre_core.recipe.Recipe`."""

    epochs: int = Recipe.epochs
    patience: int = Recipe.patience
    warmup_epochs: float = Recipe.warmup_epochs
    schedule: str = Recipe.schedule
    class_weights: str = Recipe.class_weights
    augment_at: str = Recipe.augment_at
    head_init: str = "random"
    """Runs that do not name it are older than this setting: random."""


class Split(Settings):
    """How tracks are split; groups are never divided."""

    validation: float = Field(default=0.2, gt=0, lt=0.5)
    """Share of the tracks."""
    test: float = Field(default=0.2, gt=0, lt=0.5)
    """Share of the tracks."""
    seed: int = 0
    """Seed of the split."""
    draw_validation: bool = False
    """Draw the validation part from the train part of a manifest that defines train and test only."""


class Optuna(BaseModel):
    """An Optuna sampler or pruner by name; all other keys are parameters of Optuna's class."""

    model_config = ConfigDict(extra="allow", frozen=True)
    name: Name

    @property
    def parameters(self) -> dict[str, Any]:
        """Arguments for the constructor of Optuna's class."""
        return dict(self.model_extra or {})


def _named(value: object) -> object:
    """`tpe` -> {name: tpe}."""
    return {"name": value} if isinstance(value, str) else value


OPTUNA: Final = "optuna"
COST_AWARE: Final = "cost_aware"
"""Values of `search`."""
GRID: Final = "grid"
"""The sampler that needs a finite space."""
_OPTUNA_DEFAULTS = {"sampler": "tpe", "pruner": "median"}

DURATIONS = ("time_budget", "worker_budget", "epoch_limit")
"""Settings in seconds."""
_SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
"""Seconds per unit of a duration."""


def _seconds(value: object) -> object:
    """`90s`, `30m`, `2h`, `1.5d` -> seconds; a number without a unit is ambiguous and rejected."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?(?:e[+-]?\d+)?)([smhd])", value) if isinstance(value, str) else None
    if match:
        return float(match[1]) * _SECONDS[match[2]]
    if value is None:
        return None
    raise ValueError(f"must have a unit, as in 90s, 30m, 2h or 1.5d, but got {shown(value)}")


GROUPS: Final[dict[str, type]] = {
    "synthetic": SyntheticCorpus,
    "split": Split,
    "space": Space,
    "training": Training,
}
"""Settings that hold settings."""


class SearchConfig(Settings):
    """All settings of a search."""

    data: Name = BUILTIN
    """A folder with one subfolder per genre, a manifest (CSV, TSV or Parquet), or `builtin`. A folder or manifest may
    also be at an address: s3://bucket/music, gs://…"""
    synthetic: SyntheticCorpus = SyntheticCorpus()
    """The built-in corpus; only with data: builtin."""
    split: Split = Split()
    """How tracks are split into train, validation and test."""
    max_bad_share: float = Field(default=0.1, ge=0, le=1)
    """Maximum share of bad audio files; with more, the search does not start."""
    front_end: str = "mel128"
    """`mel128`, `mel64` (half as many mel bands and frames, a quarter of the arithmetic), `mel128x3` (three window
    sizes as three channels), or one that a backbone defines. A backbone that needs its own front end sets this."""
    level: Literal["track", "absolute"] = "track"
    """Reference level of the mel spectrograms. Runs that do not name it are older than this setting: absolute."""
    segment_seconds: float = Field(default=3.0, gt=0)
    """Length of the segments that a network sees; shorter tracks are left out."""
    segments_per_track: int = Field(default=10, ge=1)
    """Maximum number of segments per track, evenly spaced in longer tracks."""
    weights: Annotated[
        Annotated[Name, Scalar] | Annotated[dict[str, Name], Keyed],
        by_shape("must be one value, or a mapping from backbones to values"),
    ] = IMAGENET
    """`pretrained` or `imagenet` for the pretrained weights of each backbone, `random`, or the path of a state dict; or
    a mapping from backbones to these (default pretrained)."""
    space: Space = Space()
    """The hyperparameters that are searched."""
    training: Training = Training()
    """Settings of the fine-tune that are the same for all trials."""
    search: Literal["cost_aware", "optuna"] = COST_AWARE
    """`cost_aware` always trains the trial with the most expected improvement per cost, and pauses the others. `optuna`
    uses `sampler` and `pruner`; it is the default if one of them is given, and in runs older than this setting."""
    sampler: Annotated[Optuna | None, BeforeValidator(_named)] = None
    """Only with search: optuna; by default tpe. Others are random, qmc, gp, cmaes, and grid, which tries each
    configuration of a finite space once, in random order. Further keys are parameters of Optuna's class."""
    pruner: Annotated[Optuna | None, BeforeValidator(_named)] = None
    """Only with search: optuna; by default median. Others are none, percentile, successive_halving, hyperband and
    patient. Further keys are parameters of Optuna's class."""
    enqueue: Queue = ()
    """Configurations to try first, each a mapping from hyperparameters of `space` to values, with a depth in blocks or
    `all`; missing ones are sampled. Those beyond `trials` wait until the search is resumed with more trials."""
    stop_when_flat: bool = False
    """Whether a cost-aware search ends before its last trial when no further improvement is expected."""
    trials: int = Field(default=50, ge=1)
    """Number of trials after which the search ends."""
    time_budget: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_seconds)] = None
    """Seconds after which the search ends; written with a unit: 90s, 30m, 2h or 1.5d."""
    worker_budget: Annotated[Annotated[float, Field(gt=0)] | None, BeforeValidator(_seconds)] = None
    """Seconds of training, summed over all workers, after which the search ends; written like `time_budget`."""
    price: float | None = Field(default=None, ge=0, allow_inf_nan=False)
    """Price of one worker-hour, in any currency, to show the cost of the search."""
    seed: int = Field(default=0, ge=0)
    """Seed of the sampler and of every trial, so that trials differ in their settings only."""
    repeat_seeds: int = Field(default=1, ge=1)
    """Seeds, from `seed` on, for each configuration of a finite space; the next one is used after all were tried."""
    keep_models: int = Field(default=3, ge=0)
    """Number of best trials whose models are kept."""
    address: Name | None = None
    """Address of a running Ray cluster, or `auto`; by default Ray is started on this machine."""
    workers: int | None = Field(default=None, ge=1)
    """Maximum number of trials that run in parallel; by default as many as fit on the cluster."""
    cpus_per_trial: float = Field(default=1.0, gt=0)
    """CPU cores reserved for each trial, and its number of threads."""
    trials_per_gpu: Annotated[
        Annotated[int, Field(ge=0), Number] | Annotated[Literal["auto"], Word], number_or("auto")
    ] = "auto"
    """Number of trials that share a GPU; `auto` decides by memory use, which is measured, or estimated for new kinds of
    trials. 0 runs all trials on CPUs."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Data type in which layers compute, the same for all trials of a search. `auto` is bfloat16 if all GPUs compute it
    natively (NVIDIA: compute capability 8.0 or more), else float32, as on CPUs; config.yaml records the choice."""
    feature_cache: float = Field(default=10.0, ge=0)
    """GiB on a node's disk for data shared by trials: initial weights and activations of frozen blocks. 0 for none."""
    data_cache: float = Field(default=100.0, ge=0)
    """GiB on the disk of a node that cannot read the driver's cache, for copies of spectrograms."""
    storage: str | None = None
    """Where to mirror the run's folder, as an address that pyarrow supports: s3://bucket/prefix, gs://… On a cluster,
    also for spectrograms that nodes fetch."""
    retries: int = Field(default=3, ge=0)
    """How many times a trial is restarted after its worker or node died, before it fails."""
    epoch_limit: Annotated[Annotated[float, Field(gt=0)], BeforeValidator(_seconds)] = 3600.0
    """Seconds after which an epoch counts as hanging and its worker is killed; written like `time_budget`."""
    checkpoint_budget: float = Field(default=20.0, ge=0)
    """GiB in the run's folder for checkpoints of running and paused trials. 0 for none: interrupted trials restart,
    and a trial that would be paused is pruned."""
    warm_start: tuple[Name, ...] = ()
    """Run folders of earlier searches whose trials the sampler and the pruner learn from."""
    mlflow: Name | None = None
    """MLflow tracking server to report trials to: its address, or sqlite:///FILE."""
    provenance: dict[str, Any] | None = None
    """Versions and the identity of the corpus, written by a run. Its presence marks the file as a run's config.yaml."""

    @model_validator(mode="before")
    @classmethod
    def _defaults_of_an_older_run(cls, settings: Any) -> Any:
        """What a run did that does not name a setting, because it is older than the setting."""
        if not isinstance(settings, dict) or settings.get("provenance") is None:
            return settings
        training = settings.get("training", {})
        if isinstance(training, dict):
            settings = settings | {"training": {"head_init": Recipe.head_init} | training}
        return {"level": "absolute"} | settings | _space_of_an_older_run(settings.get("space", {}))

    @model_validator(mode="before")
    @classmethod
    def _search_by_sampler_and_pruner(cls, settings: Any) -> Any:
        """Fill in `search` where it is not given, and what of Optuna is not given where it is used."""
        if not isinstance(settings, dict):
            return settings
        given = any(settings.get(name) is not None for name in (*_OPTUNA_DEFAULTS, "provenance"))
        search = settings.get("search", OPTUNA if given else COST_AWARE)
        missing = {name: value for name, value in _OPTUNA_DEFAULTS.items() if settings.get(name) is None}
        return {**settings, "search": search} | (missing if search == OPTUNA else {})

    def weights_of(self, backbone: str) -> str:
        """The value of `weights` for this backbone."""
        if isinstance(self.weights, str):
            return self.weights
        return self.weights.get(backbone, IMAGENET)

    @property
    def backbones(self) -> tuple[str, ...]:
        """All backbones in the search space."""
        return choices(self.space.backbone)


def _space_of_an_older_run(space: object) -> dict[str, Any]:
    """The setting `space` with a parameter per backbone for the frozen depth; empty if it does not apply.

    config.yaml decides rather than the trials of the study, because it also exists when the study is empty or lost.
    """
    depth = space.get("frozen_blocks", {}) if isinstance(space, dict) else None
    if not isinstance(space, dict) or not isinstance(depth, dict):
        return {}
    return {"space": space | {"frozen_blocks": {"as_share": False} | depth}}


def load(path: Path | None, overrides: Mapping[str, Any]) -> SearchConfig:
    """Load a YAML file, or the defaults, and apply overrides by dotted key.

    Raises:
        InputError: the file cannot be read, a key is unknown, or a value has the wrong type or is out of range.
    """
    settings = _with_units(read_file(path)) if path else {}
    defaults = SearchConfig().model_dump() | _OPTUNA_DEFAULTS
    for key, value in overrides.items():
        _set(settings, _path(key), value, defaults)
    try:
        config = SearchConfig.model_validate(settings)
    except ValidationError as error:
        raise as_input_error(error, SearchConfig) from None  # which says it all
    _reject_credentials(config)
    config = _with_front_end(_with_full_names(_with_absolute_paths(config)))
    _check_weights(config)
    _check_repeat_seeds(config)
    _check_search(config)
    _check_nesterov(config)
    _check_space(config)
    enqueued = in_space(config.enqueue, config.space, seeds=config.repeat_seeds)
    return config.model_copy(update={"enqueue": enqueued})


def to_yaml(config: SearchConfig) -> str:
    """All settings as YAML, which `load` reads back to an equal configuration."""
    durations = {name: f"{value!r}s" for name in DURATIONS if (value := getattr(config, name)) is not None}
    text: str = yaml.safe_dump(config.model_dump() | durations, sort_keys=False)
    return text


def _with_units(settings: dict[str, Any]) -> dict[str, Any]:
    """Add units to durations in the config.yaml of a run: earlier versions wrote seconds without a unit."""
    if not settings.get("provenance"):
        return settings
    numbers = {name: settings.get(name) for name in DURATIONS}
    return settings | {
        name: f"{value!r}s" for name, value in numbers.items() if isinstance(value, int | float)
    }


def _path(key: str) -> list[str]:
    """The keys that a dotted key stands for; a backbone's name, which may contain dots, is one key."""
    outer, _, backbone = key.partition(".")
    return [outer, backbone] if outer == "weights" and backbone else key.split(".")


def _set(settings: dict[str, Any], keys: list[str], value: object, defaults: Mapping[str, Any]) -> None:
    """Set a value by its keys. A mapping on the way that is not given begins as its default, a group empty."""
    for key in keys[:-1]:
        defaults = _mapping(key, defaults.get(key))
        if key not in settings:
            settings[key] = {} if key in GROUPS else {k: v for k, v in defaults.items() if v is not None}
        settings[key] = _mapping(key, settings[key])
        settings = settings[key]
    settings[keys[-1]] = value


def _mapping(key: str, value: object) -> dict[str, Any]:
    """A setting as a mapping: the sampler `tpe` is {name: tpe}, and what has no keys is empty."""
    given = _named(value) if key in _OPTUNA_DEFAULTS else value
    return given if isinstance(given, dict) else {}


def _reject_credentials(config: SearchConfig) -> None:
    """Addresses are written to the run's config.yaml, where credentials do not belong."""
    of_storage = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or log in with your cloud's tools"
    of_mlflow = "MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
    in_data = is_address(config.data) and has_credentials(config.data)
    for option, found, variables in (
        ("--data", in_data, of_storage),
        ("--storage", "@" in (config.storage or ""), of_storage),
        ("mlflow", "@" in (config.mlflow or ""), of_mlflow),
    ):
        if found:
            raise InputError(
                f"{option} must not contain credentials, which would be written to the run's config.yaml, "
                f"but got an address with @; set {variables}",
                code=SearchErrorCode.ADDRESS_WITH_CREDENTIALS,
            )


def _with_absolute_paths(config: SearchConfig) -> SearchConfig:
    """Make paths absolute: workers, and the command that repeats a trial, run in other folders."""

    def absolute(value: str, *names: str) -> str:
        if names == NAMED_WEIGHTS and value == PRETRAINED:
            return IMAGENET
        try:
            return value if value in names else str(Path(value).expanduser().resolve())
        except (OSError, RuntimeError, ValueError) as error:  # unknown user, loop of links, NUL character
            raise InputError(
                f"a path must be valid, but got {value!r}: {error}", code=SearchErrorCode.PATH_INVALID
            ) from error

    weights = (
        absolute(config.weights, *NAMED_WEIGHTS)
        if isinstance(config.weights, str)
        else {backbone: absolute(value, *NAMED_WEIGHTS) for backbone, value in config.weights.items()}
    )
    paths = {
        "data": normalized(config.data) if is_address(config.data) else absolute(config.data, BUILTIN),
        "weights": weights,
        "warm_start": tuple(absolute(run) for run in config.warm_start),
    }
    return config.model_copy(update=paths)


def _with_full_names(config: SearchConfig) -> SearchConfig:
    """Replace short names of registered backbones, which workers and later processes do not know."""
    backbone, weights = config.space.backbone, config.weights
    names = full_name(backbone) if isinstance(backbone, str) else tuple(map(full_name, backbone))
    if isinstance(weights, dict):
        weights = {full_name(name): value for name, value in weights.items()}
    return config.model_copy(
        update={
            "space": config.space.model_copy(update={"backbone": names}),
            "weights": weights,
            "enqueue": tuple(map(with_full_name, config.enqueue)),
        }
    )


def _with_front_end(config: SearchConfig) -> SearchConfig:
    """Set `front_end` to the one that the backbones need; another one that is given is a mistake."""
    needed = needed_front_end(config.backbones)
    if needed is None:
        return config
    if "front_end" in config.model_fields_set and config.front_end != needed.name:
        raise InputError(
            f"front_end must be the one that the backbones need, {needed.name}, but got "
            f"front_end={config.front_end}; leave it out",
            code=SearchErrorCode.FRONT_END_OF_BACKBONE,
        )
    return config.model_copy(update={"front_end": needed.name})


def _check_weights(config: SearchConfig) -> None:
    """All keys of `weights` must be backbones."""
    if isinstance(config.weights, dict):
        for backbone in config.weights:
            block_names(backbone)


def _check_repeat_seeds(config: SearchConfig) -> None:
    if config.repeat_seeds > 1 and (name := continuous(config.space)):
        raise InputError(
            f"repeat_seeds must be 1 with infinitely many configurations, but got {config.repeat_seeds} "
            f"with a range for space.{name}; list its values, or give the range a step",
            code=SearchErrorCode.REPEAT_SEEDS_OF_INFINITE_SPACE,
        )


def _check_search(config: SearchConfig) -> None:
    """A cost-aware search has its own sampler and pruner."""
    for name in _OPTUNA_DEFAULTS if config.search == COST_AWARE else ():
        if (given := getattr(config, name)) is not None:
            raise InputError(
                f"{name} applies to search: {OPTUNA} only, but got {name}={given.name} with search: {config.search}; "
                f"leave out {name}, or set search={OPTUNA}",
                code=SearchErrorCode.SAMPLER_OR_PRUNER_NOT_USED,
            )
    if config.sampler is not None and config.sampler.name == GRID and (ranged := continuous(config.space)):
        raise InputError(
            f"sampler {GRID} must have a finite space, but got a range for space.{ranged}; list its values, or give "
            "the range a step",
            code=SearchErrorCode.GRID_OF_INFINITE_SPACE,
        )


def _check_nesterov(config: SearchConfig) -> None:
    optimizers, nesterov = choices(config.space.optimizer), choices(config.space.nesterov)
    if SGD not in optimizers and True in nesterov:
        raise InputError(
            f"space.nesterov must be false without {SGD} in space.optimizer, since {ADAMW} ignores it, but got "
            f"nesterov={config.space.nesterov}; leave it out, or add {SGD}",
            code=SearchErrorCode.NESTEROV_WITHOUT_SGD,
        )


def _check_space(config: SearchConfig) -> None:
    """Both ends of every range must be valid for every backbone and optimizer; a Recipe checks itself."""
    sampled = [name for name in Space.model_fields if name not in ("backbone", "optimizer")]
    extremes = {name: ends(name, getattr(config.space, name)) for name in sampled}
    for backbone, optimizer in product(config.backbones, choices(config.space.optimizer)):
        n_blocks = len(block_names(backbone))
        depths = tuple(n_blocks if depth == "all" else depth for depth in extremes["frozen_blocks"])
        own = {**extremes, "frozen_blocks": depths}
        lowest = Recipe(
            backbone=backbone,
            optimizer=optimizer,
            weights=config.weights_of(backbone),
            seed=config.seed,
            **config.training.model_dump(),
            **{name: values[0] for name, values in own.items()},
        )
        for name, values in own.items():
            for value in values:
                replace(lowest, **{name: value})
