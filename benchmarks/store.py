"""Compare the spectrogram store with the speed of pure decoding and transforming on all cores.

python benchmarks/store.py --data MANIFEST
"""

import argparse
import json
import os
import tempfile
import time
from pathlib import Path

import torch

from genre_core.audio import decode
from genre_core.audio.mel import front_end, log_mel
from genre_core.corpus.audit import audit
from genre_core.corpus.spectrogram_store import open_or_build
from genre_core.corpus.tracks import read_corpus


def main() -> None:
    """Print the rates in tracks per second, best of three interleaved repeats, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--front-end", default="mel128")
    arguments = parser.parse_args()
    setting = front_end(arguments.front_end)
    with tempfile.TemporaryDirectory(prefix="gsb") as folder:
        corpus = audit(read_corpus(arguments.data), minimum_seconds=3.0, cache=Path(folder))
        torch.set_num_threads(1)
        one, store = 0.0, 0.0
        for repeat in range(3):
            began = time.perf_counter()
            for track in corpus.usable:
                log_mel(decode.read(track.path, setting.sample_rate), setting)
            one = max(one, len(corpus.usable) / (time.perf_counter() - began))
            began = time.perf_counter()
            open_or_build(corpus.usable, setting, cache=Path(folder) / str(repeat))
            store = max(store, len(corpus.usable) / (time.perf_counter() - began))
    cores = os.cpu_count() or 1
    print(json.dumps({"cores": cores, "one_core": one, "store": store, "efficiency": store / (cores * one)}))


if __name__ == "__main__":
    main()
