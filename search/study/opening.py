"""Opens the study of a run as its configuration asks."""

import logging
from pathlib import Path

from optuna.pruners import BasePruner
from optuna.samplers import BaseSampler

from search.config.schema import SearchConfig
from search.run.folder import RunFolder
from search.run.identity import RUN_ID
from search.study.pruners import make_pruner
from search.study.samplers import make_sampler
from search.study.study import Study
from search.study.without_repeats import without_repeats


def open_study(config: SearchConfig, folder: Path, *, name: str) -> Study:
    """The study of this name in a run's journal; a new one where it has none."""
    logging.getLogger("optuna").setLevel(logging.WARNING)  # that a study is there already is no news
    opened = Study(
        RunFolder(folder).journal, name=name, sampler=sampler_of(config, asked=0), pruner=pruner_of(config)
    )
    opened.claim((config.provenance or {})[RUN_ID])
    if there := opened.asked + len(opened.known):
        opened.use(sampler_of(config, asked=there))
    return opened


def sampler_of(config: SearchConfig, *, asked: int) -> BaseSampler:
    """The sampler that a configuration asks for, for a study with so many trials."""
    sampler = make_sampler(config.sampler.name, config.sampler.parameters, seed=config.seed, asked=asked)
    return without_repeats(sampler, config, asked=asked)


def pruner_of(config: SearchConfig) -> BasePruner:
    """The pruner that a configuration asks for."""
    return make_pruner(config.pruner.name, config.pruner.parameters, epochs=config.training.epochs)
