"""README of an exported model: its scores, its data, and how to use and reimplement it."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from genre_core.audio.mel import DYNAMIC_RANGE_DB, FrontEnd
from genre_core.models.registry import find_backbone, is_own
from genre_core.training.metrics import SCORES
from search.config.schema import load
from search.evaluate.verdict import extension_note
from search.run.folder import RunFolder
from search.run.split_record import sizes
from search.run.tables import read_finish, read_test_use, read_trials, test_used_at

_FRONT_MATTER = {
    "library_name": "genre-search",
    "pipeline_tag": "audio-classification",
    "tags": ["music", "genre-classification", "mel-spectrogram"],
    "metrics": list(SCORES),
}
"""Metadata for model hubs; without a license, since the licenses of the music are unknown."""

_TEXT = """\
---
{front_matter}---

# {title}

A music genre classifier: {backbone} from {weights} weights, fine-tuned on log-mel spectrograms by genre-search.
This is the model `{name}` of a search of {trials} trials.{extension}

## Genres

{genres}

Audio of any other kind is assigned the most likely of these genres. The probabilities are not calibrated.

## Scores

{scores}

All scores are per track and macro-averaged over genres.

## Data

{splits}. Tracks of the same group (an artist, a recording) are always in the same split.
`model.json` lists the tracks of each split.

```yaml
{data}```

## Usage

With genre-search{module} installed:

```console
$ genre-search predict . song.mp3
```

```python
from genre_core.predict import Model

model = Model.load(".")
print(model.predict("song.mp3"))
```

## Preprocessing

1. The audio is resampled to {rate:,} Hz, and its channels are averaged.
2. Power spectra are computed with {windows}, each centred in a Fourier transform of {n_fft:,} samples, with a hop of
   {hop:,} samples. The first window is centred on the first sample of the track. The track is padded with silence on
   both sides.
3. {n_mels} mel bands span 0 to {nyquist:,} Hz (Slaney scale and norm).
{decibels}
5. The track is cut into segments of {frames} frames ({seconds:.2f} s): as many non-overlapping ones as fit, at most
   {limit}, evenly spaced. A shorter track is padded with silence. The network itself normalizes them to zero mean and
   unit variance.
6. The logits of the segments are averaged, followed by a softmax.
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
4. Levels are in dB relative to the loudest point of the track, so that its gain has no effect:
   10 log10(power / maximum power), where the maximum is over all bands and frames{each}. Values below
   -{range:.0f} dB are raised to that. The result is rounded to float16.""",
    "absolute": """\
4. Levels are in dB: 10 log10(power), with power at least 1e-10. Values more than {range:.0f} dB below the loudest point
   of the track are raised to that. The result is rounded to float16. A louder or quieter copy of a track may be
   assigned a different genre.""",
}
"""Step 4 of the preprocessing, by the front end's `level`."""

_ONNX = """
`model.onnx` is the network alone, in float32. Its input `mels` are log-mel spectrograms in dB after step 4, float32
[segments, {channels}, {n_mels}, {frames}] for any number of segments. Its output `logits` is [segments, {n_genres}], in
the order of the genres above. On random segments, the probabilities of ONNX Runtime and PyTorch differ by at most
{difference:.1e}.
"""

_KEPT = """\
| {titles} |
{rule}
| validation, {tracks} tracks | {values} |

The model is from epoch {epoch}. Trial and epoch were selected for this F1 out of {trials} trials, so it is optimistic.
The model has not been evaluated on the {test} tracks of the test set; `genre-search finish` does that for models like
it.
"""

_FINAL = """\
| {titles} |
{rule}
| test, {tracks} tracks | {values} |

Parentheses hold 95 % bootstrap intervals over the test tracks. The model was trained on the train and validation sets
for {epochs} epochs with seed {seed}. Its configuration was selected by its validation F1 of {val_f1:.3f}, {rank} of
{trials} trials, before the test set was used, once, on {read}. Over its {seeds} seeds, the test F1 ranges from
{low:.3f} to {high:.3f}.
"""


def readme(run: Path, model: Path, *, card: Mapping[str, Any], onnx_difference: float | None) -> str:
    """The README of a run's model, in Markdown.

    Args:
        run: the run's folder.
        model: the model's folder.
        card: the model's card.
        onnx_difference: largest difference in a probability between ONNX Runtime and PyTorch; None without ONNX.
    """
    recipe, front_end = card["recipe"], FrontEnd(**card["front_end"])
    tags = [*_FRONT_MATTER["tags"], recipe["backbone"]]
    return _TEXT.format(
        front_matter=_yaml(_FRONT_MATTER | {"tags": tags}),
        title=f"{run.name}: music genres by {recipe['backbone']}",
        backbone=recipe["backbone"],
        weights=_weights(recipe),
        module=_module(recipe["backbone"]),
        name=model.name,
        trials=len(read_trials(run)),
        extension=_extension(run),
        genres="\n".join(f"- {genre}" for genre in card["genres"]),
        scores=_scores(run, card).rstrip(),
        splits=", ".join(f"{count} {split}" for split, count in sizes(card["split"]).items()) + " tracks",
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
    final, look = "trained_on" in card and len(own) > 0, read_test_use(run)
    values = _with_intervals(own.iloc[0].to_dict()) if final else _plain(card["validation"])
    words = {
        "titles": " | ".join(["", *SCORES]).strip(),
        "rule": "|---" * (len(SCORES) + 1) + "|",
        "values": " | ".join(values),
        "trials": look.scored if final and look else len(read_trials(run)),
    }
    if not final:
        tracks = sizes(card["split"])
        return _KEPT.format(**words, tracks=tracks["validation"], test=tracks["test"], epoch=card["epoch"])
    row = own.iloc[0]
    of_all_seeds = finals[finals["rank"] == row["rank"]]["test_f1"]
    return _FINAL.format(
        **words,
        tracks=sizes(card["split"])["test"],
        epochs=row["epochs"],
        seed=row["seed"],
        val_f1=row["val_f1"],
        rank="the best" if row["rank"] == 1 else f"number {row['rank']}",
        read=f"{test_used_at(run):%d %B %Y}",
        seeds=len(of_all_seeds),
        low=of_all_seeds.min(),
        high=of_all_seeds.max(),
    )


def _extension(run: Path) -> str:
    """A sentence about a search that was extended after its test set had been used."""
    text = extension_note(run)
    return f"\n{text[0].upper()}{text[1:]}." if text else ""


def _plain(scores: Mapping[str, float]) -> list[str]:
    return [f"{scores[name]:.3f}" for name in SCORES]


def _with_intervals(row: Mapping[Any, Any]) -> list[str]:
    return [
        f"{row[f'test_{name}']:.3f} ({row[f'test_{name}_low']:.3f} to {row[f'test_{name}_high']:.3f})"
        for name in SCORES
    ]


def _data(run: Path) -> dict[str, str]:
    """The name of the data folder, without its path, and the fingerprint of the corpus."""
    config = load(RunFolder(run).config, {})
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


def _weights(recipe: Mapping[str, Any]) -> str:
    weights: str = recipe["weights"]
    if weights == "imagenet":
        name = recipe["backbone"]
        return f"`{find_backbone(name).file_name}`" if is_own(name) else "ImageNet"
    return weights if weights == "random" else f"`{Path(weights).name}`"


def _module(backbone: str) -> str:
    """The module that defines a backbone that is not built in."""
    return f" and the module `{backbone.partition(':')[0]}`" if is_own(backbone) else ""


def _yaml(values: Mapping[str, Any]) -> str:
    return yaml.safe_dump(dict(values), sort_keys=False, allow_unicode=True)
