"""Repairs of a run's folder whose driver died or whose files were lost."""
