"""Preparation of a search: corpus read, audited and split, spectrograms stored, weights checked."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from genre_core.audio.mel import FrontEnd
from genre_core.corpus import spectrogram_store
from genre_core.corpus import tracks as corpus
from genre_core.corpus.audit import audit, excluded_summary, reason_counts, warnings_summary
from genre_core.corpus.mel_parts import Transform
from genre_core.corpus.relocation import relocate_corpus
from genre_core.corpus.spectrogram_store import SpectrogramStore
from genre_core.corpus.splits import require_genres, split_corpus
from genre_core.corpus.tracks import Corpus, Track
from genre_core.errors import InputError
from genre_core.models.initial_weights import weights_identity
from genre_core.models.pretrained import check_weights
from genre_core.models.registry import find_backbone
from genre_core.system.addresses import source_of
from genre_core.system.remote_files import MISSING
from genre_core.training.segments import SegmentArrays
from search.config.schema import BUILTIN, NAMED_WEIGHTS, SearchConfig
from search.data import builtin_corpus, genre_list
from search.data.audited import audited
from search.data.front_end import front_end_of
from search.data.reporter import Reporter
from search.errors import SearchErrorCode
from search.run.commands import command
from search.run.split_record import SplitRecord, split_record

NAMED = 10
"""Excluded files that are named in the output."""


@dataclass(frozen=True, kw_only=True)
class Prepared:
    """The data that all trials share, without the tracks themselves."""

    genres: tuple[str, ...]
    fingerprint: str
    """See `Corpus.fingerprint`."""
    split: SplitRecord
    """The split as recorded in model cards."""
    spectrograms: str
    """Name of the spectrogram store."""
    train: SegmentArrays
    validation: SegmentArrays
    weights: dict[str, str]
    """Backbone -> identity of its initial weights."""


def read_data(config: SearchConfig) -> Corpus | None:
    """List the tracks of `config.data` without opening audio files; return None for the built-in corpus.

    Raises:
        InputError: the path or the segment length cannot be used, or too many files do not exist.
    """
    _segment_frames(config, front_end_of(config))
    if config.data == BUILTIN:
        return None
    found = corpus.read_corpus(config.data)
    require_genres(found)
    _require_files(found, config.data, config.max_bad_share)
    return found


def prepare(
    config: SearchConfig,
    found: Corpus | None = None,
    *,
    cache: Path,
    reporter: Reporter,
    transform: Transform | None = None,
) -> tuple[Corpus, Prepared]:
    """Prepare a corpus and the data that all trials share; results from the cache are reused.

    Args:
        config: the search's.
        found: the result of `read_data`; None reads the data.
        cache: folder for spectrograms, audits and the built-in corpus.
        reporter: shows messages and progress.
        transform: decodes files and computes spectrograms; None for threads of this process.

    Raises:
        InputError: the data, the split or the weights cannot be used.
    """
    weights = _weights(config, reporter)
    tracks, store = prepare_corpus(config, found, cache=cache, reporter=reporter, transform=transform)
    if config.training.augment_at == "input":
        reporter.say(
            "augment_at: input: frozen blocks are computed in every epoch, activations are not shared"
        )
    return tracks, _prepared(config, tracks, store, weights, reporter)


def prepare_corpus(
    config: SearchConfig,
    found: Corpus | None,
    *,
    cache: Path,
    reporter: Reporter,
    transform: Transform | None = None,
) -> tuple[Corpus, SpectrogramStore]:
    """Audit and split a corpus, and store its spectrograms; for arguments and errors, see `prepare`."""
    front_end = front_end_of(config)
    split = partial(
        split_corpus,
        validation=config.split.validation,
        test=config.split.test,
        seed=config.split.seed,
        draw_validation=config.split.draw_validation,
    )
    if found is None:
        found = corpus.read_corpus(_source(config, cache, reporter))
    for note in found.notes:
        reporter.say(note)
    tracks = audited(
        found,
        minimum_seconds=config.segment_seconds,
        cache=cache,
        reporter=reporter,
        front_end=front_end,
        transform=transform,
    )
    _check_bad_share(tracks, config.data, config.max_bad_share)
    report_genres(tracks, reporter)
    tracks = split(tracks)  # fails early if the corpus cannot be split
    store = _store(tracks, front_end, cache, reporter, transform)
    if lost := [track for track in tracks.usable if track not in store]:
        tracks = split(_without(tracks, lost))
    report_files(tracks, reporter)
    return tracks, store


def prepare_resumed(
    config: SearchConfig,
    tracks: Corpus,
    *,
    cache: Path,
    reporter: Reporter,
    transform: Transform | None = None,
) -> Prepared:
    """Prepare the data of a search that is resumed, with its own corpus and split; for `transform`, see `prepare`.

    Raises:
        InputError: files or weights have changed since the search started.
    """
    weights = verify_weights(config, reporter)
    store = reopen_store(config, tracks, cache=cache, reporter=reporter, transform=transform)
    return _prepared(config, tracks, store, weights, reporter)


def verify_weights(config: SearchConfig, reporter: Reporter) -> dict[str, str]:
    """The identity of each backbone's weights; raises InputError if they have changed since the search started."""
    weights = _weights(config, reporter)
    original = (config.provenance or {}).get("weights", weights)
    if changed := [backbone for backbone, identity in original.items() if weights.get(backbone) != identity]:
        raise InputError(
            f"the weights must be those with which the search started, but they have changed for {', '.join(changed)}; "
            "restore the earlier files, or start a new search",
            code=SearchErrorCode.WEIGHTS_CHANGED,
        )
    return weights


def reopen_store(
    config: SearchConfig,
    tracks: Corpus,
    *,
    cache: Path,
    reporter: Reporter,
    transform: Transform | None = None,
) -> SpectrogramStore:
    """Open the spectrogram store of a search's corpus; build it again if it is missing.

    Raises:
        InputError: it is missing, and files have changed or disappeared since the search started.
    """
    front_end = front_end_of(config)
    if not spectrogram_store.is_stored(tracks.usable, front_end, cache=cache):
        _source(config, cache, reporter)
        _require_unchanged(tracks, config, cache, reporter)
    store = _store(tracks, front_end, cache, reporter, transform)
    if lost := [track.track_id for track in tracks.usable if track not in store]:
        raise InputError(
            f"every track must be readable, but {len(lost)} of {len(tracks.usable)} files in {config.data} are not, "
            f"for example {lost[0]!r}; restore them, or give their new location with --data PATH",
            code=SearchErrorCode.AUDIO_UNREADABLE,
        )
    return store


def relocate(tracks: Corpus, config: SearchConfig, *, cache: Path, reporter: Reporter) -> Corpus:
    """Return a search's corpus with the paths of its files in `config.data`.

    Raises:
        InputError: tracks are missing there, or the decoded audio has changed since the search started.
    """
    with reporter.progress("Looking for audio files") as report:
        moved = relocate_corpus(tracks, _source(config, cache, reporter), cache=cache, progress=report)
    _require_unchanged(moved, config, cache, reporter)
    return moved


def _require_unchanged(tracks: Corpus, config: SearchConfig, cache: Path, reporter: Reporter) -> None:
    """Raise InputError if the decoded audio of a file has changed since the search started."""
    with reporter.progress("Checking audio files") as report:
        now = audit(
            Corpus(tracks.usable), minimum_seconds=config.segment_seconds, cache=cache, progress=report
        )
    present = {track.track_id: track for track in now.usable}
    if changed := [
        track.track_id
        for track in tracks.usable
        if not ((own := present.get(track.track_id)) and own.is_same_audio(track))
    ]:
        raise InputError(
            f"the audio must be that with which the search started, but {len(changed)} of {len(tracks.usable)} files "
            f"in {config.data} have changed or are missing, for example {changed[0]!r}; if the music has moved, give "
            "its new location with --data PATH, otherwise restore the files or start a new search",
            code=SearchErrorCode.AUDIO_CHANGED,
        )


def _store(
    tracks: Corpus,
    front_end: FrontEnd,
    cache: Path,
    reporter: Reporter,
    transform: Transform | None = None,
) -> SpectrogramStore:
    with reporter.progress("Computing spectrograms") as report:
        return spectrogram_store.open_or_build(
            tracks.usable, front_end, cache=cache, progress=report, transform=transform
        )


def _prepared(
    config: SearchConfig, tracks: Corpus, store: SpectrogramStore, weights: dict[str, str], reporter: Reporter
) -> Prepared:
    parts = ", ".join(f"{len(tracks.part(part))} {part}" for part in corpus.SPLITS)
    reporter.say(f"{len(tracks.genres)} genres, {len(tracks.usable)} tracks: {parts}")
    return Prepared(
        genres=tracks.genres,
        fingerprint=tracks.fingerprint,
        split=split_record(tracks),
        spectrograms=store.folder.name,
        train=segments(config, tracks.part("train"), tracks.genres, store),
        validation=segments(config, tracks.part("validation"), tracks.genres, store),
        weights=weights,
    )


def segments(
    config: SearchConfig, tracks: Sequence[Track], genres: Sequence[str], store: SpectrogramStore
) -> SegmentArrays:
    """The tracks' segments in the form that trials use."""
    return store.segments(
        tracks,
        genres=genres,
        segment_frames=_segment_frames(config, store.front_end),
        segments_per_track=config.segments_per_track,
    )


def _segment_frames(config: SearchConfig, front_end: FrontEnd) -> int:
    frames = front_end.frames(config.segment_seconds)
    needed = max(find_backbone(name).min_side for name in config.backbones)
    if frames < needed:
        seconds = needed / front_end.frames_per_second
        raise InputError(
            f"segment_seconds must give {needed} frames, but {config.segment_seconds} gives {frames} "
            f"with {front_end.name}; give {seconds:.2f} or more",
            code=SearchErrorCode.SEGMENT_TOO_SHORT,
        )
    return frames


def _weights(config: SearchConfig, reporter: Reporter) -> dict[str, str]:
    """Download and check the weights of every backbone; return their identities."""
    # check files first, so that a wrong path is reported before anything is downloaded
    for backbone in sorted(config.backbones, key=lambda name: config.weights_of(name) in NAMED_WEIGHTS):
        weights = config.weights_of(backbone)
        checked = check_weights(backbone, weights)
        if checked.changes:
            reporter.say(f"{backbone}: weights in {weights} are {checked.changes}")
        if missing := checked.random_blocks:
            reporter.say(
                f"{backbone}: {', '.join(missing)} keep random weights, which are missing in {weights}"
            )
    return {
        backbone: weights_identity(backbone, config.weights_of(backbone)) for backbone in config.backbones
    }


def _source(config: SearchConfig, cache: Path, reporter: Reporter) -> Path | str:
    """The path or address of the folder or manifest of the audio."""
    if config.data != BUILTIN:
        return source_of(config.data)
    return builtin_corpus.cached(config.synthetic, cache, reporter)


def _check_bad_share(tracks: Corpus, source: str, limit: float) -> None:
    bad = sum(count for kind, count in reason_counts(tracks).items() if kind != corpus.Exclusion.HIDDEN)
    share = bad / len(tracks.tracks)
    if share > limit:
        raise InputError(
            f"at most {limit:.0%} of the files may be bad (max_bad_share), but {share:.0%} are: "
            f"{excluded_summary(tracks)}; list them with: {command('data', 'check', source_of(source))}",
            code=SearchErrorCode.TOO_MANY_BAD_FILES,
        )


def _require_files(found: Corpus, source: str, limit: float) -> None:
    """Raise InputError if too many files of a manifest do not exist, before weights are downloaded."""
    missing = [track.track_id for track in found.usable if not _exists(track)]
    if len(missing) > limit * len(found.tracks):
        raise InputError(
            f"at most {limit:.0%} of the files may be bad (max_bad_share), but {len(missing)} of {len(found.tracks)} "
            f"in {source} do not exist, for example {missing[0]!r}; correct the paths, which are relative to the "
            "manifest",
            code=SearchErrorCode.TOO_MANY_BAD_FILES,
        )


def _exists(track: Track) -> bool:
    """Whether a file exists; without a request to a storage, so that only the audit finds out about unlisted files."""
    return track.version != MISSING if track.is_remote else track.path.exists()


def report_genres(tracks: Corpus, reporter: Reporter) -> None:
    """Report the genres with their tracks and groups, and warnings about them."""
    reporter.say(genre_list.summary(tracks))
    for warning in genre_list.warnings(tracks):
        reporter.say(f"warning: {warning}")


def report_files(tracks: Corpus, reporter: Reporter) -> None:
    """Name the first excluded files, and count the others and the files with warnings."""
    for track in tracks.excluded[:NAMED]:
        reporter.say(f"left out {track.track_id!r}: {track.excluded_reason}")
    if len(tracks.excluded) > NAMED:
        reporter.say(f"{excluded_summary(tracks)}; corpus.parquet lists them")
    if warnings := warnings_summary(tracks):
        reporter.say(f"{warnings}; list them with: genre-search data check")


def _without(tracks: Corpus, lost: Sequence[Track]) -> Corpus:
    """Exclude tracks that could no longer be read when the spectrograms were computed."""
    reason, names = "lost: changed or deleted after the check", {track.track_id for track in lost}
    return Corpus(
        tuple(
            replace(track, excluded_reason=reason) if track.track_id in names else track
            for track in tracks.tracks
        )
    )
