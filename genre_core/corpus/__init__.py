"""The tracks of a data set: found, audited, split, and stored as spectrograms."""
