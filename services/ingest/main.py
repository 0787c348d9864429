"""The wiring of ingest."""

from __future__ import annotations

from services.ingest.deps import deps_of
from services.ingest.handlers import routes
from services.ingest.settings import Settings
from services.ingest.store.base import Descriptions
from shared.contracts.ingest import MakePartitions, PurgeDatasets
from shared.runtime import run_service, running
from shared.settings import load
from shared.vault import Vault

MAKE_PARTITIONS_SECONDS = 3_600
PURGE_SECONDS = 10


async def main() -> None:
    """Serve until told to stop."""
    settings = load(Settings)
    vault = Vault(settings.secret_key)
    async with running(settings) as service:
        service.every(MAKE_PARTITIONS_SECONDS, MakePartitions())
        service.every(PURGE_SECONDS, PurgeDatasets())
        descriptions = Descriptions()
        await service.serve(routes, lambda call: deps_of(call, settings, vault, descriptions))


def run() -> None:
    """The process."""
    run_service(main)
