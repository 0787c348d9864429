"""Requests made up from the OpenAPI of a running instance, and what its answers say against it."""

from __future__ import annotations

import json
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from random import Random
from typing import Any

import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, seed
from hypothesis import settings as hypothesis_settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.core.result import Ok
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
]
AT_ONCE = 20
REAL = 0.8
"""The share of cases that name a dataset there is; the others keep the id that was made up."""
ANSWER_SECONDS = 40.0
NO_LIVE_LOG = "/v1/logs/live"  # it has no end


@dataclass(frozen=True)
class Order:
    """What to do, as one line of JSON: `part` of `parts` equal shares of the operations, `cases` of them."""

    url: str
    name: str
    password: str
    cases: int
    seed: str
    part: int = 0
    parts: int = 1


@dataclass
class Found:
    """What came of it, as one line of JSON."""

    cases: int = 0
    statuses: Counter[str] = field(default_factory=Counter)
    wrong: list[str] = field(default_factory=list)
    """Answers 500, answers that the description does not know, and no answer at all."""

    @property
    def failed(self) -> int:
        """How many answers were a mistake of the server's."""
        return self.statuses["500"]


@dataclass(frozen=True)
class Deal:
    """One way to ask: an operation, with data as described or not, by its owner or by nobody."""

    operation: Any
    mode: GenerationMode
    owned: bool


class Person:
    """Whose account and dataset are asked about; signs in again after a case has ended the session."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self.session = requests.Session()
        self._token = ""
        self.dataset = ""

    @property
    def headers(self) -> dict[str, str]:
        """Who is calling."""
        return {"Authorization": f"Bearer {self._token}"}

    def ready(self) -> None:
        """Have a session, the name it had, and a dataset with a reading."""
        me = self._ask("GET", "/v1/me") if self._token else None
        if me is None or me.status_code == 401:
            self._sign_in()
        elif me.json()["name"] != self._order.name:
            self._ask("PATCH", "/v1/me", {"name": self._order.name})
        path = f"/v1/datasets/{self.dataset}"
        if not self.dataset or self._ask("GET", path).status_code != 200:
            made = {"name": "made up", "variables": [{"tag": "n"}]}
            self.dataset = self._ask("POST", "/v1/datasets", made).json()["id"]
            path = f"/v1/datasets/{self.dataset}"
        self._ask("POST", f"{path}/readings", {"values": {"n": 1}})

    def _sign_in(self) -> None:
        who = {"name": self._order.name, "password": self._order.password}
        end = time.monotonic() + ANSWER_SECONDS
        while True:
            answer = self.session.post(f"{self._order.url}/v1/sessions", json=who, timeout=ANSWER_SECONDS)
            if answer.status_code not in (429, 503) or time.monotonic() > end:
                break
            time.sleep(float(answer.headers["Retry-After"]))
        assert answer.status_code == 201, f"nobody is let in: {answer.status_code} {answer.text}"
        self._token = answer.json()["access_token"]

    def _ask(self, method: str, path: str, body: Any = None) -> requests.Response:
        return self.session.request(
            method, self._order.url + path, json=body, headers=self.headers, timeout=ANSWER_SECONDS
        )


class Asking:
    """Asks as many cases as ordered."""

    def __init__(self, order: Order) -> None:
        self._order = order
        self._dice = Random(f"{order.seed} {order.part}")
        self._person = Person(order)
        self.found = Found()

    def run(self) -> Found:
        """Deal after deal in an order of chance, again and again with other data."""
        deals = list(self._deals())
        while self.found.cases < self._order.cases and deals:
            self._dice.shuffle(deals)
            deals = [deal for deal in deals if self._any_left(deal)]
        return self.found

    def _deals(self) -> Iterator[Deal]:
        session, order = self._person.session, self._order
        described = session.get(f"{order.url}/openapi.json", timeout=ANSWER_SECONDS).json()
        schema = schemathesis.openapi.from_dict(described).exclude(path=NO_LIVE_LOG)
        operations = [each.ok() for each in schema.get_all_operations() if isinstance(each, Ok)]
        for operation in operations[order.part :: order.parts]:
            for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
                for owned in (True, False):
                    yield Deal(operation, mode, owned)

    def _any_left(self, deal: Deal) -> bool:
        """Some cases of a deal; false when there are no others, as for an operation without input."""
        share = AT_ONCE if deal.owned else AT_ONCE // 4  # nobody is mostly told to sign in
        most = min(share, self._order.cases - self.found.cases)
        if not most:
            return True
        self._person.ready()
        before = self.found.cases

        @seed(self._dice.getrandbits(64))
        @hypothesis_settings(
            max_examples=most,
            deadline=None,
            database=None,
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        )
        @given(case=deal.operation.as_strategy(generation_mode=deal.mode))
        def ask(case: Any) -> None:
            self._ask(case, deal)

        try:
            ask()
        except Unsatisfiable:
            return False
        return self.found.cases - before >= most // 2

    def _ask(self, case: Any, deal: Deal) -> None:
        case.headers.pop("X-API-Key", None)
        if "dataset_id" in case.path_parameters and self._dice.random() < REAL:
            case.path_parameters["dataset_id"] = self._person.dataset
        self.found.cases += 1
        try:
            answer = case.call(
                base_url=self._order.url,
                session=self._person.session,
                headers=self._person.headers if deal.owned else {},
                timeout=ANSWER_SECONDS,
            )
        except requests.RequestException as error:
            self.found.wrong.append(f"{deal.operation.label}: {error!r}")
            return
        self.found.statuses[str(answer.status_code)] += 1
        self._check(case, answer, deal)

    def _check(self, case: Any, answer: Any, deal: Deal) -> None:
        try:
            case.validate_response(answer, checks=CHECKS)
        except (Exception, BaseExceptionGroup) as group:
            words = " ".join(str(group).split())
            self.found.wrong.append(f"{deal.operation.label}: {words[:1_000]}")


@schemathesis.serializer("application/ndjson", "application/x-ndjson")
def ndjson(context: Any, value: Any) -> bytes:
    """What a generator of JSON knows about lines."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "replace")


if __name__ == "__main__":
    print(json.dumps(vars(Asking(Order(**json.loads(sys.argv[1]))).run())), flush=True)
