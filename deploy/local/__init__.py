"""The launcher: everything of one instance on one machine, written with Python's standard library only."""
