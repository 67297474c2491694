"""One fine-tune: segments in, an EpochResult per epoch out. Knows arrays, no audio files."""
