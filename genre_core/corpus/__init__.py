"""The tracks of a data set: discovery, audit, splits and stored spectrograms."""
