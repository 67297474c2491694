"""Opens the study of a run with the sampler and the pruner of its configuration."""

import logging
from pathlib import Path

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from search.config.schema import SearchConfig
from search.config.space import is_conditional
from search.run.folder import RunFolder
from search.run.identity import RUN_ID
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import Study
from search.study.without_repeats import without_repeats


def open_study(config: SearchConfig, folder: Path, *, name: str) -> Study:
    """Open the study of this name in a run's journal, or create it.

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
    if stored := opened.asked + len(opened.known):
        opened.use(sampler_of(config, asked=stored))
    return opened


def sampler_of(config: SearchConfig, *, asked: int) -> BaseSampler:
    """The sampler of a configuration, which does not repeat configurations of a finite space.

    Args:
        config: the configuration of the search.
        asked: number of trials that the study already has; see `make_sampler`.
    """
    sampler = make_sampler(
        config.sampler.name,
        config.sampler.parameters,
        seed=config.seed,
        asked=asked,
        conditional=is_conditional(config.space),
    )
    return without_repeats(sampler, config, asked=asked)


def pruner_of(config: SearchConfig) -> BasePruner:
    """The pruner of a configuration."""
    return make_pruner(config.pruner.name, config.pruner.parameters, epochs=config.training.epochs)
