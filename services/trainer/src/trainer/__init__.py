"""Fine-tuning jobs: asked for, trained by leased workers, tested by others, seen to their end."""
