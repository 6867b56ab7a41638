"""Arms that answer people: read from the object store, proved with this embedder, held in memory, asked."""
