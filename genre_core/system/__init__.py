"""Files, threads and memory of the operating system."""
