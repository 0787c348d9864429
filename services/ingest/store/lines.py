"""The lines of an export, written by PostgreSQL: the same as `answers.printer` writes, for a fifth of it.

An expression is NULL where SQL cannot be sure to write the same; whoever asks prints those rows itself.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from services.ingest.answers import PLACE, Layout


class Lines(msgspec.Struct, frozen=True):
    """The pieces of a statement: columns of the table, the line made of them, what its parameters are."""

    columns: str
    line: str
    parameters: tuple[str, ...] = ()


def lines_of(layout: Layout, first_parameter: int) -> Lines:
    """The SQL of a layout, its own parameters numbered from `first_parameter` on."""
    fields = [variable.field for variable in layout.variables]
    columns = ", ".join(
        ["at", "entry", "whole", "status", *(f"place[{at}] AS p{at}" for at in (1, 2, 3))]
        + [f"numbers[{field}] AS n{field}, exact[{field}] AS e{field}" for field in fields]
    )
    if layout.format == "csv":
        return Lines(columns, _csv(fields, layout.parts))
    keys = tuple(f',"{variable.tag}":' for variable in layout.variables)
    return Lines(columns, _json(fields, first_parameter), keys)


_AT = """to_char(at AT TIME ZONE INTERVAL '0', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')"""


def _csv(fields: Sequence[int], parts: Sequence[str]) -> str:
    cells = [_csv_cell(field) for field in fields] + [_csv_part(name) for name in parts]
    return f"chr(10) || {_AT}" + "".join(f" || ',' || {cell}" for cell in cells)


def _csv_cell(field: int) -> str:
    return f"""CASE left(e{field}, 1)
        WHEN 't' THEN {_csv_text(f"substr(e{field}, 2)", f"n{field}")}
        WHEN 'i' THEN substr(e{field}, 2)
        WHEN 'n' THEN ''
        ELSE CASE WHEN n{field} IS NULL THEN '' ELSE {_number(field)} END END"""


def _csv_text(text: str, number: str) -> str:
    """Quoted if it is special, or if it is how the number that it shows is printed."""
    return f"""CASE
        WHEN {number} IS NOT NULL AND {_double(number)} IS NULL THEN NULL
        WHEN {text} = '' OR translate({text}, E'",\\r\\n', '') <> {text} OR {number} IS NOT NULL AND
            CASE WHEN {number} = trunc({number})
                THEN {text} = {number}::text AND {text} <> '-0' OR {text} = {_double(number)}
                ELSE {text} = {_double(number)} END
        THEN '"' || replace({text}, '"', '""') || '"'
        ELSE {text} END"""


def _csv_part(name: str) -> str:
    if name == "status":
        return f"""CASE WHEN status IS NULL THEN ''
            WHEN status ~ '^-?[0-9]' THEN NULL ELSE {_csv_text("status", "NULL::float8")} END"""
    number = f"p{PLACE.index(name) + 1}"
    return f"CASE WHEN {number} IS NULL THEN '' ELSE {_double(number)} END"


def _number(field: int) -> str:
    return f"""CASE WHEN (whole >> {field - 1}) & 1 = 1 THEN n{field}::bigint::text
        ELSE {_double(f"n{field}")} END"""


def _double(number: str) -> str:
    """In the range where PostgreSQL and JSON write the same digits and no exponent."""
    return f"""CASE WHEN {number} = 0 OR abs({number}) >= 1e-4 AND abs({number}) < 1e15
        THEN CASE WHEN {number} = trunc({number}) THEN {number}::text || '.0' ELSE {number}::text END END"""


def _json(fields: Sequence[int], first_parameter: int) -> str:
    values = "".join(f" || {_json_value(field, first_parameter + at)}" for at, field in enumerate(fields))
    parts = "".join(
        f""" || CASE WHEN p{at} IS NULL THEN '' ELSE ',"{name}":' || {_double(f"p{at}")} END"""
        for at, name in enumerate(PLACE, 1)
    )
    return f"""'{{"entry":' || entry || ',"at":"' || {_AT} || '","values":{{' || substr(''{values}, 2) || '}}'
        || CASE WHEN status IS NULL THEN '' ELSE ',"status":' || to_json(status)::text END{parts}
        || '}}' || chr(10)"""


def _json_value(field: int, parameter: int) -> str:
    return f"""CASE left(e{field}, 1)
        WHEN 't' THEN ${parameter}::text || to_json(substr(e{field}, 2))::text
        WHEN 'i' THEN ${parameter}::text || substr(e{field}, 2)
        WHEN 'n' THEN ${parameter}::text || 'null'
        ELSE CASE WHEN n{field} IS NULL THEN '' ELSE ${parameter}::text || {_number(field)} END END"""
