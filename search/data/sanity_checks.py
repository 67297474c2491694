"""Which test scores are too good to be true, and why."""

from genre_core.corpus.tracks import Corpus
from genre_core.synthetic.styles import GENRES

GTZAN_CEILING = 0.945
"""Accuracy of a perfect classifier on GTZAN, for its mislabelled tracks (Sturm 2013, "The GTZAN dataset")."""
GTZAN_BEST = 0.84
"""The best accuracy found published on GTZAN's fault-filtered split, which keeps artists apart."""
FAR_ABOVE = 0.05
"""So much more F1 on test than on validation needs another reason than more tracks to train on."""


def implausible_scores(
    corpus: Corpus, *, accuracy: float, val_f1: float, test_f1: float, test_f1_low: float, generated: bool
) -> list[str]:
    """What speaks against a configuration's scores on the test part, a sentence each.

    Args:
        corpus: what was split, with its groups.
        accuracy: on the test part.
        val_f1: what the search found.
        test_f1: on the test part.
        test_f1_low: the low end of its interval.
        generated: whether the music is the built-in corpus, which has GTZAN's genres only by name.
    """
    found = []
    gtzan = set(corpus.genres) == set(GENRES) and not generated
    if gtzan and accuracy > GTZAN_CEILING:
        found.append(
            f"accuracy {accuracy:.3f} is above {GTZAN_CEILING}, where a perfect classifier ends on GTZAN for its "
            "mislabelled tracks; if this is GTZAN, the split leaks"
        )
    elif gtzan and accuracy > GTZAN_BEST:
        found.append(
            f"accuracy {accuracy:.3f} is above {GTZAN_BEST}, the best published on GTZAN's fault-filtered split; if "
            "this is GTZAN, look for artists and replicas on both sides of the split"
        )
    if test_f1_low > val_f1 and test_f1 > val_f1 + FAR_ABOVE:
        found.append(
            f"test F1 {test_f1:.3f} is far above validation's {val_f1:.3f}, though the best of many trials looks too "
            "good on validation; the test part is easier, or known from training"
        )
    if accuracy == 1.0:
        found.append(
            f"all {len(corpus.part('test'))} test tracks are right, every time; music is seldom so clear: "
            "look for copies and recordings on both sides of the split"
        )
    return found


def missing_groups_warning(corpus: Corpus) -> str | None:
    """What speaks against every score, where nothing is known of which tracks belong together."""
    if len({track.group for track in corpus.usable}) < len(corpus.usable):
        return None
    return (
        "every track is a group of its own: an artist or a recording may be on both sides of the split, and then "
        "all scores are too good; folders by artist, or a manifest's `group` column, keep them together"
    )
