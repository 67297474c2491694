"""The settings of a search and the space that it samples."""
