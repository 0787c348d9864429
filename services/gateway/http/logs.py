"""The log of every service, for administrators."""

from __future__ import annotations

from services.gateway.http.table import USER, Routes
from shared.contracts.worker import ListLogLines

routes = Routes("Log")

routes.get("/v1/logs", ListLogLines, who=USER, refuses=("search_too_wide",))
