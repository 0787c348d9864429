"""The only HTTP server: turns requests into commands and queries, and replies into answers. Owns no table."""
