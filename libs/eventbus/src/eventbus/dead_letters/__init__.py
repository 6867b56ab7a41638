"""Messages that were given up: written with the reason, read by the operator, and sent back."""
