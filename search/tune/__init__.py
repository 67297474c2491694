"""The engine on Ray Tune: the only package that starts Ray."""
