"""Repair of a run's folder after its driver died or files were lost."""
