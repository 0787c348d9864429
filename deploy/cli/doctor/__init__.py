"""`doctor`: looks at every part of a running Posthouse, says what is wrong and what to do, and mends it."""

from deploy.cli.doctor.command import add_parsers

__all__ = ["add_parsers"]
