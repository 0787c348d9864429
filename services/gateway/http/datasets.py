"""Datasets and their keys."""

from __future__ import annotations

import re
from collections.abc import Mapping

from msgspec import Struct, structs

from services.gateway.http.incoming import Incoming, bad_header
from services.gateway.http.table import ANYONE, KEY_OR_USER, USER, Routes, form_of
from shared.contracts.ingest import (
    ChangeDataset,
    CreateDataset,
    Dataset,
    DatasetCreated,
    DatasetKeys,
    DeleteDataset,
    GetDataset,
    GetDatasetKeys,
    GetImport,
    GetLedger,
    ListDatasets,
    RestoreDataset,
    RotateDatasetKey,
)
from shared.vault import Vault

routes = Routes("Datasets")
_ETAG = re.compile(r'"(\d{1,18})"', re.ASCII)


class Keys(Struct, frozen=True, kw_only=True):
    """The two keys of a dataset for `X-API-Key`, 16 characters of 0-9 and A-Z each."""

    read_key: str
    write_key: str


class DatasetWithKeys(Dataset, frozen=True, kw_only=True):
    """A new dataset, with its keys beside it."""

    read_key: str
    write_key: str


def opened(keys: DatasetKeys, vault: Vault) -> Keys:
    """The keys, unsealed."""
    return Keys(
        read_key=vault.unseal(keys.read_key, "ingest.key"),
        write_key=vault.unseal(keys.write_key, "ingest.key"),
    )


def created(reply: DatasetCreated, vault: Vault) -> DatasetWithKeys:
    """The dataset and its keys in one object."""
    return DatasetWithKeys(**structs.asdict(reply.dataset), **structs.asdict(opened(reply.keys, vault)))


def place(reply: DatasetCreated) -> Mapping[str, str]:
    """Where the new dataset is."""
    return {"Location": f"/v1/datasets/{reply.dataset.id}", **etag(reply.dataset)}


def etag(dataset: Dataset) -> Mapping[str, str]:
    """The version as a strong ETag."""
    return {"ETag": f'"{dataset.version}"'}


def change(incoming: Incoming, vault: Vault) -> ChangeDataset:
    """What is given, and the version it is meant for."""
    return ChangeDataset(
        dataset_id=incoming.path.dataset_id,
        if_version=_version(incoming.headers.get("If-Match")),
        **structs.asdict(incoming.form),
    )


def _version(if_match: str | None) -> int | None:
    if if_match is None or if_match.strip() == "*":
        return None
    found = _ETAG.fullmatch(if_match.strip())
    if found is None:
        raise bad_header("If-Match", "is one ETag as the dataset was answered with, or *")
    return int(found[1])


ONE = "/v1/datasets/{dataset_id}"
_CHANGE = form_of(ChangeDataset, "DatasetChange", "name", "description", "public", "variables")

routes.post(
    "/v1/datasets", CreateDataset, who=USER, answers=201, show=created, shows=DatasetWithKeys, fields=place
)
routes.get("/v1/datasets", ListDatasets, who=USER)
routes.get(ONE, GetDataset, who=ANYONE, fields=etag)
routes.patch(
    ONE,
    ChangeDataset,
    who=USER,
    form=_CHANGE,
    make=change,
    fields=etag,
    takes=("If-Match",),
    refuses=("changed_meanwhile",),
    queued=True,
)
routes.delete(ONE, DeleteDataset, who=USER, queued=True)
routes.post(f"{ONE}/restore", RestoreDataset, who=USER, answers=200, fields=etag, queued=True)
routes.get(f"{ONE}/keys", GetDatasetKeys, who=USER, show=opened, shows=Keys)
routes.post(f"{ONE}/keys/{{kind}}", RotateDatasetKey, who=USER, answers=200, show=opened, shows=Keys)
routes.get(f"{ONE}/ledger", GetLedger, who=KEY_OR_USER)
routes.get(f"{ONE}/imports/{{source}}", GetImport, who=KEY_OR_USER)
