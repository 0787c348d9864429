"""Writing and correcting readings."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from uuid import UUID

from services.ingest import rules
from services.ingest.answers import reading_of, value_fields
from services.ingest.columns import Columns
from services.ingest.deps import Deps
from services.ingest.formats import Items, raw_values, read_body
from services.ingest.handlers.keys import proved
from services.ingest.numbering import Asked, Desk, Outcome, arrays, imports_of, own_ids_of
from services.ingest.rules import Known
from services.ingest.values import Fault, Stored, from_json
from shared.bus.routes import Done, Guess, Job, Routes
from shared.contracts.base import FieldError
from shared.contracts.ingest import CorrectReading, Reading, WriteReadings
from shared.errors import Invalid, NotFound, Refusal

routes = Routes("ingest")
SMALL_BODY, LARGE_BODY = 4_096, 65_536


def guess(jobs: Sequence[Job[WriteReadings]], deps: Deps) -> Guess | None:
    """The same from memory, when nothing has to be looked up and nothing is wrong with any of them."""
    known: dict[UUID, Known] = {}
    asked = []
    for job in jobs:
        write = job.message
        dataset = known.get(write.dataset_id) or deps.store.remembered.as_if_now(write.dataset_id)
        if dataset is None or write.source or len(write.body) > SMALL_BODY:
            return None
        known[dataset.id] = dataset
        asked.append(Asked(write, job.caller, _items(job, deps)))
    if own_ids_of(asked, known):
        return None
    plan = Desk(known, {}, {}).decide(asked)
    if any(isinstance(outcome, Refusal) for outcome in plan.outcomes):
        return None
    return deps.store.guess(plan)


@routes.batch(WriteReadings, guess=guess)
async def write_readings(jobs: Sequence[Job[WriteReadings]], deps: Deps) -> list[Outcome]:
    asked = []
    callers = await proved([job.caller for job in jobs], deps)
    for job, caller in zip(jobs, callers, strict=True):
        asked.append(Asked(job.message, caller, _items(job, deps)))
        if len(job.message.body) > LARGE_BODY:
            await asyncio.sleep(0)  # heartbeats of the broker go on between large bodies
    known = await deps.store.locked(await deps.store.lock_counters({one.write.dataset_id for one in asked}))
    own_ids = await deps.store.own_ids(own_ids_of(asked, known))
    positions = await deps.store.positions(imports_of(asked, known))
    plan = Desk(known, own_ids, positions).decide(asked)
    await deps.store.carry_out(plan)
    for account in plan.accounts.values():
        deps.store.remembered.numbered(account.known.number, account.last_entry)
    return plan.outcomes


def _items(job: Job[WriteReadings], deps: Deps) -> Items | Columns | Refusal:
    # A message that did not come through our door may not say when it was born.
    born = job.born if job.born >= deps.span.oldest else deps.now
    try:
        return read_body(job.message, born, deps.span)
    except Refusal as refusal:
        return refusal


@routes.command(CorrectReading)
async def correct_reading(cmd: CorrectReading, deps: Deps) -> Done[Reading]:
    found = await deps.store.locked(await deps.store.lock_counters({cmd.dataset_id}))
    known = rules.for_writer(found.get(cmd.dataset_id), deps.caller)
    row = await deps.store.reading(known, cmd.entry)
    if row is None:
        raise NotFound("no such reading")
    given = _corrections(cmd.values, {v.tag: v.field for v in known.variables if not v.retired})
    columns = arrays(value_fields(row) | given)
    await deps.store.correct(known, row, *columns)
    corrected = {**row, **dict(zip(("numbers", "exact", "whole"), columns, strict=True))}
    return Done(reading_of(corrected, rules.selected(known, ())))


def _corrections(raw: bytes, fields: dict[str, int]) -> dict[int, Stored]:
    errors: list[FieldError] = []
    given: dict[int, Stored] = {}
    try:
        values = raw_values(raw)
    except Fault as fault:
        raise Refusal(fault.message, code="malformed") from None
    for tag, value in values.items():
        try:
            if tag not in fields:
                raise Fault("unknown_variable", "no such variable, or a retired one")
            given[fields[tag]] = from_json(value)
        except Fault as fault:
            errors.append(FieldError(path=f"values.{tag}", code=fault.code, message=fault.message))
    if errors or not given:
        raise Invalid("the values cannot be like this" if errors else "no value given", errors=errors)
    return given
