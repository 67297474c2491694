"""Hyperparameter search over many fine-tunes."""
