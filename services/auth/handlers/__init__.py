"""Messages in, Done out; one module per subject, one table of all."""

from __future__ import annotations

from services.auth.handlers import accounts, invitations, sessions, signing_keys, users
from shared.bus.routes import Routes

_MODULES = (accounts, sessions, users, invitations, signing_keys)

routes = Routes("auth", {topic: route for module in _MODULES for topic, route in module.routes.table.items()})
