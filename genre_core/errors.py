"""InputError, the exception for every mistake in what the user gave, and the error codes of genre_core."""

from collections.abc import Callable
from enum import StrEnum
from functools import partial
from typing import Self


class ErrorCode(StrEnum):
    """Kinds of input errors. Programs and tests should check the code, not the wording of the message."""

    # audio
    AUDIO_STORAGE_UNREACHABLE = "audio-storage-unreachable"
    UNKNOWN_FRONT_END = "unknown-front-end"
    UNKNOWN_LEVEL = "unknown-level"
    WAVEFORM_INVALID = "waveform-invalid"
    # corpus
    AUDIT_CACHE_NOT_WRITABLE = "audit-cache-not-writable"
    CORPUS_NOT_FOUND = "corpus-not-found"
    CORPUS_ADDRESS_UNREADABLE = "corpus-address-unreadable"
    CORPUS_ADDRESS_WITH_CREDENTIALS = "corpus-address-with-credentials"
    CORPUS_FOLDER_UNREADABLE = "corpus-folder-unreadable"
    CORPUS_WITHOUT_AUDIO = "corpus-without-audio"
    CORPUS_TABLE_UNREADABLE = "corpus-table-unreadable"
    CORPUS_TABLE_VERSION = "corpus-table-version"
    DUPLICATE_TRACK = "duplicate-track"
    MANIFEST_AMBIGUOUS = "manifest-ambiguous"
    MANIFEST_NOT_A_FILE = "manifest-not-a-file"
    MANIFEST_UNREADABLE = "manifest-unreadable"
    MANIFEST_QUOTING = "manifest-quoting"
    MANIFEST_EXTRA_CELLS = "manifest-extra-cells"
    MANIFEST_MISSING_COLUMN = "manifest-missing-column"
    MANIFEST_REPEATED_COLUMN = "manifest-repeated-column"
    MANIFEST_WITHOUT_ROWS = "manifest-without-rows"
    MANIFEST_EMPTY_CELL = "manifest-empty-cell"
    MANIFEST_UNKNOWN_SPLIT = "manifest-unknown-split"
    MANIFEST_WINDOWS_PATH = "manifest-windows-path"
    TRACKS_NOT_FOUND = "tracks-not-found"
    TOO_FEW_GENRES = "too-few-genres"
    TOO_FEW_GROUPS = "too-few-groups"
    SPLIT_SHARES = "split-shares"
    SPLIT_NOT_POSSIBLE = "split-not-possible"
    SPLIT_PARTLY_GIVEN = "split-partly-given"
    SPLIT_WITHOUT_VALIDATION = "split-without-validation"
    SPLIT_WITHOUT_PART = "split-without-part"
    SPLIT_WITHOUT_GENRE = "split-without-genre"
    GROUP_IN_TWO_SPLITS = "group-in-two-splits"
    # datasets
    ARCHIVE_DAMAGED = "archive-damaged"
    ARCHIVE_SPECIAL_FILE = "archive-special-file"
    ARCHIVE_TOO_LARGE = "archive-too-large"
    ARCHIVE_UNSAFE_PATH = "archive-unsafe-path"
    DOWNLOAD_FAILED = "download-failed"
    FMA_TABLE_UNREADABLE = "fma-table-unreadable"
    FOLDER_IN_USE = "folder-in-use"
    FOLDER_IS_A_FILE = "folder-is-a-file"
    FOLDER_NOT_WRITABLE = "folder-not-writable"
    INVALID_ARCHIVE_ENTRY = "invalid-archive-entry"
    MIRRORS_UNREADABLE = "mirrors-unreadable"
    MIRRORS_WITHOUT_DATA_SET = "mirrors-without-data-set"
    NO_SPACE = "no-space"
    NO_TRACKS = "no-tracks"
    SPLIT_NOT_SELECTABLE = "split-not-selectable"
    UNKNOWN_DATA_SET = "unknown-data-set"
    UNKNOWN_SPLIT = "unknown-split"
    # models
    BACKBONE_INVALID = "backbone-invalid"
    BACKBONE_NAME_TAKEN = "backbone-name-taken"
    BACKBONE_NOT_IMPORTABLE = "backbone-not-importable"
    MODEL_CARD_NOT_JSON = "model-card-not-json"
    MODEL_INCOMPLETE = "model-incomplete"
    MODEL_INCONSISTENT = "model-inconsistent"
    NOT_A_BACKBONE = "not-a-backbone"
    ONNX_NOT_INSTALLED = "onnx-not-installed"
    UNKNOWN_BACKBONE = "unknown-backbone"
    WEIGHTS_EMPTY = "weights-empty"
    WEIGHTS_NOT_A_FILE = "weights-not-a-file"
    WEIGHTS_NOT_A_STATE_DICT = "weights-not-a-state-dict"
    WEIGHTS_NOT_DOWNLOADED = "weights-not-downloaded"
    WEIGHTS_NOT_FINITE = "weights-not-finite"
    WEIGHTS_NOT_ONLY_TENSORS = "weights-not-only-tensors"
    WEIGHTS_NOT_PUBLISHED = "weights-not-published"
    WEIGHTS_OF_ANOTHER_BACKBONE = "weights-of-another-backbone"
    WEIGHTS_PARTIAL_BLOCK = "weights-partial-block"
    WEIGHTS_PARTIAL_LAYER = "weights-partial-layer"
    WEIGHTS_PLACEHOLDER = "weights-placeholder"
    WEIGHTS_UNKNOWN_NAMES = "weights-unknown-names"
    WEIGHTS_UNREADABLE = "weights-unreadable"
    WEIGHTS_WRONG_SHAPE = "weights-wrong-shape"
    # recipe
    NESTEROV_WITHOUT_MOMENTUM = "nesterov-without-momentum"
    RECIPE_OUT_OF_RANGE = "recipe-out-of-range"
    RECIPE_UNKNOWN_CHOICE = "recipe-unknown-choice"
    # synthetic
    SYNTHETIC_OUT_OF_RANGE = "synthetic-out-of-range"


class InputError(Exception):
    """A mistake in what the user gave: a setting, a path, a file or a data set.

    The message is one line: the rule, the value given and what to do.
    """

    def __init__(self, message: str, *, code: StrEnum) -> None:
        """Args: message: turned into one line. code: the kind of mistake."""
        super().__init__(one_line(message))
        self.code = code

    def __reduce__(self) -> tuple[Callable[..., Self], tuple[object, ...]]:
        """Pickling keeps the code; by default, an exception is restored from its positional arguments alone."""
        return partial(type(self), code=self.code), self.args


def one_line(text: str) -> str:
    """Join the lines of a text; spaces within a line are kept, since a name may contain two in a row."""
    return " ".join(line.strip() for line in text.splitlines() if line.strip())
