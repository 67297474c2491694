"""The audit of a corpus with a progress bar."""

from collections.abc import Iterable, Mapping
from pathlib import Path

from genre_core.audio.mel import FrontEnd
from genre_core.corpus.audit import Finding, audit
from genre_core.corpus.mel_parts import Transform, in_threads
from genre_core.corpus.spectrogram_store import mel_parts
from genre_core.corpus.tracks import Corpus
from genre_core.system.remote_files import FileVersion
from search.data.reporter import Reporter


def audited(
    found: Corpus,
    *,
    minimum_seconds: float,
    cache: Path,
    reporter: Reporter,
    front_end: FrontEnd | None = None,
    transform: Transform | None = None,
) -> Corpus:
    """Audit the files of a corpus; see `genre_core.corpus.audit.audit`.

    Args:
        found: the corpus.
        minimum_seconds: length below which a file is excluded.
        cache: folder for the findings.
        reporter: shows progress.
        front_end: of the spectrograms to compute while a file is decoded; None for no spectrograms.
        transform: decodes files and computes spectrograms; None for threads of this process.
    """

    def examine(versions: Mapping[str, FileVersion]) -> Iterable[tuple[str, Finding]]:
        assert front_end
        if not versions:
            return ()
        parts = mel_parts(front_end, cache)
        return parts.examine(versions, transform or in_threads, minimum_seconds=minimum_seconds)

    title = "Checking audio files" if front_end is None else "Checking audio files, computing spectrograms"
    with reporter.progress(title) as report:
        return audit(
            found,
            minimum_seconds=minimum_seconds,
            cache=cache,
            progress=report,
            examine=None if front_end is None else examine,
        )
