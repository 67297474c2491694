"""A run's music: read, checked, split, and stored as spectrograms."""
