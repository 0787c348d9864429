"""Rooms, messages, read positions and presence will live here; so far it only owns its queues."""
