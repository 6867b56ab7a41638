"""The engines that the agent can stand beside; each is an `AdapterHost`."""
