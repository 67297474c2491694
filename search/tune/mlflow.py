"""Every trial in MLflow too, where that is wanted: by Ray's own callback."""

import os

from ray import tune

from genre_core.errors import InputError

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
"""MLflow's variable. By itself it asks a server that does not answer for minutes: right within a search, not before."""


def callbacks(uri: str | None, experiment: str) -> list[tune.Callback]:
    """What tells MLflow at this address of an experiment's trials; nothing where there is no address.

    Ray's callback logs what is a number: scores and times by epoch, the recipe as parameters, but no confusion
    matrix and no F1 per genre. It calls a run FINISHED whose trial was pruned or has failed: which it was stands
    in the tables and the study.

    Raises:
        InputError: MLflow is not installed, or does not answer there.
    """
    if uri is None:
        return []
    try:
        from mlflow.exceptions import MlflowException
        from ray.air.integrations.mlflow import MLflowLoggerCallback
    except ImportError as error:
        raise InputError(
            f"mlflow needs a package that is not installed, but got mlflow={uri}; pip install genre-search[mlflow]"
        ) from error
    callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name=experiment)
    given = os.environ.get(_RETRIES)
    os.environ[_RETRIES] = given or "1"
    try:
        callback.setup()  # type: ignore[no-untyped-call]
    except (MlflowException, ImportError, OSError, ValueError) as error:
        raise InputError(
            f"mlflow must be where MLflow answers, but got mlflow={uri}: {_first_sentence(error)}"
        ) from error
    finally:
        if given is None:
            del os.environ[_RETRIES]
    return [callback]


def explained(error: BaseException | None) -> InputError | None:
    """What to tell the user of MLflow's error within a search; None of anything else."""
    if not type(error).__module__.startswith("mlflow."):
        return None
    return InputError(
        f"mlflow must answer while the search runs, but it said: {_first_sentence(error)}; "
        "mend it, then go on with: genre-search resume RUN"
    )


def _first_sentence(error: object) -> str:
    return " ".join(str(error).split()).partition(". ")[0]
