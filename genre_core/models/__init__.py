"""Backbones, their weights, and the networks built from them, in memory and on disk."""
