"""The data of a run: read, checked, split and stored as spectrograms."""
