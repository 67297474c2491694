"""Backbones, their pretrained weights, and networks split at a freeze depth, in memory and on disk."""
