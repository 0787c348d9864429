"""A gateway for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest

from services.gateway.pages.table import add_pages
from shared.vault import Vault
from tests.unit.gateway.door import House, open_house


@pytest.fixture
async def house(vault: Vault) -> AsyncIterator[House]:
    """A gateway over services in this process."""
    async with open_house(vault) as house:
        yield house


@pytest.fixture
async def pages(vault: Vault) -> AsyncIterator[House]:
    """A gateway with its pages."""
    async with open_house(vault, add_pages=add_pages) as house:
        yield house


@pytest.fixture
def token(house: House) -> str:
    """The token of an administrator."""
    return house.services.token()
