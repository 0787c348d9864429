"""Pages for people: HTML from templates that works before any script has run, over the same commands."""
