"""The Optuna study of a run: samplers, pruners, and trials of earlier searches."""
