"""The training process: forked from one that has torch loaded, it turns a frozen configuration into an adapter."""
