"""The tracks of an unpacked FMA subset, with artists, top genres and the official split."""

from pathlib import Path

import pandas as pd

from genre_core.corpus.tracks import Track
from genre_core.errors import ErrorCode, InputError

METADATA = Path("fma_metadata/tracks.csv")
"""The table of all tracks, in the data set's folder."""
SUBSETS = ("small", "medium", "large")
"""Each contains the ones before it."""
SILENT = (99134, 108925, 133297)
"""Ids of tracks whose MP3 files contain no audio."""
SIDES = {"training": "train", "validation": "validation", "test": "test"}

_COLUMNS = {
    "artist": ("artist", "id"),
    "split": ("set", "split"),
    "subset": ("set", "subset"),
    "genre": ("track", "genre_top"),
}


def tracks(folder: Path, subset: str) -> tuple[tuple[Track, ...], list[str]]:
    """List the tracks of a subset in `folder`/fma_SUBSET, grouped by artist.

    Args:
        folder: has the metadata and the subset's audio.
        subset: one of SUBSETS.

    Returns:
        The tracks, and a message that counts the skipped ones, if any.

    Raises:
        InputError: the metadata is not FMA's table of tracks, or the folder has no audio of the subset.
    """
    table = _read(folder / METADATA)
    wanted = table[table["subset"].isin(SUBSETS[: SUBSETS.index(subset) + 1])]
    silent = wanted.index.isin(SILENT)
    unlabelled = (wanted["genre"] == "") | ~wanted["split"].isin(SIDES)
    listed = []
    usable = wanted[~silent & ~unlabelled]
    for number, *cells in zip(
        usable.index.tolist(), *(usable[name].tolist() for name in _COLUMNS), strict=True
    ):
        artist, split, _, genre = cells
        place = f"fma_{subset}/{number // 1000:03}/{number:06}.mp3"
        if (path := folder / place).is_file():
            listed.append(
                Track(
                    track_id=place,
                    location=str(path),
                    genre=genre,
                    group=f"artist {artist}" if artist else place,
                    split=SIDES[split],
                )
            )
    if not listed:
        raise InputError(
            f"{folder}/fma_{subset} contains none of the tracks in {folder / METADATA}: delete the folder "
            f"fma_{subset} and repeat the command",
            code=ErrorCode.NO_TRACKS,
        )
    counts = {
        "known to contain no audio": silent.sum(),
        "without top genre or split": (unlabelled & ~silent).sum(),
        f"missing in {folder}/fma_{subset}": len(usable) - len(listed),
    }
    skipped = ", ".join(f"{count} {reason}" for reason, count in counts.items() if count)
    return tuple(listed), [f"skipped tracks: {skipped}"] if skipped else []


def _read(path: Path) -> pd.DataFrame:
    """Read _COLUMNS of tracks.csv as strings, indexed by track id; the header is two rows and one for the index."""
    try:
        header = pd.read_csv(path, header=None, nrows=2, dtype=str, keep_default_na=False)
        names = list(zip(*header.to_numpy().tolist(), strict=True))
        places = {names.index(column): short for short, column in _COLUMNS.items()}
        table = pd.read_csv(
            path, header=None, skiprows=3, usecols=[0, *places], dtype=str, keep_default_na=False
        )
        return table.rename(columns=places).set_index(table[0].astype(int))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} must be FMA's table of tracks, but it cannot be read ({error}): delete it and repeat the command",
            code=ErrorCode.FMA_TABLE_UNREADABLE,
        ) from error
