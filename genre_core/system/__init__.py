"""Files, threads and memory: what the operating system provides."""
