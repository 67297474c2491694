"""Cost-aware search for Optuna by freeze-thaw: it depends on Optuna, NumPy and scikit-learn alone."""
