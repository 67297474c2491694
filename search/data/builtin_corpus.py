"""The built-in corpus in the cache, generated when it is first used."""

import hashlib
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path

from filelock import FileLock, Timeout

from genre_core.corpus.tracks import MANIFEST_NAMES
from genre_core.synthetic import corpus
from genre_core.synthetic.corpus import SyntheticCorpus
from genre_core.system.atomic import PARTIAL
from search.data.reporter import Reporter


def cached(spec: SyntheticCorpus, cache: Path, reporter: Reporter) -> Path:
    """Return the folder of the corpus; generate it if it is not in the cache."""
    key = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / "synthetic" / key
    if not _is_complete(folder):
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _lock(folder.with_suffix(".lock"), reporter):
            if not _is_complete(folder):  # another process may have generated it in the meantime
                _generate(spec, folder, reporter)
    return folder


def _is_complete(folder: Path) -> bool:
    return (folder / MANIFEST_NAMES[0]).exists()


@contextmanager
def _lock(path: Path, reporter: Reporter) -> Iterator[None]:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        reporter.say("Waiting for another process that generates the built-in corpus")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def _generate(spec: SyntheticCorpus, folder: Path, reporter: Reporter) -> None:
    """Write the corpus atomically."""
    partial = folder.with_suffix(PARTIAL)
    for left in (partial, folder):  # by a killed process
        shutil.rmtree(left, ignore_errors=True)
    with reporter.progress("Generating the built-in corpus") as report:
        corpus.write(spec, partial, report)
    partial.replace(folder)
