"""Training of one fine-tune on arrays of segments: one EpochResult per epoch, without audio files."""
