"""Audio files to mono waveforms, and waveforms to log-mel spectrograms."""
