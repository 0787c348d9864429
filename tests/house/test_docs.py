"""What the documentation says about the code is what the code says about itself."""

from __future__ import annotations

import re
from pathlib import Path
from uuid import UUID

import msgspec
import pytest

from shared.bus import codec, topology
from shared.bus.codec import Frame, ReplyFrame
from shared.contracts.base import Principal
from shared.contracts.submissions import RefusalBody
from tests.house.generated import BLOCKS, ROOT, contracts, rewritten, services

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
README = ROOT / "README.md"
LONGEST_README = 150


@pytest.mark.parametrize("path", sorted(BLOCKS), ids=lambda path: path.name)
def test_tables_follow_from_the_code(path: Path) -> None:
    before, after = next((before, after) for name, before, after in rewritten() if name == path)
    assert before == after, "write them again with: .venv/bin/python -m tests.house.generated"


def test_every_topic_and_every_service_is_in_the_readme() -> None:
    rows = {
        line.split("|")[1].strip(" `"): line for line in README.read_text().splitlines() if line[:1] == "|"
    }
    assert set(services()) <= set(rows)
    for message in contracts():
        owner, _, name = message.topic.partition(".")
        assert re.search(rf"\b{name}\b", rows[owner]), message.topic


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= LONGEST_README


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.name)
def test_links_lead_somewhere(page: Path) -> None:
    text = page.read_text()
    for target in re.findall(r"\]\((?!https?:)([^)#]*)(?:#[^)]*)?\)", text):
        assert not target or (page.parent / target).exists(), target
    for name in re.findall(r"`((?:docs|deploy|services|shared|tests)/[\w./-]+\.\w+)`", text):
        assert (ROOT / name).exists(), name


FRAME_ID = UUID("01932b6d-b4f0-7a51-9c3e-0d6f8a2b4c1e")
QUERY = Frame(
    id=FRAME_ID,
    topic="weather.get_forecast",
    kind="query",
    body=msgspec.Raw(msgspec.msgpack.encode({"city": "Seattle"})),
    call=7,
    request_id="r-1",
    principal=Principal(kind="user", id="u1"),
    mode="wait",
    remaining_ms=10_000,
    sent_at=1_731_600_000_000,
    born=1_731_600_000_000,
)
REPLY = ReplyFrame(
    id=FRAME_ID, call=7, body=msgspec.Raw(msgspec.msgpack.encode({"city": "Seattle", "wind": 4.2}))
)
REFUSAL = ReplyFrame(
    id=FRAME_ID,
    call=7,
    status=404,
    refusal=RefusalBody(status=404, code="not_found", detail="no such city"),
)


@pytest.mark.parametrize(("name", "frame"), [("query", QUERY), ("reply", REPLY), ("refusal", REFUSAL)])
def test_the_bytes_on_the_page_are_the_bytes_on_the_wire(name: str, frame: Frame | ReplyFrame) -> None:
    page = (ROOT / "docs" / "wire.md").read_text()
    [block] = re.findall(rf"^```hex {name}\n(.*?)^```$", page, re.M | re.S)
    assert bytes.fromhex(block).hex() == codec.join([codec.encode(frame)]).hex()


def test_every_key_of_a_frame_is_on_the_page() -> None:
    page = (ROOT / "docs" / "wire.md").read_text()
    for kind in (Frame, ReplyFrame, Principal, RefusalBody):
        for name in kind.__struct_fields__:
            assert f"`{name}`" in page, f"{kind.__name__}.{name}"


def test_every_exchange_is_on_the_page() -> None:
    page = (ROOT / "docs" / "wire.md").read_text()
    for exchange in (*topology.TOPIC_EXCHANGES, topology.REPLIES):
        assert f"| `{exchange}` |" in page


def test_the_curl_session_can_be_pasted() -> None:
    assert curl_session().startswith(". ./.local/addresses.env\n")


def curl_session() -> str:
    """The commands under the heading about curl."""
    [session] = re.findall(r"^## [^\n]*curl[^\n]*\n\n```sh\n(.*?)^```$", README.read_text(), re.M | re.S)
    return str(session)
