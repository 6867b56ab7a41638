"""Consuming: each event at least once, in the order of its key; what fails waits, or is given up."""
