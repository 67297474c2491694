"""Spectrogram stores as earlier versions wrote them."""

import json
from pathlib import Path

from genre_core.corpus.spectrogram_store import SpectrogramStore, open_store


def in_one_file(store: SpectrogramStore, folder: Path) -> Path:
    """Write a store as index.json and mels.f16 into a new folder, and return the folder."""
    folder.mkdir(parents=True)
    places, first = {}, 0
    with (folder / "mels.f16").open("wb") as file:
        for name, place in open_store(store.folder, store.front_end).places.items():
            store.frames.view(*place).tofile(file)
            places[name] = (first, place[1])
            first += place[1]
    (folder / "index.json").write_text(json.dumps(places))
    return folder
