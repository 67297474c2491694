"""The engine of a search: decides what runs, executes it and simulates it, without Ray."""
