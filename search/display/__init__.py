"""What a search shows while it runs: a live screen, plain lines, and a log file."""
