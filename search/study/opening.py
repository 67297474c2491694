"""Opens the study of a run with the sampler, the pruner and the enqueued trials of its configuration."""

import logging
from pathlib import Path

from optuna.pruners import BasePruner, NopPruner
from optuna.samplers import BaseSampler, RandomSampler

from search.config.enqueued import optuna_parameters
from search.config.schema import SearchConfig
from search.config.space import is_conditional
from search.cost_aware.policy import FreezeThaw
from search.cost_aware.pruner import CostAwarePruner
from search.cost_aware.sampler import CostAwareSampler
from search.run.folder import RunFolder
from search.run.identity import RUN_ID
from search.study.optuna_internals import fixed_parameters
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import Study
from search.study.without_repeats import without_repeats


def open_study(config: SearchConfig, folder: Path, *, name: str) -> Study:
    """Open the study of this name in a run's journal, or create it.

    A cost-aware search cannot choose before it knows what trials cost: see `use_policy`.

    Args:
        config: the configuration of the run, with its provenance.
        folder: the folder of the run.
        name: the name of the study.
    """
    logging.getLogger("optuna").setLevel(logging.WARNING)  # Optuna reports each study that exists already
    opened = Study(
        RunFolder(folder).journal, name=name, sampler=sampler_of(config, asked=0), pruner=pruner_of(config)
    )
    opened.claim((config.provenance or {})[RUN_ID])
    enqueue(opened, config)
    if stored := opened.asked + len(opened.known):
        opened.use(sampler_of(config, asked=stored))
    return opened


def enqueue(study: Study, config: SearchConfig) -> None:
    """Enqueue the configurations that the study does not have yet: none, if an earlier driver has done so."""
    known = study.enqueued
    for entry in config.enqueue:
        if entry.given in known:
            known.remove(entry.given)
        else:
            study.enqueue(optuna_parameters(entry, config.space), entry.given)


def sampler_of(config: SearchConfig, *, asked: int) -> BaseSampler:
    """The sampler of a configuration, which does not repeat configurations of a finite space.

    That of a cost-aware search only completes a trial that was being sampled when the driver died.

    Args:
        config: the configuration of the search.
        asked: number of trials that the study already has; see `make_sampler`.
    """
    if config.sampler is None:
        return without_repeats(RandomSampler(seed=config.seed), config, asked=asked)
    sampler = make_sampler(
        config.sampler.name,
        config.sampler.parameters,
        seed=config.seed,
        asked=asked,
        conditional=is_conditional(config.space),
    )
    return without_repeats(sampler, config, asked=asked)


def pruner_of(config: SearchConfig) -> BasePruner:
    """The pruner of a configuration; that of a cost-aware search wants no trial to end."""
    if config.pruner is None:
        return NopPruner()
    return make_pruner(config.pruner.name, config.pruner.parameters, epochs=config.training.epochs)


def use_policy(study: Study, policy: FreezeThaw, config: SearchConfig) -> None:
    """Let a policy sample the trials of a study and decide when they pause.

    Args:
        study: the study of a cost-aware search.
        policy: the policy.
        config: the configuration of the search.
    """
    asked = study.asked + len(study.known)
    sampler = without_repeats(
        CostAwareSampler(policy, seed=config.seed, fixed=fixed_parameters), config, asked=asked
    )
    study.use(sampler, CostAwarePruner(policy))
