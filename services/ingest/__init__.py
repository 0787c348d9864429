"""Ingest keeps datasets and their readings; it never speaks HTTP, and knows nobody's password."""
