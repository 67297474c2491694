"""Ray Tune as in its PyTorch tutorial: a function trainable, OptunaSearch, and ASHA if pruning is on."""

import json
import sys
from functools import partial
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from tutorial import Task, trial


def train(config: dict[str, Any], task: Task) -> None:
    """The trainable, which Tune runs in a process per trial."""
    trial(config, task, lambda epoch, f1: tune.report({"f1": f1, "epoch": epoch}))


def define(task: Task, trial: Any) -> None:
    """The define-by-run search space: the range of the freeze depth depends on the backbone."""
    backbone = trial.suggest_categorical("backbone", list(task["n_blocks"]))
    trial.suggest_int("frozen_blocks", 0, task["n_blocks"][backbone])
    trial.suggest_float("learning_rate", *task["learning_rate"], log=True)
    trial.suggest_float("momentum", *task["momentum"])


def main(task: Task) -> None:
    """Run the task's configurations, or search until its target."""
    ray.init("local", num_cpus=task["workers"], include_dashboard=False, log_to_driver=False)
    pruning = task["target"] is not None
    search = OptunaSearch(
        space=partial(define, task),
        metric="f1",
        mode="max",
        points_to_evaluate=task["configurations"] or None,
        seed=task["seed"],
    )
    tuner = tune.Tuner(
        tune.with_resources(tune.with_parameters(train, task=task), {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=search,
            metric=None if pruning else "f1",
            mode=None if pruning else "max",
            scheduler=ASHAScheduler("epoch", metric="f1", mode="max", max_t=task["epochs"], grace_period=2)
            if pruning
            else None,
            num_samples=task["trials"],
            max_concurrent_trials=task["workers"],
        ),
        run_config=tune.RunConfig(
            storage_path=task["scratch"], verbose=0, stop={"f1": 2.0} if not pruning else None
        ),
    )
    tuner.fit()
    ray.shutdown()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
