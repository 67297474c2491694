"""Fine-tuning of ImageNet CNNs on mel spectrograms, independent of any search.

The names in `__all__` are public: docs/python.md describes them.
"""

from typing import TYPE_CHECKING

from genre_core.system.lazy import importer

if TYPE_CHECKING:
    from genre_core.audio.bad_audio import BadAudio
    from genre_core.audio.mel import FrontEnd
    from genre_core.errors import InputError
    from genre_core.models.backbone import Backbone
    from genre_core.models.registry import register_backbone
    from genre_core.predict import Model, Prediction, SegmentPrediction

__all__ = [
    "Backbone",
    "BadAudio",
    "FrontEnd",
    "InputError",
    "Model",
    "Prediction",
    "SegmentPrediction",
    "register_backbone",
]

# A name is imported when it is used: `genre-search --help` must not load torch.
__getattr__ = importer(
    __name__,
    {
        "Backbone": "genre_core.models.backbone",
        "BadAudio": "genre_core.audio.bad_audio",
        "FrontEnd": "genre_core.audio.mel",
        "InputError": "genre_core.errors",
        "Model": "genre_core.predict",
        "Prediction": "genre_core.predict",
        "SegmentPrediction": "genre_core.predict",
        "register_backbone": "genre_core.models.registry",
    },
)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
