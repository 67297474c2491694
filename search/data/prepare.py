"""Everything before the first trial: the corpus read, audited and split, its mels stored, the weights checked."""

import hashlib
import json
import shutil
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Protocol

from filelock import FileLock, Timeout

from genre_core.audio import mel
from genre_core.audio.mel import FrontEnd
from genre_core.corpus import spectrogram_store
from genre_core.corpus import tracks as corpus
from genre_core.corpus.audit import audit, excluded_summary, reason_counts, warnings_summary
from genre_core.corpus.relocation import relocate_corpus
from genre_core.corpus.spectrogram_store import SpectrogramStore
from genre_core.corpus.splits import require_genres, split_corpus
from genre_core.corpus.tracks import Corpus, Track
from genre_core.errors import InputError
from genre_core.models.initial_weights import weights_identity
from genre_core.models.pretrained import check_weights
from genre_core.models.registry import MIN_IMAGE_SIDE
from genre_core.synthetic import corpus as synthetic
from genre_core.synthetic.corpus import SyntheticCorpus
from genre_core.system.atomic import PARTIAL
from genre_core.system.progress import ProgressCallback
from genre_core.training.segments import SegmentArrays
from search.config.schema import BUILTIN, NAMED_WEIGHTS, SearchConfig
from search.data import genre_list
from search.run.commands import command

NAMED = 10
"""Bad files named in a report."""


class Reporter(Protocol):
    """Shows the user messages and progress."""

    def say(self, text: str) -> None:
        """Show one line."""

    def progress(self, title: str) -> AbstractContextManager[ProgressCallback]:
        """A bar for as long as the context lasts."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """What a search's trials work on."""

    corpus: Corpus
    spectrograms: str
    """The name of their store."""
    train: SegmentArrays
    validation: SegmentArrays
    weights: dict[str, str]
    """Backbone -> what tells its weights from others."""


def read_data(config: SearchConfig) -> Corpus | None:
    """The user's music as it is listed, before any file is opened; None for the built-in corpus.

    Raises:
        InputError: the data's path or what is cut out of each track is not what a search can use.
    """
    _segment_frames(config, mel.front_end(config.front_end, level=config.level))
    if config.data == BUILTIN:
        return None
    found = corpus.read_corpus(Path(config.data))
    require_genres(found)
    return found


def prepare(
    config: SearchConfig, found: Corpus | None = None, *, cache: Path, reporter: Reporter
) -> Prepared:
    """Make ready all that trials share; what is in the cache already is found again.

    Args:
        config: the search's.
        found: what `listed` gave; None reads the music.
        cache: for spectrograms, audits and the built-in corpus.
        reporter: where to report.

    Raises:
        InputError: the data, the split or the weights are not what a search can use.
    """
    front_end = mel.front_end(config.front_end, level=config.level)
    split = partial(
        split_corpus,
        validation=config.split.validation,
        test=config.split.test,
        seed=config.split.seed,
        draw_validation=config.split.draw_validation,
    )
    weights = _weights(config, reporter)
    if found is None:
        found = corpus.read_corpus(_source(config, cache, reporter))
    for note in found.notes:
        reporter.say(note)
    with reporter.progress("Checking audio files") as report:
        tracks = audit(found, minimum_seconds=config.segment_seconds, cache=cache, progress=report)
    _refuse_bad_share(tracks, config.data, config.max_bad_share)
    report_genres(tracks, reporter)
    tracks = split(tracks)  # before anything is spent on a corpus that cannot be split
    store = _store(tracks, front_end, cache, reporter)
    if lost := [track for track in tracks.usable if track.content not in store.places]:
        tracks = split(_without(tracks, lost))
    report_files(tracks, reporter)
    if config.training.augment_at == "input":
        reporter.say("Augmentation at the input: every epoch passes the frozen blocks, nothing is shared")
    return _prepared(config, tracks, store, weights, reporter)


def prepare_resumed(config: SearchConfig, tracks: Corpus, *, cache: Path, reporter: Reporter) -> Prepared:
    """Make ready what the trials of a search that was cut off share: its corpus, in its split, and its weights.

    Raises:
        InputError: files or weights are no longer what the search began with.
    """
    weights = verify_weights(config, reporter)
    return _prepared(
        config, tracks, reopen_store(config, tracks, cache=cache, reporter=reporter), weights, reporter
    )


def verify_weights(config: SearchConfig, reporter: Reporter) -> dict[str, str]:
    """What tells every backbone's weights from others; InputError where they are not what the search began with."""
    weights = _weights(config, reporter)
    began = (config.provenance or {}).get("weights", weights)
    if changed := [backbone for backbone, identity in began.items() if weights.get(backbone) != identity]:
        raise InputError(
            f"weights must be those that the search began with, but those of {', '.join(changed)} have changed; "
            "put the earlier files back, or begin a new search"
        )
    return weights


def reopen_store(
    config: SearchConfig, tracks: Corpus, *, cache: Path, reporter: Reporter
) -> SpectrogramStore:
    """The mels of a search's corpus; InputError where they are gone and the files not what the search began with."""
    front_end = mel.front_end(config.front_end, level=config.level)
    if not spectrogram_store.is_stored(tracks.usable, front_end, cache=cache):
        _source(config, cache, reporter)
        _require_unchanged(tracks, config, cache, reporter)
    store = _store(tracks, front_end, cache, reporter)
    if lost := [track.track_id for track in tracks.usable if track.content not in store.places]:
        raise InputError(
            f"every track needs its spectrogram, but {len(lost)} of {len(tracks.usable)} files in {config.data} can "
            f"no longer be read, {lost[0]!r} among them; put them back, or give --data PATH where they are now"
        )
    return store


def relocate(tracks: Corpus, config: SearchConfig, *, cache: Path, reporter: Reporter) -> Corpus:
    """A search's corpus at the paths where `config.data` has it now.

    Raises:
        InputError: tracks are missing there, or files do not decode to what they did when the search began.
    """
    with reporter.progress("Looking for audio files") as report:
        moved = relocate_corpus(tracks, _source(config, cache, reporter), cache=cache, progress=report)
    _require_unchanged(moved, config, cache, reporter)
    return moved


def _require_unchanged(tracks: Corpus, config: SearchConfig, cache: Path, reporter: Reporter) -> None:
    """Raise InputError where a file does not decode to what it did when the search began."""
    with reporter.progress("Checking audio files") as report:
        now = audit(
            Corpus(tracks.usable), minimum_seconds=config.segment_seconds, cache=cache, progress=report
        )
    content = {track.track_id: track.content for track in now.usable}
    if changed := [t.track_id for t in tracks.usable if content.get(t.track_id) != t.content]:
        raise InputError(
            f"the audio must be what the search began with, but {len(changed)} of {len(tracks.usable)} files in "
            f"{config.data} have changed or are gone, {changed[0]!r} among them; if the music has moved, give "
            "--data PATH, otherwise put the files back or start a new search"
        )


def _store(tracks: Corpus, front_end: FrontEnd, cache: Path, reporter: Reporter) -> SpectrogramStore:
    with reporter.progress("Computing spectrograms") as report:
        return spectrogram_store.open_or_build(tracks.usable, front_end, cache=cache, progress=report)


def _prepared(
    config: SearchConfig, tracks: Corpus, store: SpectrogramStore, weights: dict[str, str], reporter: Reporter
) -> Prepared:
    parts = ", ".join(f"{len(tracks.part(part))} {part}" for part in corpus.SPLITS)
    reporter.say(f"{len(tracks.genres)} genres, {len(tracks.usable)} tracks: {parts}")
    return Prepared(
        corpus=tracks,
        spectrograms=store.folder.name,
        train=segments(config, tracks.part("train"), tracks.genres, store),
        validation=segments(config, tracks.part("validation"), tracks.genres, store),
        weights=weights,
    )


def segments(
    config: SearchConfig, tracks: Sequence[Track], genres: Sequence[str], store: SpectrogramStore
) -> SegmentArrays:
    """The tracks' segments, as a search's trials see them."""
    return store.segments(
        tracks,
        genres=genres,
        segment_frames=_segment_frames(config, store.front_end),
        segments_per_track=config.segments_per_track,
    )


def _segment_frames(config: SearchConfig, front_end: FrontEnd) -> int:
    frames = front_end.frames(config.segment_seconds)
    needed = MIN_IMAGE_SIDE if "alexnet" in config.backbones else 32
    if frames < needed:
        seconds = needed / front_end.frames_per_second
        raise InputError(
            f"segment_seconds must give {needed} frames, but {config.segment_seconds} gives {frames} "
            f"with {front_end.name}; give {seconds:.2f} or more"
        )
    return frames


def _weights(config: SearchConfig, reporter: Reporter) -> dict[str, str]:
    """Fetch and check every backbone's weights; what tells them from others."""
    # a file's typo is found before other networks' weights are downloaded
    for backbone in sorted(config.backbones, key=lambda name: config.weights_of(name) in NAMED_WEIGHTS):
        weights = config.weights_of(backbone)
        checked = check_weights(backbone, weights)
        if checked.changes:
            reporter.say(f"{backbone}: weights in {weights} are {checked.changes}")
        if missing := checked.random_blocks:
            reporter.say(f"{backbone}: {', '.join(missing)} stay random: {weights} does not have them")
    return {
        backbone: weights_identity(backbone, config.weights_of(backbone)) for backbone in config.backbones
    }


def _source(config: SearchConfig, cache: Path, reporter: Reporter) -> Path:
    """Where the audio is; the built-in corpus is generated where it is not there yet."""
    if config.data != BUILTIN:
        return Path(config.data)
    spec = config.synthetic
    key = hashlib.sha256(json.dumps(asdict(spec), sort_keys=True).encode()).hexdigest()[:16]
    folder = cache / "synthetic" / key
    if not (folder / corpus.MANIFEST_NAMES[0]).exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        with _one_at_a_time(folder.with_suffix(".lock"), "the built-in corpus", reporter):
            _generate(spec, folder, reporter)
    return folder


@contextmanager
def _one_at_a_time(lock: Path, what: str, reporter: Reporter) -> Iterator[None]:
    """Be the only process that makes something, when the one that does so now is done."""
    only = FileLock(lock)
    try:
        only.acquire(timeout=0)
    except Timeout:
        reporter.say(f"Waiting for another process, which makes {what}")
        only.acquire()
    try:
        yield
    finally:
        only.release()


def _generate(spec: SyntheticCorpus, folder: Path, reporter: Reporter) -> None:
    """Write the built-in corpus, unless it has been written in the meantime; it appears whole or not at all."""
    if (folder / corpus.MANIFEST_NAMES[0]).exists():
        return
    partial = folder.with_suffix(PARTIAL)
    for left in (partial, folder):  # by a process that was killed
        shutil.rmtree(left, ignore_errors=True)
    with reporter.progress("Generating the built-in corpus") as report:
        synthetic.write(spec, partial, report)
    partial.replace(folder)


def _refuse_bad_share(tracks: Corpus, source: str, limit: float) -> None:
    bad = sum(count for kind, count in reason_counts(tracks).items() if kind != corpus.HIDDEN)
    share = bad / len(tracks.tracks)
    if share > limit:
        raise InputError(
            f"at most {limit:.0%} of the files may be bad (max_bad_share), but {share:.0%} are: "
            f"{excluded_summary(tracks)}; see them with: {command('data', 'check', Path(source))}"
        )


def report_genres(tracks: Corpus, reporter: Reporter) -> None:
    """List the genres with their tracks and groups, and what looks wrong in them."""
    reporter.say(genre_list.summary(tracks))
    for doubt in genre_list.warnings(tracks):
        reporter.say(f"warning: {doubt}")


def report_files(tracks: Corpus, reporter: Reporter) -> None:
    """Name the first few files that are left out, count the rest, which corpus.parquet names, and the doubtful."""
    for track in tracks.excluded[:NAMED]:
        reporter.say(f"left out {track.track_id!r}: {track.excluded_reason}")
    if len(tracks.excluded) > NAMED:
        reporter.say(f"{excluded_summary(tracks)}; corpus.parquet names them")
    if warnings := warnings_summary(tracks):
        reporter.say(f"{warnings}; see them with: genre-search data check")


def _without(tracks: Corpus, lost: Sequence[Track]) -> Corpus:
    """Exclude what could no longer be read when the spectrograms were computed."""
    reason = "lost: changed or vanished after it was checked"
    return Corpus(
        tuple(replace(track, excluded_reason=reason) if track in lost else track for track in tracks.tracks)
    )
