"""All SQL of the schema auth, by subject."""

from __future__ import annotations

from services.auth.store.accounts import Accounts
from services.auth.store.invitations import Invitations
from services.auth.store.sessions import Sessions
from services.auth.store.signing_keys import SigningKeys


class Store(Accounts, Sessions, Invitations, SigningKeys):
    """One method, one statement."""
