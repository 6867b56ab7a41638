"""Uploads become dataset versions and documents."""
