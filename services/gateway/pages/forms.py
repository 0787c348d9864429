"""A form that came back: what was typed, what is wrong with it, and the page that shows both."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, TypeVar

from aiohttp import web

from services.gateway.pages.site import Visit, mistakes, words_of
from shared.bus.requests import CallFailed
from shared.contracts.base import Command
from shared.errors import Refusal

R = TypeVar("R")
NOTHING: Mapping[str, str] = MappingProxyType({})
EMPTY = "Please fill this in."


class Form:
    """The fields in their order, each with the most characters it takes; all are needed but the `optional`.

    `called` gives the fields that have another name in the service's words. `wrong` has what is to be mended
    by the name of the field, under the empty name what belongs to none.
    """

    def __init__(
        self,
        visit: Visit,
        fields: Mapping[str, int],
        *,
        optional: tuple[str, ...] = (),
        called: Mapping[str, str] = NOTHING,
    ) -> None:
        self._visit = visit
        self._called = called
        self._fields = fields
        self.wrong: dict[str, str] = {}
        self.status = 200
        self._same_again = False
        self._headers: dict[str, str] = {}
        for name, most in fields.items():
            if not self[name] and name not in optional:
                self.mark(name, EMPTY)
            elif len(self[name]) > most:
                self.mark(name, f"Please use at most {most} characters.")

    def __getitem__(self, name: str) -> str:
        text = self._visit.form.get(name, "")
        return text if "password" in name else text.strip()

    def mark(self, name: str, sentence: str) -> None:
        """Something is wrong with a field; the first mistake of each is said."""
        self.wrong.setdefault(name, sentence)
        self.status = self.status if self.status >= 400 else 422

    def twice(self, name: str, again: str) -> None:
        """What cannot be seen while it is typed is typed twice."""
        if self[name] and self[again] and self[name] != self[again]:
            self.mark(again, "This differs from the first.")

    async def send(self, command: Command[R]) -> R | None:
        """The reply; None when something is wrong with the form, or was found wrong by the service."""
        if self.wrong:
            return None
        try:
            return await self._visit.ask(command)
        except (Refusal, CallFailed) as error:
            self.blame(error)
            return None

    def blame(self, error: Refusal | CallFailed) -> None:
        """Show a failure beside what was typed; trying again is the same request if nothing was refused."""
        if isinstance(error, Refusal):
            for known, text in mistakes(error).items():
                name = self._called.get(known, known)
                self.wrong.setdefault(name if name in self._fields else "", text)
        else:
            title, advice = words_of(error.code, error.status)
            self.wrong[""] = f"{title}. {advice}"
            self._same_again = True
        # A browser would ask for a password of its own at 401.
        self.status = 422 if error.status == 401 else error.status
        if seconds := getattr(error, "retry_after", 0):
            self._headers["Retry-After"] = str(seconds)

    def page(self, template: str, **more: Any) -> web.Response:
        """The page with the form as it was sent, without passwords."""
        ordered = {name: self.wrong[name] for name in ("", *self._fields) if name in self.wrong}
        again = self._visit.form.get("_once", "") if self._same_again else ""
        response = self._visit.page(template, self.status, wrong=ordered, again=again, **more)
        response.headers.update(self._headers)
        return response
