"""Checks of cluster files before they are launched."""
