"""The codes of all kinds of mistakes that search raises as InputError."""

from enum import StrEnum


class SearchErrorCode(StrEnum):
    """Kinds of mistakes, for programs and tests: they depend on the code, not on the wording."""

    # cli
    OPTION_REPEATED = "option-repeated"
    SETTING_REPEATED = "setting-repeated"
    FOLDER_NOT_EMPTY = "folder-not-empty"
    # cluster_lint
    # config
    # data
    AUDIO_CHANGED = "audio-changed"
    AUDIO_UNREADABLE = "audio-unreadable"
    SEGMENT_TOO_SHORT = "segment-too-short"
    TOO_MANY_BAD_FILES = "too-many-bad-files"
    WEIGHTS_CHANGED = "weights-changed"
    # evaluate
    # export
    EXPORT_FOLDER_NOT_EMPTY = "export-folder-not-empty"
    NO_KEPT_MODEL = "no-kept-model"
    NO_KEPT_MODEL_OF_TRIAL = "no-kept-model-of-trial"
    # recovery
    # report
    NO_SCORED_TRIAL = "no-scored-trial"
    # run
    RUN_IS_DRIVEN = "run-is-driven"
    STORAGE_UNUSABLE = "storage-unusable"
    STORAGE_HOLDS_ANOTHER_RUN = "storage-holds-another-run"
    STORAGE_WITHOUT_RUN = "storage-without-run"
    STORAGE_DOWNLOAD_FAILED = "storage-download-failed"
    RESTORE_TARGET_EXISTS = "restore-target-exists"
    UNKNOWN_COLUMN = "unknown-column"
    UNKNOWN_STATE = "unknown-state"
    # study
    # tune
