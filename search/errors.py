"""Error codes of the InputErrors that search raises, and an error that several commands share."""

from enum import StrEnum
from pathlib import Path

from genre_core.errors import InputError


class SearchErrorCode(StrEnum):
    """Kinds of input errors. Programs and tests should check the code, not the wording of the message."""

    # cli
    OPTION_REPEATED = "option-repeated"
    SETTING_REPEATED = "setting-repeated"
    OPTIONS_EXCLUSIVE = "options-exclusive"
    SETTING_NOT_REPLAYED = "setting-not-replayed"
    FOLDER_NOT_EMPTY = "folder-not-empty"
    FOLDER_NOT_LOCAL = "folder-not-local"
    FILE_EXISTS = "file-exists"
    FILE_NOT_WRITABLE = "file-not-writable"
    # cluster_lint
    CLUSTER_FILE_UNREADABLE = "cluster-file-unreadable"
    # config
    CONFIG_UNREADABLE = "config-unreadable"
    CONFIG_NOT_YAML = "config-not-yaml"
    OVERRIDE_NOT_KEY_VALUE = "override-not-key-value"
    VALUE_NOT_YAML = "value-not-yaml"
    SETTING_UNKNOWN = "setting-unknown"
    SETTING_INVALID = "setting-invalid"
    RANGE_INVALID = "range-invalid"
    PATH_INVALID = "path-invalid"
    ADDRESS_WITH_CREDENTIALS = "address-with-credentials"
    REPEAT_SEEDS_OF_INFINITE_SPACE = "repeat-seeds-of-infinite-space"
    GRID_OF_INFINITE_SPACE = "grid-of-infinite-space"
    SAMPLER_OR_PRUNER_NOT_USED = "sampler-or-pruner-not-used"
    ENQUEUED_OUTSIDE_SPACE = "enqueued-outside-space"
    ENQUEUED_TWICE = "enqueued-twice"
    NESTEROV_WITHOUT_SGD = "nesterov-without-sgd"
    FRONT_ENDS_DIFFER = "front-ends-differ"
    FRONT_END_OF_BACKBONE = "front-end-of-backbone"
    # data
    FRONT_END_DOES_NOT_FIT = "front-end-does-not-fit"
    AUDIO_CHANGED = "audio-changed"
    AUDIO_UNREADABLE = "audio-unreadable"
    CACHE_IN_USE = "cache-in-use"
    NO_USABLE_TRACK = "no-usable-track"
    SEGMENT_TOO_SHORT = "segment-too-short"
    TOO_MANY_BAD_FILES = "too-many-bad-files"
    WEIGHTS_CHANGED = "weights-changed"
    # engine
    NOTHING_RECORDED = "nothing-recorded"
    RUNS_NOT_COMPARABLE = "runs-not-comparable"
    # evaluate
    NO_TEST_SET = "no-test-set"
    FINISHED_DIFFERENTLY = "finished-differently"
    # export
    EXPORT_FOLDER_NOT_EMPTY = "export-folder-not-empty"
    MODEL_NOT_FOUND = "model-not-found"
    NO_KEPT_MODEL = "no-kept-model"
    NO_KEPT_MODEL_OF_TRIAL = "no-kept-model-of-trial"
    # recovery
    STUDY_NOT_REBUILDABLE = "study-not-rebuildable"
    TEST_SET_USED = "test-set-used"
    # report
    NO_SCORED_TRIAL = "no-scored-trial"
    # run
    RUN_EXISTS = "run-exists"
    RUN_NOT_FOUND = "run-not-found"
    RUN_WITHOUT_CONFIG = "run-without-config"
    TABLE_DAMAGED = "table-damaged"
    RUN_FOLDER_NOT_CREATABLE = "run-folder-not-creatable"
    RUN_IS_DRIVEN = "run-is-driven"
    STORAGE_UNUSABLE = "storage-unusable"
    STORAGE_HOLDS_ANOTHER_RUN = "storage-holds-another-run"
    STORAGE_WITHOUT_RUN = "storage-without-run"
    STORAGE_DOWNLOAD_FAILED = "storage-download-failed"
    RESTORE_TARGET_EXISTS = "restore-target-exists"
    UNKNOWN_BACKBONE_OF_RUN = "unknown-backbone-of-run"
    UNKNOWN_COLUMN = "unknown-column"
    UNKNOWN_STATE = "unknown-state"
    # study
    SAMPLER_OR_PRUNER_UNKNOWN = "sampler-or-pruner-unknown"
    PRUNER_REMOVED = "pruner-removed"
    PARAMETER_UNKNOWN = "parameter-unknown"
    PARAMETER_INVALID = "parameter-invalid"
    SAMPLER_NOT_INSTALLED = "sampler-not-installed"
    JOURNAL_DAMAGED = "journal-damaged"
    WARM_START_NOT_STARTED = "warm-start-not-started"
    WARM_START_NOT_COMPARABLE = "warm-start-not-comparable"
    # tune
    CLUSTER_UNREACHABLE = "cluster-unreachable"
    DATA_CACHE_TOO_SMALL = "data-cache-too-small"
    DECODER_DIED = "decoder-died"
    CPUS_PER_TRIAL_TOO_MANY = "cpus-per-trial-too-many"
    MLFLOW_FAILED = "mlflow-failed"
    MLFLOW_NOT_INSTALLED = "mlflow-not-installed"
    MLFLOW_UNREACHABLE = "mlflow-unreachable"
    TMPDIR_PATH_TOO_LONG = "tmpdir-path-too-long"
    TMPDIR_UNUSABLE = "tmpdir-unusable"
    TRIALS_PER_GPU_INVALID = "trials-per-gpu-invalid"


def not_writable(option: str, path: Path, error: OSError) -> InputError:
    """The mistake of naming, with a command's option, a file that cannot be written."""
    return InputError(
        f"{option} must be a writable file, but got {path}: {error.strerror}; choose another file",
        code=SearchErrorCode.FILE_NOT_WRITABLE,
    )
