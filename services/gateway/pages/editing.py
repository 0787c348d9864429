"""New and edit: the form of a dataset, its variables added, retired and brought back in the page."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import msgspec
from aiohttp import web

from services.gateway.http.validate import mistakes as found_in
from services.gateway.pages.datasets import ONE, own
from services.gateway.pages.site import Site, Visit
from shared.contracts.base import FieldError
from shared.contracts.ingest import MAX_VARIABLES, ChangeDataset, CreateDataset, Dataset, Variable
from shared.errors import Invalid, Refusal

site = Site()
EMPTY_ROWS = 3
MORE_ROWS = 5
MOST_ROWS = 3 * MAX_VARIABLES
_VARIABLE = re.compile(r"variables(?:\[(\d+)\]|\.(\d+))\.?(\w*)")
_WORDS = {
    ("tag", "pattern"): "Only letters, digits and _ . - are possible, beginning with a letter, a digit or _.",
    ("tag", "too_short"): "Give the variable a tag: programs send its values under it.",
    ("tag", "tag_twice"): "Another variable has this tag.",
    ("tag", "reserved_tag"): "Every reading has a part of this name: choose another tag.",
    ("name", "too_short"): "Give it a name.",
    ("variables", "too_long"): f"A dataset has at most {MAX_VARIABLES} variables.",
}


@dataclass(frozen=True)
class Row:
    """One variable as the form has it; `known` ones belong to the dataset, with or without `used`."""

    tag: str = ""
    name: str = ""
    unit: str = ""
    known: bool = False
    was_retired: bool = False
    used: bool = True

    @property
    def is_empty(self) -> bool:
        """Whether nobody wrote anything here."""
        return not (self.known or self.tag or self.name or self.unit)


@dataclass(frozen=True)
class Draft:
    """What a form holds."""

    name: str = ""
    description: str = ""
    public: bool = False
    version: int = 0
    rows: tuple[Row, ...] = ()
    wrong: dict[str, str] = field(default_factory=dict)

    def with_empty(self, more: int) -> Draft:
        """With rows to write in."""
        return replace(self, rows=(*self.rows, *(Row() for _ in range(more)))[:MOST_ROWS])

    @property
    def new(self) -> Row:
        """A row to write in."""
        return Row()

    @property
    def wanted(self) -> dict[int, dict[str, str]]:
        """The variables there shall be, by the number of their row."""
        return {
            number: {"tag": row.tag, "name": row.name, "unit": row.unit}
            for number, row in enumerate(self.rows)
            if row.used and not row.is_empty
        }

    def values(self) -> dict[str, Any]:
        """As the API takes it."""
        return {
            "name": self.name,
            "description": self.description,
            "public": self.public,
            "variables": list(self.wanted.values()),
        }

    def refused(self, error: Refusal) -> Draft:
        """With every mistake beside its field."""
        numbers = list(self.wanted)
        found: dict[str, str] = {}
        for wrong in error.errors:
            found.setdefault(*_placed(wrong, numbers))
        return replace(self, wrong=found or {"": error.detail})


def _placed(wrong: FieldError, numbers: list[int]) -> tuple[str, str]:
    """The field of the form a mistake belongs to, and the mistake in words."""
    inside = _VARIABLE.match(wrong.path)
    name = wrong.path
    leaf = name
    if inside:
        leaf = inside[3] or "tag"
        name = f"{leaf}-{numbers[int(inside[1] or inside[2])]}"
    known = _WORDS.get((leaf, wrong.code))
    text = known or wrong.message or wrong.code
    return name, text[:1].upper() + text[1:] + ("" if text.endswith(".") else ".")


def read(form: Mapping[str, str]) -> Draft:
    """What was sent; what cannot be in a form of ours is passed over."""
    rows = tuple(_row(form, number) for number in range(_number(form.get("rows", ""), MOST_ROWS)))
    return Draft(
        name=form.get("name", "").strip(),
        description=form.get("description", "").replace("\r\n", "\n").strip(),
        public=form.get("public") == "yes",
        version=_number(form.get("version", ""), 2**31),
        rows=rows,
    )


def _row(form: Mapping[str, str], number: int) -> Row:
    known = form.get(f"known-{number}", "")
    return Row(
        tag=form.get(f"tag-{number}", "").strip(),
        name=form.get(f"name-{number}", "").strip(),
        unit=form.get(f"unit-{number}", "").strip(),
        known=bool(known),
        was_retired=known == "retired",
        used=not known or form.get(f"used-{number}") == "yes",
    )


def _number(text: str, most: int) -> int:
    return min(int(text), most) if text.isascii() and text.isdigit() and len(text) < 10 else 0


def of(dataset: Dataset) -> Draft:
    """The form of a dataset as it is."""
    return Draft(
        name=dataset.name,
        description=dataset.description,
        public=dataset.public,
        version=dataset.version,
        rows=tuple(_known_row(variable) for variable in dataset.variables),
    )


def _known_row(one: Variable) -> Row:
    return Row(one.tag, one.name, one.unit, known=True, was_retired=one.retired, used=not one.retired)


def checked(kind: type[msgspec.Struct], values: Mapping[str, Any]) -> Any:
    """The message these values make; raises Invalid with every mistake."""
    wrong = list(found_in(values, kind))
    if wrong:
        raise Invalid(errors=wrong)
    return msgspec.convert(values, kind)


# -- new


@site.get("/datasets/new")
async def new(visit: Visit) -> web.Response:
    """The empty form."""
    return _form(visit, Draft().with_empty(EMPTY_ROWS))


@site.post("/datasets")
async def create(visit: Visit) -> web.Response:
    """Make it, or the form again with what is wrong."""
    draft = read(visit.form)
    if visit.form.get("act") == "rows":
        return _form(visit, draft.with_empty(MORE_ROWS), more=True)
    try:
        made = await visit.ask(checked(CreateDataset, draft.values()))
    except Refusal as error:
        if error.status >= 500 or error.status in (401, 403):
            raise
        return _form(visit, draft.refused(error), status=422)
    path = f"/datasets/{made.dataset.id}"
    return visit.go(path, f"“{made.dataset.name}” is there. Send it its first reading.")


def _form(visit: Visit, draft: Draft, status: int = 200, **more: Any) -> web.Response:
    known: dict[str, Any] = {"dataset": None, "draft": draft, "theirs": (), "more": False} | more
    return visit.page("dataset_form.html", status, **known)


# -- edit


@site.get(f"{ONE}/edit")
async def edit(visit: Visit) -> web.Response:
    """The form as the dataset is."""
    dataset, _ = await own(visit)
    return _form(visit, of(dataset).with_empty(_free(of(dataset))), dataset=dataset)


def _free(draft: Draft) -> int:
    return min(1, MAX_VARIABLES - len(draft.rows))


@site.post(f"{ONE}/edit")
async def change(visit: Visit) -> web.Response:
    """Change it, unless somebody else did meanwhile."""
    dataset, _ = await own(visit)
    draft = read(visit.form)
    if visit.form.get("act") == "rows":
        return _form(visit, draft.with_empty(MORE_ROWS), dataset=dataset, more=True)
    given = draft.values() | {"dataset_id": str(dataset.id), "if_version": draft.version}
    try:
        changed = await visit.ask(checked(ChangeDataset, given))
    except Refusal as error:
        if error.status == 412:
            return await _changed_meanwhile(visit, draft)
        if error.status >= 500 or error.status in (401, 403, 404):
            raise
        return _form(visit, draft.refused(error), status=422, dataset=dataset)
    return visit.go(f"/datasets/{dataset.id}", f"“{changed.name}” is changed.")


async def _changed_meanwhile(visit: Visit, typed: Draft) -> web.Response:
    """The present state, and beside it what the person had typed."""
    dataset, _ = await own(visit)
    now = of(dataset)
    return _form(
        visit, now.with_empty(_free(now)), status=412, dataset=dataset, theirs=differences(typed, now)
    )


def differences(typed: Draft, now: Draft) -> list[tuple[str, str]]:
    """What the person wanted that is not so now."""
    found = []
    if typed.name != now.name:
        found.append(("Name", typed.name))
    if typed.description != now.description:
        found.append(("Description", typed.description or "(none)"))
    if typed.public != now.public:
        found.append(("Who can see it", "everybody" if typed.public else "only you"))
    before = {row["tag"]: row for row in now.wanted.values()}
    wanted = {row["tag"]: row for row in typed.wanted.values()}
    found += [("Variable", _told(row)) for tag, row in wanted.items() if before.get(tag) != row]
    found += [("Retired", tag) for tag in before if tag not in wanted]
    return found


def _told(row: Mapping[str, str]) -> str:
    more = ", ".join(filter(None, (row["name"], row["unit"])))
    return f"{row['tag']} ({more})" if more else row["tag"]
