"""Who may do what on the pages for people: the same things behind forms, by hand as well."""

from __future__ import annotations

from typing import Any

from tests.faults.access import (
    MARK,
    PASSWORD,
    Thing,
    deleted_dataset,
    deleted_user,
    invitation,
    owners_session,
    private_dataset,
    user,
)
from tests.faults.access_table import (
    ADMINS,
    ALL,
    ALL_HERE,
    GOOD,
    HERE,
    NO_ONE,
    OWNERS,
    READERS,
    WITH_ACCOUNT,
    Row,
    always,
    credentials,
)

ONE = "/datasets/{dataset_id}"
NEW_PASSWORD = "twelve green kettles"
CHANGED = always(
    {"section": "password", "current_password": PASSWORD}
    | dict.fromkeys(("password", "password_again"), NEW_PASSWORD)
)
EDITED = {
    **{"name": "other", "description": "other", "version": "1", "rows": "2"},
    **{"known-0": "yes", "tag-0": "t", "used-0": "yes", "known-1": "yes", "tag-1": MARK, "used-1": "yes"},
}
FIRST = {"name": "eve", "email": "eve@example.org"} | dict.fromkeys(
    ("password", "password_again"), NEW_PASSWORD
)


def signing_up(thing: Thing) -> Any:
    name = f"f-{thing.names['invitation_id'][-12:]}"
    named = {"name": name, "email": f"{name}@example.org", "invitation": thing.says["invitation"]}
    return FIRST | named


def ending(thing: Thing) -> Any:
    return {"end": thing.names["session_id"]}


FOR_ALL = (
    *(Row(f"GET {path}", ALL, sees=NO_ONE) for path in ("/setup", "/login", "/sign-up", "/restore")),
    Row("POST /setup", NO_ONE, body=always(FIRST)),
    Row("POST /login", ALL_HERE, user, credentials),
    Row("POST /logout", GOOD, body=always({})),
    Row("POST /sign-up", ALL_HERE, invitation, signing_up),
    Row("POST /restore", ALL_HERE, deleted_user, credentials),
)
OWN = (
    Row("GET /", WITH_ACCOUNT, sees=OWNERS),
    Row("GET /settings", WITH_ACCOUNT, sees=OWNERS),
    Row("POST /settings", WITH_ACCOUNT, body=CHANGED, spends=True),
    Row("GET /settings/delete", WITH_ACCOUNT),
    Row("POST /settings/delete", WITH_ACCOUNT, body=always({"password": PASSWORD}), spends=True),
    Row("GET /sessions", WITH_ACCOUNT),
    Row("POST /sessions", OWNERS, owners_session, ending),
    Row("GET /datasets/new", WITH_ACCOUNT),
    Row("POST /datasets", WITH_ACCOUNT, body=always({"name": "shed", "rows": "1", "tag-0": "t"})),
)
A_DATASET = (
    Row(f"GET {ONE}", READERS, private_dataset, sees=READERS),
    Row(f"GET {ONE}/export", READERS, private_dataset, sees=READERS),
    Row(f"GET {ONE}/edit", OWNERS, private_dataset, sees=OWNERS),
    Row(f"POST {ONE}/edit", OWNERS, private_dataset, always(EDITED)),
    Row(f"GET {ONE}/import", OWNERS, private_dataset, sees=OWNERS),
    Row(f"POST {ONE}/import", OWNERS, private_dataset, always({"format": "csv", "body": "t\n5"})),
    Row(f"POST {ONE}/keys", OWNERS, private_dataset, always({})),
    Row(f"GET {ONE}/keys/{{kind}}", OWNERS, private_dataset, sees=OWNERS),
    Row(f"POST {ONE}/keys/{{kind}}", OWNERS, private_dataset, always({})),
    Row(f"GET {ONE}/delete", OWNERS, private_dataset, sees=OWNERS),
    Row(f"POST {ONE}/delete", OWNERS, private_dataset, always({})),
    Row(f"POST {ONE}/restore", OWNERS, deleted_dataset, always({})),
)
SERVER = (
    Row("GET /users", ADMINS, sees=HERE),
    Row("POST /users/{user_id}/role", HERE, user, always({"role": "administrator"})),
    Row("GET /users/{user_id}/delete", HERE, user),
    Row("POST /users/{user_id}/delete", HERE, user, always({})),
    Row("POST /users/{user_id}/restore", HERE, deleted_user, always({})),
    Row("GET /users/invitations", ADMINS),
    Row("POST /users/invitations", ADMINS, body=always({"note": "for a friend", "days": "7"})),
    Row("POST /users/invitations/{invitation_id}/delete", HERE, invitation, always({})),
    Row("GET /logs", HERE),
    Row("GET /operations", HERE),
)
PAGES = (*FOR_ALL, *OWN, *A_DATASET, *SERVER)
WITHOUT_A_TRACE = ("POST /logout", f"POST {ONE}/keys")
"""Signing out is told to auth later, and looking at keys changes no row."""
