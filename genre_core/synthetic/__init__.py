"""The built-in corpus of synthetic music."""
