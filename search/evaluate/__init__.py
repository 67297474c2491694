"""The test part: final models and the verdict on a search."""
