"""Who may do what, written by hand from what is promised: a row for each operation and kind of thing."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tests.faults.access import (
    ADMIN,
    ADMIN_ELSEWHERE,
    ENDED,
    EXPIRED,
    GONE_KEY,
    MOVED,
    NOBODY,
    NOWHERE,
    OLD_KEY,
    OTHER,
    OTHER_KEY,
    OTHERS_BROWSER,
    OWNER,
    OWNERS_BROWSER,
    PASSWORD,
    READ_KEY,
    WRITE_KEY,
    Make,
    Thing,
    deleted_dataset,
    deleted_user,
    devices_submission,
    invitation,
    logged,
    nothing,
    owners_session,
    owners_submission,
    private_dataset,
    public_dataset,
    session,
    user,
)

Callers = frozenset[str]
BAD = frozenset({OLD_KEY, GONE_KEY, EXPIRED, ENDED})
FROM_ELSEWHERE = frozenset({MOVED, ADMIN_ELSEWHERE})
PEOPLE_HERE = frozenset({OWNER, OWNERS_BROWSER, OTHER, OTHERS_BROWSER, ADMIN})
PEOPLE = PEOPLE_HERE | FROM_ELSEWHERE
WITH_ACCOUNT = PEOPLE - {MOVED}
OWNERS = frozenset({OWNER, OWNERS_BROWSER})
WRITERS = OWNERS | {WRITE_KEY}
READERS = WRITERS | {READ_KEY}
ALL_HERE = PEOPLE_HERE | {READ_KEY, WRITE_KEY, OTHER_KEY, NOBODY}
GOOD = ALL_HERE | FROM_ELSEWHERE
ALL = GOOD | BAD
ADMINS = frozenset({ADMIN, ADMIN_ELSEWHERE})
NO_ONE: Callers = frozenset()
HERE = frozenset({ADMIN})

Body = Callable[[Thing], Any]


@dataclass(frozen=True)
class Row:
    """An operation on a thing: who may, and who is shown what the owner wrote.

    `sees` None: whoever may is perhaps shown it, others are not. `spends` says that the caller is not the
    same afterwards; `queued` that it can be asked for without waiting; `refused` are the answers to those
    who may not.
    """

    operation: str
    may: Callers
    thing: Make = nothing
    body: Body | None = None
    query: str = ""
    sees: Callers | None = None
    spends: bool = False
    queued: bool = False
    refused: frozenset[int] = frozenset({401, 403, 404})

    @property
    def name(self) -> str:
        """With the thing, when there is one."""
        return f"{self.operation} ({self.thing.__name__})"

    @property
    def method(self) -> str:
        """As HTTP has it."""
        return self.operation.partition(" ")[0]

    @property
    def changes(self) -> bool:
        """Whether the thing is another one afterwards."""
        return self.method != "GET"

    def path(self, thing: Thing) -> str:
        """Where it is asked for."""
        path = self.operation.partition(" ")[2] + self.query
        for name, value in (CONSTANTS | thing.names | thing.says).items():
            path = path.replace(f"{{{name}}}", value)
        return path

    def nowhere(self, thing: Thing) -> str:
        """The same request for a thing that is not there; empty when the path names none."""
        names = {name: NOWHERE[name] for name in thing.names if name in NOWHERE}
        return self.path(Thing(thing.names | names, says=thing.says)) if names else ""

    def knows(self, who: str) -> bool:
        """Whether a caller may know that the thing is there."""
        if self.thing in (private_dataset, public_dataset):
            return who in (READERS if self.thing is private_dataset else ALL_HERE)
        return who in self.may


CONSTANTS = {"service": "ingest", "file": "start.js", "code": "invalid"}
READING = {"values": {"t": 3}}


def always(body: Any) -> Body:
    """The same for everybody."""
    return lambda thing: body


def new_dataset(thing: Thing) -> Any:
    return {"name": "shed", "variables": [{"tag": "t"}]}


def new_account(thing: Thing) -> Any:
    name = f"n-{thing.names['invitation_id'][-12:]}"
    return {
        "name": name,
        "email": f"{name}@example.org",
        "password": "eleven purple kettles",
        "invitation": thing.says["invitation"],
    }


def credentials(thing: Thing) -> Any:
    return {"name": thing.says["name"], "password": PASSWORD}


def refreshing(thing: Thing) -> Any:
    return {"refresh_token": thing.says["refresh_token"]}


def other_name(thing: Thing) -> Any:
    return {"name": f"renamed-{secrets.token_hex(6)}"}


FIRST = always({"name": "eve", "email": "eve@example.org", "password": "eleven purple kettles"})
ONE = "/v1/datasets/{dataset_id}"
ALL_READINGS = f"{ONE}/readings"
READING_ONE = f"{ALL_READINGS}/{{entry}}"

PUBLIC_PATHS = (
    *("/", "/healthz", "/readyz", "/metrics", "/openapi.json", "/docs", "/docs/{file}", "/problems"),
    *("/problems/{code}", "/v1/services"),
)
OPEN = (
    *(Row(f"GET {path}", ALL, sees=NO_ONE) for path in PUBLIC_PATHS),
    Row("GET /v1/services/{service}", PEOPLE, sees=NO_ONE),
    Row("POST /v1/services/{service}/probes", PEOPLE, body=always({"text": "here"})),
)
ACCOUNTS = (
    Row("GET /v1/sign-up", GOOD, sees=NO_ONE),
    Row("POST /v1/setup", NO_ONE, body=FIRST, refused=frozenset({401, 409})),
    Row("POST /v1/users", ALL_HERE, invitation, new_account),
    Row("POST /v1/sessions", ALL_HERE, user, credentials),
    Row("POST /v1/sessions/refresh", GOOD, session, refreshing),
    Row("POST /v1/me/restore", ALL_HERE, deleted_user, credentials),
    Row("GET /v1/sessions", WITH_ACCOUNT, sees=OWNERS),
    Row("DELETE /v1/sessions", WITH_ACCOUNT, spends=True),
    Row("DELETE /v1/sessions/current", WITH_ACCOUNT, spends=True),
    Row("DELETE /v1/sessions/{session_id}", OWNERS, owners_session),
    Row("GET /v1/me", WITH_ACCOUNT, sees=OWNERS),
    Row("PATCH /v1/me", WITH_ACCOUNT, body=other_name, spends=True),
    Row("DELETE /v1/me", WITH_ACCOUNT, body=always({"password": PASSWORD}), spends=True),
    Row("GET /v1/users", ADMINS, sees=HERE),
    Row("PATCH /v1/users/{user_id}", HERE, user, always({"roles": ["administrator"]})),
    Row("DELETE /v1/users/{user_id}", HERE, user),
    Row("POST /v1/users/{user_id}/restore", HERE, deleted_user),
    Row("GET /v1/invitations", ADMINS, sees=HERE),
    Row("POST /v1/invitations", ADMINS, body=always({"note": "for a friend"})),
    Row("DELETE /v1/invitations/{invitation_id}", HERE, invitation),
)
SERVER = (
    Row("GET /v1/logs", HERE, logged, query="?request_id={request_id}", sees=HERE),
    Row("GET /v1/logs/live", HERE),
    Row("GET /v1/queues", HERE),
)
OWN_DATASETS = (
    Row("POST /v1/datasets", PEOPLE, body=new_dataset),
    Row("GET /v1/datasets", PEOPLE, sees=OWNERS),
    Row("GET /v1/datasets", PEOPLE, sees=OWNERS, query="?deleted=true"),
    Row("POST " + f"{ONE}/restore", OWNERS, deleted_dataset, queued=True),
    Row("GET /v1/submissions/{name}", OWNERS, owners_submission),
    Row("GET /v1/submissions/{name}", frozenset({WRITE_KEY}), devices_submission),
)


def of_a_dataset(thing: Make, readers: Callers) -> tuple[Row, ...]:
    """What can be done with one; being public lets others read and do nothing else."""
    return (
        Row(f"GET {ONE}", readers, thing, sees=readers),
        Row(f"PATCH {ONE}", OWNERS, thing, always({"description": "other words"}), queued=True),
        Row(f"DELETE {ONE}", OWNERS, thing, queued=True),
        Row(f"GET {ONE}/keys", OWNERS, thing),
        Row(f"POST {ONE}/keys/{{kind}}", OWNERS, thing),
        Row(f"GET {ONE}/ledger", READERS, thing),
        Row(f"GET {ONE}/imports/{{source}}", WRITERS, thing),
        Row(f"POST {ALL_READINGS}", WRITERS, thing, always(READING), queued=True),
        Row(f"GET {ALL_READINGS}", readers, thing, sees=readers),
        Row(f"DELETE {ALL_READINGS}", OWNERS, thing, query="?all=true", queued=True),
        Row(f"GET {ALL_READINGS}/latest", readers, thing, sees=readers),
        Row(f"GET {ALL_READINGS}.csv", readers, thing, sees=readers),
        Row(f"GET {ALL_READINGS}.ndjson", readers, thing, sees=readers),
        Row(f"GET {READING_ONE}", readers, thing, sees=readers),
        Row(f"PATCH {READING_ONE}", WRITERS, thing, always(READING), queued=True),
        Row(f"DELETE {READING_ONE}", OWNERS, thing, queued=True),
    )


PRIVATE = of_a_dataset(private_dataset, READERS)
ROWS = (
    *OPEN,
    *ACCOUNTS,
    *SERVER,
    *OWN_DATASETS,
    *PRIVATE,
    *of_a_dataset(public_dataset, ALL_HERE),
)
