"""The Optuna study of a run: samplers, pruners, and what earlier searches tried."""
