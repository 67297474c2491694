"""What an exported model's README says of it: how good it is, what it was made of, and how it is used."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from genre_core.audio.mel import DYNAMIC_RANGE_DB, FrontEnd
from genre_core.training.metrics import SCORES
from search.config.schema import load
from search.evaluate.verdict import extension
from search.run.tables import read_finish, read_test_look, read_trials, when_test_was_read

_FRONT_MATTER = {
    "library_name": "genre-search",
    "pipeline_tag": "audio-classification",
    "tags": ["music", "genre-classification", "mel-spectrogram"],
    "metrics": list(SCORES),
}
"""What model hubs read; a search knows no licence of its music, so none is named."""

_TEXT = """\
---
{front_matter}---

# {title}

Tells the genre of music: {backbone} from {weights} weights, fine-tuned on log-mel spectrograms by genre-search.
It is the model `{name}` of a search of {trials} trials.{extension}

## Genres

{genres}

To anything else it gives the likeliest of these. Its probabilities are not calibrated.

## How good it is

{scores}

All scores are per track, macro over genres.

## Data

{parts}; no group (an artist, a recording) is on two sides of the split.
Which track is where stands in `model.json`.

```yaml
{data}```

## Use

With genre-search installed:

```console
$ genre-search predict . song.mp3
```

```python
from genre_core.predict import Model

model = Model.load(".")
print(model.predict("song.mp3"))
```

## What it hears

1. The file at {rate:,} Hz, its channels averaged.
2. Power spectra: {windows}, each in the middle of a Fourier transform of {n_fft:,} samples, one every {hop:,} samples,
   the first around the track's first sample, with silence before the track and after it.
3. {n_mels} mel bands from 0 to {nyquist:,} Hz, Slaney's scale and norm.
{decibels}
5. Segments of {frames} frames ({seconds:.2f} s): as many as fit side by side, {limit} at most, evenly spread; a shorter
   track is padded with silence. The network itself brings them to zero mean and unit variance.
6. The mean of the segments' logits, and its softmax.
{onnx}
## Recipe

```yaml
{recipe}```

## Versions

```yaml
{versions}```
"""

_DECIBELS = {
    "track": """\
4. Decibels below the track's own loudest, so that a track's gain changes nothing: 10 log10(power / largest power), the
   largest that the track has in any band and frame{each}; what is below -{range:.0f} dB is raised to that. Rounded to
   float16.""",
    "absolute": """\
4. Decibels: 10 log10(power), power at least 1e-10; what is more than {range:.0f} dB below the track's loudest is raised
   to that. Rounded to float16. A louder or quieter copy of a track may get another genre.""",
}
"""By the front end's `level`."""

_ONNX = """
`model.onnx` is the network alone, in float32: `mels`, log-mels in dB as after step 4, float32
[segments, {channels}, {n_mels}, {frames}] for any number of segments, to `logits`, [segments, {n_genres}], in the order
of the genres above. Over random segments ONNX Runtime's probabilities differ from PyTorch's by {difference:.1e} at
most.
"""

_KEPT = """\
| {titles} |
{rule}
| validation, {tracks} tracks | {values} |

The model is of epoch {epoch}, and both were chosen for this F1, out of {trials} trials: it looks better here than it
is. It has not heard the {test} tracks of the test part; `genre-search finish` says how good such a model is on them.
"""

_FINAL = """\
| {titles} |
{rule}
| test, {tracks} tracks | {values} |

In brackets 95 % bootstrap intervals over the test tracks. The model was trained on the train and the validation part,
{epochs} epochs, with seed {seed}. Its configuration was chosen by its validation F1 of {val_f1:.3f}, the {rank} of
{trials} trials, and only then, on {read}, the test part was read. Over the seeds, {seeds} of them, its test F1 goes
from {low:.3f} to {high:.3f}.
"""


def readme(run: Path, model: Path, *, card: Mapping[str, Any], onnx_difference: float | None) -> str:
    """The README of a run's model, in Markdown.

    Args:
        run: the run's folder.
        model: the model's folder.
        card: the model's.
        onnx_difference: the largest of a probability between ONNX Runtime and PyTorch; None without ONNX.
    """
    recipe, front_end = card["recipe"], FrontEnd(**card["front_end"])
    tags = [*_FRONT_MATTER["tags"], recipe["backbone"]]
    return _TEXT.format(
        front_matter=_yaml(_FRONT_MATTER | {"tags": tags}),
        title=f"{run.name}: music genres by {recipe['backbone']}",
        backbone=recipe["backbone"],
        weights=_weights(recipe["weights"]),
        name=model.name,
        trials=len(read_trials(run)),
        extension=_extension(run),
        genres="\n".join(f"- {genre}" for genre in card["genres"]),
        scores=_scores(run, card).rstrip(),
        parts=", ".join(f"{len(tracks)} {part}" for part, tracks in card["split"].items()) + " tracks",
        data=_yaml(_data(run)),
        rate=front_end.sample_rate,
        nyquist=front_end.sample_rate // 2,
        windows=_windows(front_end),
        n_fft=front_end.n_fft,
        hop=front_end.hop_length,
        n_mels=front_end.n_mels,
        decibels=_DECIBELS[front_end.level].format(
            range=DYNAMIC_RANGE_DB, each=" of its channel" if len(front_end.windows) > 1 else ""
        ),
        frames=card["segment_frames"],
        seconds=card["segment_frames"] / front_end.frames_per_second,
        limit=card["segments_per_track"],
        onnx="" if onnx_difference is None else _onnx(card, front_end, onnx_difference),
        recipe=_yaml(recipe),
        versions=_yaml(card["versions"]),
    )


def _scores(run: Path, card: Mapping[str, Any]) -> str:
    finals = read_finish(run)
    own = finals[(finals["trial"] == card["trial"]) & (finals["seed"] == card["recipe"]["seed"])]
    final, look = "trained_on" in card and len(own) > 0, read_test_look(run)
    values = _with_intervals(own.iloc[0].to_dict()) if final else _plain(card["validation"])
    words = {
        "titles": " | ".join(["", *SCORES]).strip(),
        "rule": "|---" * (len(SCORES) + 1) + "|",
        "values": " | ".join(values),
        "trials": look.scored if final and look else len(read_trials(run)),
    }
    if not final:
        parts = {part: len(tracks) for part, tracks in card["split"].items()}
        return _KEPT.format(**words, tracks=parts["validation"], test=parts["test"], epoch=card["epoch"])
    row = own.iloc[0]
    of_all_seeds = finals[finals["rank"] == row["rank"]]["test_f1"]
    return _FINAL.format(
        **words,
        tracks=len(card["split"]["test"]),
        epochs=row["epochs"],
        seed=row["seed"],
        val_f1=row["val_f1"],
        rank="best" if row["rank"] == 1 else f"number {row['rank']}",
        read=f"{when_test_was_read(run):%d %B %Y}",
        seeds=len(of_all_seeds),
        low=of_all_seeds.min(),
        high=of_all_seeds.max(),
    )


def _extension(run: Path) -> str:
    """A sentence where the search was extended after its test part had been read."""
    text = extension(run)
    return f"\n{text[0].upper()}{text[1:]}." if text else ""


def _plain(scores: Mapping[str, float]) -> list[str]:
    return [f"{scores[name]:.3f}" for name in SCORES]


def _with_intervals(row: Mapping[Any, Any]) -> list[str]:
    return [
        f"{row[f'test_{name}']:.3f} ({row[f'test_{name}_low']:.3f} to {row[f'test_{name}_high']:.3f})"
        for name in SCORES
    ]


def _data(run: Path) -> dict[str, str]:
    """Where the music came from, without the path, and what tells it from other music."""
    config = load(run / "config.yaml", {})
    return {"data": Path(config.data).name, "corpus": (config.provenance or {})["corpus"]}


def _windows(front_end: FrontEnd) -> str:
    samples = " and ".join(
        f"{window:,} samples ({1000 * window / front_end.sample_rate:.0f} ms)" for window in front_end.windows
    )
    return f"Hann windows of {samples}" + (", a channel each" if len(front_end.windows) > 1 else "")


def _onnx(card: Mapping[str, Any], front_end: FrontEnd, difference: float) -> str:
    return _ONNX.format(
        channels=len(front_end.windows),
        n_mels=front_end.n_mels,
        frames=card["segment_frames"],
        n_genres=len(card["genres"]),
        difference=difference,
    )


def _weights(weights: str) -> str:
    return {"imagenet": "ImageNet", "random": "random"}.get(weights, f"`{Path(weights).name}`")


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
