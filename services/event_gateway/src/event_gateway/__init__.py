"""Events from and for services that are none of ours: published, read and delivered over HTTP."""
