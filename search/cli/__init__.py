"""The genre-search command line."""
