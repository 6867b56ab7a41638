"""The images built and the compose file started, by podman, without a registry: see `python -m tests.containers`."""
