"""Optuna alone: a study in a journal, shared by as many processes as workers."""

import json
import multiprocessing
import sys
from pathlib import Path

import optuna
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from tutorial import Task, trial


def work(task: Task) -> None:
    """Run trials in one process until the study has enough."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)

    def objective(optuna_trial: optuna.Trial) -> float:
        backbone = optuna_trial.suggest_categorical("backbone", list(task["n_blocks"]))
        configuration = {
            "backbone": backbone,
            "frozen_blocks": optuna_trial.suggest_int(
                f"frozen_blocks_{backbone}", 0, task["n_blocks"][backbone]
            ),
            "learning_rate": optuna_trial.suggest_float("learning_rate", *task["learning_rate"], log=True),
            "momentum": optuna_trial.suggest_float("momentum", *task["momentum"]),
        }
        best = 0.0

        def report(epoch: int, f1: float) -> None:
            nonlocal best
            best = max(best, f1)
            optuna_trial.report(f1, epoch)
            if optuna_trial.should_prune():
                raise optuna.TrialPruned

        trial(configuration, task, report)
        return best

    states = (optuna.trial.TrialState.COMPLETE, optuna.trial.TrialState.PRUNED)
    _study(task).optimize(
        objective, callbacks=[optuna.study.MaxTrialsCallback(task["trials"] - task["workers"] + 1, states)]
    )


def _study(task: Task) -> optuna.Study:
    storage = JournalStorage(JournalFileBackend(str(Path(task["scratch"]) / "study.journal")))
    pruner = (
        optuna.pruners.NopPruner()
        if task["target"] is None
        else optuna.pruners.MedianPruner(n_startup_trials=4, n_warmup_steps=2)
    )
    return optuna.create_study(
        storage=storage, study_name="s", direction="maximize", pruner=pruner, load_if_exists=True
    )


def main(task: Task) -> None:
    """Queue the task's configurations and start the processes."""
    Path(task["scratch"]).mkdir(parents=True, exist_ok=True)
    study = _study(task)
    for configuration in task["configurations"]:
        depth = configuration["frozen_blocks"]
        own = {f"frozen_blocks_{configuration['backbone']}": depth}
        study.enqueue_trial({k: v for k, v in configuration.items() if k != "frozen_blocks"} | own)
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=work, args=(task,)) for _ in range(task["workers"])]
    for process in processes:
        process.start()
    for process in processes:
        process.join()


if __name__ == "__main__":
    main(json.loads(Path(sys.argv[1]).read_text()))
