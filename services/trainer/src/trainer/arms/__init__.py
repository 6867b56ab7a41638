"""The lane in which quick ways to answer are fitted, beside the training of the same jobs."""
