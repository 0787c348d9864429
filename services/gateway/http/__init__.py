"""Tables of routes, and what every request passes: limits, validation, problems, answers, documentation."""
