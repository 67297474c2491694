"""The corpus of an existing run, whose music may have been moved."""

from pathlib import Path

from genre_core.corpus.corpus_table import load_corpus, write_corpus
from genre_core.corpus.tracks import Corpus
from genre_core.system.addresses import absolute
from search.config.schema import SearchConfig
from search.data import prepare
from search.data.reporter import Reporter
from search.run.folder import RunFolder
from search.run.identity import set_data


def locate_music(
    config: SearchConfig, folder: Path, data: Path | str | None, *, cache: Path, reporter: Reporter
) -> tuple[SearchConfig, Corpus]:
    """Load the corpus of a run; a new location of the music is recorded in the run's folder.

    Args:
        config: configuration of the run.
        folder: folder of the run.
        data: present path or address of the music, a folder or a manifest; None if it was not moved.
        cache: folder of the spectrograms.
        reporter: displays the progress.

    Returns:
        The configuration and the corpus, both with the present location.

    Raises:
        InputError: the music at the new location differs from that of the search.
    """
    tracks = load_corpus(RunFolder(folder).corpus)
    if data is None:
        return config, tracks
    config = config.model_copy(update={"data": absolute(data)})
    tracks = prepare.relocate(tracks, config, cache=cache, reporter=reporter)
    write_corpus(tracks, RunFolder(folder).corpus)
    set_data(folder, config.data)
    return config, tracks
