"""Messages in, Done out; one module per subject, one table of all."""

from __future__ import annotations

from services.ingest.handlers import datasets, keys, owners, reading, removing, upkeep, writing
from shared.bus.routes import Routes

_MODULES = (datasets, keys, writing, reading, removing, owners, upkeep)

routes = Routes(
    "ingest", {topic: route for module in _MODULES for topic, route in module.routes.table.items()}
)
