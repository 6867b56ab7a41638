"""Documents whose changes and events are saved in one write."""
