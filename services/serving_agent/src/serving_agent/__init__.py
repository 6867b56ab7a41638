"""The agent beside an engine that is not ours: it gives it adapters, has it prove them, and says what it holds."""
