"""TGI's HTTP API on transformers: one base model and many adapters, each proven before it answers."""
