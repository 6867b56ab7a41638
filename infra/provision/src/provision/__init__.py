"""Gives each service a database user and an object store key of its own, and ends."""
