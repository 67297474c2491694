"""FMA as it lies in a folder -> tracks with its artists, its top genres and its official split."""

from pathlib import Path

import pandas as pd

from genre_core.corpus.tracks import Track
from genre_core.errors import InputError

METADATA = Path("fma_metadata/tracks.csv")
SUBSETS = ("small", "medium", "large")  # each holds those before it
SILENT = (99134, 108925, 133297)  # track ids whose MP3 files hold no audio
SIDES = {"training": "train", "validation": "validation", "test": "test"}

_COLUMNS = {
    "artist": ("artist", "id"),
    "split": ("set", "split"),
    "subset": ("set", "subset"),
    "genre": ("track", "genre_top"),
}


def tracks(folder: Path, subset: str) -> tuple[tuple[Track, ...], list[str]]:
    """The tracks of one of SUBSETS, in `folder`/fma_SUBSET, and what there is to say of those that are left out.

    A group is an artist. Raises InputError for a table that is not FMA's, or where no audio of it is there.
    """
    table = _read(folder / METADATA)
    wanted = table[table["subset"].isin(SUBSETS[: SUBSETS.index(subset) + 1])]
    silent = wanted.index.isin(SILENT)
    untold = (wanted["genre"] == "") | ~wanted["split"].isin(SIDES)
    listed = []
    usable = wanted[~silent & ~untold]
    for number, *cells in zip(
        usable.index.tolist(), *(usable[name].tolist() for name in _COLUMNS), strict=True
    ):
        artist, split, _, genre = cells
        place = f"fma_{subset}/{number // 1000:03}/{number:06}.mp3"
        if (path := folder / place).is_file():
            listed.append(
                Track(
                    track_id=place,
                    path=path,
                    genre=genre,
                    group=f"artist {artist}" if artist else place,
                    split=SIDES[split],
                )
            )
    if not listed:
        raise InputError(
            f"no track of {folder / METADATA} is in {folder}/fma_{subset}: take that away and run it again"
        )
    counts = {
        "known to hold no audio": silent.sum(),
        "without a top genre or a split": (untold & ~silent).sum(),
        f"not in {folder}/fma_{subset}": len(usable) - len(listed),
    }
    left_out = ", ".join(f"{count} {why}" for why, count in counts.items() if count)
    return tuple(listed), [f"tracks left out: {left_out}"] if left_out else []


def _read(path: Path) -> pd.DataFrame:
    """_COLUMNS of tracks.csv by track id, as strings; its header has two rows, and a third with the index's name."""
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
            f"{path} must be FMA's table of tracks, but cannot be read as one ({error}): take it away and run it again"
        ) from error
