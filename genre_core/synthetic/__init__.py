"""The built-in corpus of generated music."""
