"""The registry: base models, model versions, the gate, cards and aliases."""
