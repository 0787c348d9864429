"""The table of chat's messages: empty, so each is refused as unknown and nothing waits for ever."""

from __future__ import annotations

from shared.bus.routes import Routes

routes = Routes("chat")
