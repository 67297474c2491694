"""Checks of cluster files before a cluster is started from them."""
