"""Tests are sentences: `unit` needs nothing, the others need the servers of `./posthouse test`."""
