"""What nobody waits for: log lines now; later mail, jobs on a schedule and the dead-letter desk.

It answers administrators who read the log, and never decides anything about another service's data.
"""
