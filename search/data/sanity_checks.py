"""Checks for test scores that are too good to be true."""

from collections.abc import Collection

from genre_core.synthetic.styles import GENRES

GTZAN_CEILING = 0.945
"""Accuracy of a perfect classifier on GTZAN, due to mislabelled tracks (Sturm 2013, "The GTZAN dataset")."""
GTZAN_BEST = 0.84
"""Best published accuracy on GTZAN's fault- and artist-filtered split."""
FAR_ABOVE = 0.05
"""Excess of test F1 over validation F1 that more training tracks do not explain."""


def implausible_scores(
    genres: Collection[str],
    *,
    test_tracks: int,
    accuracy: float,
    val_f1: float,
    test_f1: float,
    test_f1_low: float,
    generated: bool,
) -> list[str]:
    """Return the reasons to doubt a configuration's test scores, one sentence each.

    Args:
        genres: of the corpus.
        test_tracks: number of tracks in the test set.
        accuracy: on the test set.
        val_f1: the validation F1 that the search found.
        test_f1: on the test set.
        test_f1_low: lower end of the confidence interval of `test_f1`.
        generated: whether this is the built-in corpus, which has GTZAN's genres only by name.
    """
    found = []
    gtzan = set(genres) == set(GENRES) and not generated
    if gtzan and accuracy > GTZAN_CEILING:
        found.append(
            f"accuracy {accuracy:.3f} is above {GTZAN_CEILING}, the score of a perfect classifier on GTZAN due to its "
            "mislabelled tracks; if this is GTZAN, the split leaks"
        )
    elif gtzan and accuracy > GTZAN_BEST:
        found.append(
            f"accuracy {accuracy:.3f} is above {GTZAN_BEST}, the best published on GTZAN's fault-filtered split; if "
            "this is GTZAN, check for artists and replicas in both training and test"
        )
    if test_f1_low > val_f1 and test_f1 > val_f1 + FAR_ABOVE:
        found.append(
            f"test F1 {test_f1:.3f} is far above validation F1 {val_f1:.3f}, although the best of many trials is "
            "optimistic on validation; the test set is easier, or overlaps with training"
        )
    if accuracy == 1.0:
        found.append(
            f"all {test_tracks} test tracks are classified correctly by every model, which is rare for "
            "music; check for copies and recordings in both training and test"
        )
    return found


def missing_groups_warning(groups: Collection[str]) -> str | None:
    """Return a warning if no two tracks share a group: then artists may leak across the split.

    Args:
        groups: the group of each usable track.
    """
    if len(set(groups)) < len(groups):
        return None
    return (
        "every track is its own group: an artist or a recording may be in both training and test, which makes all "
        "scores too optimistic; use folders by artist, or the `group` column of a manifest, to keep them together"
    )
