"""The Python interface: a search is a function call, and a run's folder an object."""
