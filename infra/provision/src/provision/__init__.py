"""Gives each service a database user and an object store key of its own, once the servers are up; ends when done."""
