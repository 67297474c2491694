"""Export of a run's best model as a folder to use and to share."""
