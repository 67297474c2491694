"""Readers of file headers: a file's format, length and damage without decoding it."""
