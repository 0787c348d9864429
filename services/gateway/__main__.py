"""Run the gateway: `python -m services.gateway`."""

from __future__ import annotations

import asyncio

from services.gateway.main import main

if __name__ == "__main__":
    asyncio.run(main())
