"""All SQL of the schema `ingest`: one method, one statement."""

from __future__ import annotations

from services.ingest.store.datasets import Datasets
from services.ingest.store.owners import Owners
from services.ingest.store.readings import Readings
from services.ingest.store.upkeep import Upkeep
from services.ingest.store.writing import Writing


class Store(Datasets, Owners, Readings, Writing, Upkeep):
    """What the service keeps, over the connection of a transaction or over the pool."""
