"""Final models and their scores on the test set."""
