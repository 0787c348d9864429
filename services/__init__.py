"""The services: each takes its own topics and owns its own tables."""
