"""The audit of a corpus with a progress bar."""

from pathlib import Path

from genre_core.corpus.audit import audit
from genre_core.corpus.tracks import Corpus
from search.data.reporter import Reporter


def audited(found: Corpus, *, minimum_seconds: float, cache: Path, reporter: Reporter) -> Corpus:
    """Audit the files of a corpus; see `genre_core.corpus.audit.audit`."""
    with reporter.progress("Checking audio files") as report:
        return audit(found, minimum_seconds=minimum_seconds, cache=cache, progress=report)
