"""The plan of a search and its forecast from the costs of this machine, before Ray starts."""

import platform
from collections.abc import Iterable, Mapping
from pathlib import Path

import ray

from search.config.grid import grid
from search.config.schema import SearchConfig
from search.config.space import ends
from search.data import prepare
from search.data.prepare import Prepared
from search.data.reporter import Reporter
from search.engine import cost_cache
from search.engine.cost_cache import Conditions
from search.engine.costs import CellCost, Costs, Workload
from search.engine.forecast import Cell, CostSource, Plan, cells, forecast, looks
from search.run.schemas import TrialRow
from search.tune import precision
from search.tune.cluster import fit, needs, this_machine
from search.tune.probe import Setting, probe

PROBE_SECONDS = 10.0
"""Time limit of the probe at the start of a search."""
DRY_RUN_PROBE_SECONDS = 60.0
"""Time limit of the probe of a dry run."""


def dry_run(config: SearchConfig, *, cache: Path, reporter: Reporter) -> Plan:
    """Prepare the data as a search would, and plan it. Ray is not started, and no run folder is created.

    Raises:
        InputError: the data, the weights or the resources cannot be used.
    """
    found = prepare.read_data(config)
    if config.address is None:
        local_workers(config)
    _, prepared = prepare.prepare(config, found, cache=cache, reporter=reporter)
    config = with_local_precision(config)
    return make_plan(config, prepared, cache=cache, probe_seconds=DRY_RUN_PROBE_SECONDS)


def make_plan(
    config: SearchConfig,
    prepared: Prepared,
    *,
    cache: Path,
    rows: Iterable[TrialRow] = (),
    trials: int | None = None,
    probe_seconds: float = PROBE_SECONDS,
) -> Plan:
    """Plan a search.

    Args:
        config: of the search.
        prepared: its data.
        cache: folder with the costs of earlier searches.
        rows: its trials so far.
        trials: number of remaining trials [default: all].
        probe_seconds: time limit of the probe of backbones without known costs.
    """
    work = workload(config, prepared)
    workers, device = (config.workers, "cluster") if config.address else local_workers(config)
    costs = Costs(work)
    known = _known(cache, config, prepared, device)
    device, source = _prime(costs, known, device, config, prepared, probe_seconds=probe_seconds)
    spent = 0.0
    for row in rows:
        costs.observe(row)
        spent += row.seconds or 0.0
        source = CostSource.MEASURED if row.epochs else source
    kinds = tuple(cells(config.space))
    budget = worker_seconds(config, workers, spent=spent)
    return Plan(
        config=config,
        workload=work,
        image=_image(prepared),
        configurations=finite.size if (finite := grid(config.space)) else None,
        workers=workers,
        device=device,
        source=source,
        costs=costs,
        kinds=kinds,
        measured=_count_measured(kinds, known.get(device, []), costs),
        budget=None if budget is None else spent + budget,
        forecast=None
        if source is CostSource.UNKNOWN
        else forecast(
            costs,
            kinds,
            looks(config.training, config.pruner),
            trials=config.trials if trials is None else trials,
            budget=budget,
        ),
    )


def workload(config: SearchConfig, prepared: Prepared) -> Workload:
    """The workload of an epoch of the search's trials."""
    mels, frames = _image(prepared)
    return Workload(
        train_segments=len(prepared.train.mels),
        validation_segments=len(prepared.validation.mels),
        pixels=mels * frames,
        batch_size=_batch_size(config),
        sharing=_shares_activations(config),
    )


def conditions(config: SearchConfig, prepared: Prepared, device: str) -> Conditions:
    """The conditions under which the trials of a search are measured.

    Args:
        config: of the search.
        prepared: its data.
        device: the kind of device that trains; if the precision is not decided yet, that of most such devices is used.
    """
    mels, frames = _image(prepared)
    by_device = precision.FLOAT32 if device == "cpu" else precision.BFLOAT16
    return Conditions(
        place=config.address or platform.node(),
        mels=mels,
        frames=frames,
        batch_size=_batch_size(config),
        threads=max(1, int(config.cpus_per_trial)),
        precision=by_device if config.precision == precision.AUTO else config.precision,
        sharing=_shares_activations(config),
    )


def local_workers(config: SearchConfig) -> tuple[int, str]:
    """Trials at a time on this machine, and `cpu` or `cuda`; InputError if no trial fits."""
    workers, gpus = _local_capacity(config)
    return workers, "cuda" if gpus else "cpu"


def with_local_precision(config: SearchConfig) -> SearchConfig:
    """The config with the precision that this machine's devices decide; unchanged if a cluster decides it."""
    if config.precision != precision.AUTO or config.address is not None or ray.is_initialized():
        return config
    _, gpus = _local_capacity(config)
    return precision.decided(config, gpus=gpus, support=precision.gpus_of_this_machine)


def _local_capacity(config: SearchConfig) -> tuple[int, float]:
    """Trials at a time on this machine, and GPUs for each."""
    return fit([this_machine()], needs(config))


def worker_seconds(config: SearchConfig, workers: int | None, *, spent: float = 0.0) -> float | None:
    """Remaining worker-seconds of the tighter of a search's budgets; None if it has no budget.

    Args:
        config: of the search.
        workers: trials at a time; None if that is unknown.
        spent: worker time before the search was resumed; the time budget starts anew with each resume.
    """
    budgets = [] if config.worker_budget is None else [max(0.0, config.worker_budget - spent)]
    if config.time_budget is not None and workers is not None:
        budgets.append(config.time_budget * workers)
    return min(budgets, default=None)


def remember(cache: Path, config: SearchConfig, prepared: Prepared, costs: Costs) -> None:
    """Add the costs that a search has measured to the cost file in the cache.

    Raises:
        OSError: the file cannot be written.
    """
    segments = workload(config, prepared).segments
    for device, measured in costs.measured().items():
        cost_cache.update(cache, conditions(config, prepared, device), {device: measured}, segments=segments)


def _known(cache: Path, config: SearchConfig, prepared: Prepared, device: str) -> dict[str, list[CellCost]]:
    """Device -> costs of earlier searches on the kind of device of this search; of a cluster, any kind."""
    segments = workload(config, prepared).segments
    read = {
        kind: cost_cache.read(cache, conditions(config, prepared, kind), segments=segments)
        for kind in ("cuda", "cpu")
    }
    gpus = {name: costs for name, costs in read["cuda"].items() if name != "cpu"}
    cpus = {name: costs for name, costs in read["cpu"].items() if name == "cpu"}
    return {"cpu": cpus, "cuda": gpus}.get(device, gpus or cpus)


def _prime(
    costs: Costs,
    known: Mapping[str, list[CellCost]],
    device: str,
    config: SearchConfig,
    prepared: Prepared,
    *,
    probe_seconds: float,
) -> tuple[str, CostSource]:
    """Initialize costs with known or probed ones; returns the device's name and the source."""
    if known:
        device = max(known, key=lambda name: len(known[name]))
    for cost in known.get(device, []):
        costs.prime(cost, device=device)
    missing = set(config.backbones) - {cost.backbone for cost in known.get(device, [])}
    if not missing:
        return device, CostSource.MEASURED
    if config.address:
        return device, CostSource.MEASURED if known else CostSource.UNKNOWN
    mels, frames = _image(prepared)
    where = conditions(config, prepared, device)
    kind = "cpu" if device == "cpu" else "cuda"
    setting = Setting(device=kind, threads=where.threads, precision=where.precision, mels=mels, frames=frames)
    device, probed = probe(sorted(missing), setting, workload(config, prepared), limit_seconds=probe_seconds)
    for cost in probed:
        costs.prime(cost, device=device)
    return device, CostSource.PROBED


def _count_measured(kinds: Iterable[Cell], known: Iterable[CellCost], costs: Costs) -> int:
    """Number of kinds of trials that have run, in this search or in an earlier one."""
    ran = [cost for measured in costs.measured().values() for cost in measured]
    seen = {(cost.backbone, cost.frozen_blocks) for cost in [*known, *ran]}
    return sum((kind.backbone, kind.frozen_blocks) in seen for kind in kinds)


def _image(prepared: Prepared) -> tuple[int, int]:
    """Number of mel bands and of frames of a segment."""
    _, _, mels, frames = prepared.train.mels.shape
    return mels, frames


def _shares_activations(config: SearchConfig) -> bool:
    return config.feature_cache > 0 and config.training.augment_at == "cut"


def _batch_size(config: SearchConfig) -> int:
    """The middle of the searched batch sizes."""
    sizes: tuple[int, ...] = ends("batch_size", config.space.batch_size)
    return round((sizes[0] + sizes[-1]) / 2)
