"""Syne Tune with its local backend, which starts a script per trial; ASHA if pruning is on."""

import argparse
import json
import logging
import sys
from pathlib import Path
from typing import Any

from syne_tune import Reporter, StoppingCriterion, Tuner
from syne_tune.backend import LocalBackend
from syne_tune.config_space import choice, loguniform, uniform
from syne_tune.optimizer.baselines import ASHA, RandomSearch
from tutorial import Task, trial


def train(arguments: argparse.Namespace) -> None:
    """Run one trial in a process of the backend; the freeze depth is given as a fraction of the backbone's blocks."""
    task: Task = json.loads(Path(arguments.task).read_text())
    configuration = {
        "backbone": arguments.backbone,
        "frozen_blocks": round(arguments.frozen_share * task["n_blocks"][arguments.backbone]),
        "learning_rate": arguments.learning_rate,
        "momentum": arguments.momentum,
    }
    report = Reporter()
    trial(configuration, task, lambda epoch, f1: report(epoch=epoch, f1=f1))


def main(path: Path) -> None:
    """Run the task's configurations, or search until its target."""
    logging.getLogger().setLevel(logging.ERROR)
    task: Task = json.loads(path.read_text())
    space: dict[str, Any] = {
        "task": str(path.absolute()),
        "backbone": choice(list(task["n_blocks"])),
        "frozen_share": uniform(0, 1),
        "learning_rate": loguniform(*task["learning_rate"]),
        "momentum": uniform(*task["momentum"]),
    }
    points = [
        {k: v for k, v in c.items() if k != "frozen_blocks"}
        | {"frozen_share": c["frozen_blocks"] / task["n_blocks"][c["backbone"]]}
        for c in task["configurations"]
    ]
    scheduler = (
        RandomSearch(
            space, metrics=["f1"], do_minimize=False, random_seed=task["seed"], points_to_evaluate=points
        )
        if task["target"] is None
        else ASHA(
            space,
            metric="f1",
            do_minimize=False,
            time_attr="epoch",
            max_t=task["epochs"],
            grace_period=2,
            random_seed=task["seed"],
        )
    )
    Tuner(
        trial_backend=LocalBackend(entry_point=__file__),
        scheduler=scheduler,
        stop_criterion=StoppingCriterion(max_num_trials_finished=task["trials"]),
        n_workers=task["workers"],
        sleep_time=0.2,
        save_tuner=False,
        suffix_tuner_name=True,
        tuner_name="benchmark",
    ).run()


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--task")
    parser.add_argument("--backbone")
    parser.add_argument("--frozen_share", type=float)
    parser.add_argument("--learning_rate", type=float)
    parser.add_argument("--momentum", type=float)
    arguments, _ = parser.parse_known_args()
    if arguments.backbone:
        train(arguments)
    else:
        main(Path(sys.argv[1]))
