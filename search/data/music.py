"""The music of an existing run, also where it has moved."""

from pathlib import Path

from genre_core.corpus.tracks import Corpus, load_corpus, write_corpus
from search.config.schema import SearchConfig
from search.data import prepare
from search.data.reporter import Reporter
from search.run.folder import RunFolder
from search.run.identity import set_data


def its_music(
    config: SearchConfig, folder: Path, data: Path | None, *, cache: Path, reporter: Reporter
) -> tuple[SearchConfig, Corpus]:
    """A run's corpus; where its music has moved, at its new place, which the run's folder then names.

    Args:
        config: the run's own.
        folder: the run's.
        data: where the music is now, a folder or a manifest; None where it has not moved.
        cache: see `run`.
        reporter: see `run`.

    Raises:
        InputError: the music there is not what the search began with.
    """
    tracks = load_corpus(RunFolder(folder).corpus)
    if data is None:
        return config, tracks
    config = config.model_copy(update={"data": str(data.expanduser().resolve())})
    tracks = prepare.relocate(tracks, config, cache=cache, reporter=reporter)
    write_corpus(tracks, RunFolder(folder).corpus)
    set_data(folder, config.data)
    return config, tracks
