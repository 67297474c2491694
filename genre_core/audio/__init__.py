"""Audio files to waveforms, and waveforms to log-mel images."""
