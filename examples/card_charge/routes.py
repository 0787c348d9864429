"""HTTP in, command out: the one row the gateway needs to know."""

from __future__ import annotations

from examples.card_charge.contracts import ChargeCard
from services.gateway.http.table import USER, Routes

routes = Routes("Shop")
routes.post("/v1/charges", ChargeCard, who=USER, answers=201)
