"""The `sartor` command: the local stack, and the API from a terminal."""
