"""What the bytes of a file show without decoding it: its kind, its length, its frames."""
