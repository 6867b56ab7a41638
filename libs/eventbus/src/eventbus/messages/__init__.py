"""What travels: messages as they came, envelopes and their size, topics, and what became of an attempt."""
