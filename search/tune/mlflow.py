"""Optional logging of trials to MLflow, by Ray's callback."""

import os

from ray import tune

from genre_core.errors import InputError
from search.errors import SearchErrorCode

_RETRIES = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
"""An environment variable of MLflow, which by default retries for minutes: right during a search, not before."""


def callbacks(uri: str | None, experiment: str) -> list[tune.Callback]:
    """Callbacks that log the trials to an MLflow experiment; none if `uri` is None.

    Ray's callback logs numbers only: the scores and times of every epoch, and the recipe as parameters, but neither
    the confusion matrix nor F1 by genre. It marks pruned and failed trials as FINISHED as well; the tables and the
    study have the true state.

    Raises:
        InputError: MLflow is not installed, or cannot be reached at `uri`.
    """
    if uri is None:
        return []
    try:
        from mlflow.exceptions import MlflowException
        from ray.air.integrations.mlflow import MLflowLoggerCallback
    except ImportError as error:
        raise InputError(
            f"mlflow must be unset unless MLflow is installed, but got mlflow={uri}; pip install genre-search[mlflow]",
            code=SearchErrorCode.MLFLOW_NOT_INSTALLED,
        ) from error
    callback = MLflowLoggerCallback(tracking_uri=uri, experiment_name=experiment)
    given = os.environ.get(_RETRIES)
    os.environ[_RETRIES] = given or "1"
    try:
        callback.setup()  # type: ignore[no-untyped-call]
    except (MlflowException, ImportError, OSError, ValueError) as error:
        raise InputError(
            f"mlflow must be the address of an MLflow server or store, but got mlflow={uri}: {_first_sentence(error)}",
            code=SearchErrorCode.MLFLOW_UNREACHABLE,
        ) from error
    finally:
        if given is None:
            del os.environ[_RETRIES]
    return [callback]


def as_input_error(error: BaseException | None) -> InputError | None:
    """The InputError for an error that MLflow raised during a search; None for other errors."""
    if not type(error).__module__.startswith("mlflow."):
        return None
    return InputError(
        f"MLflow must be available during the search, but it failed: {_first_sentence(error)}; "
        "fix it, then continue with `genre-search resume RUN`",
        code=SearchErrorCode.MLFLOW_FAILED,
    )


def _first_sentence(error: object) -> str:
    return " ".join(str(error).split()).partition(". ")[0]
