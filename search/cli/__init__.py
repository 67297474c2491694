"""The genre-search command."""
