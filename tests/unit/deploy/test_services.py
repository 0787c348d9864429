"""What each service is told, and nothing more."""

from __future__ import annotations

from pathlib import Path

import pytest

from deploy.identity import derive_password
from deploy.local.errors import Failure
from deploy.local.instance import Instance
from deploy.local.ports import Ports
from deploy.local.program import Program
from deploy.local.services import Addresses, Services, service_names, with_account
from deploy.local.settings import load

ADMIN = Addresses(
    amqp="amqp://admin:top@127.0.0.1:5672",
    management="http://admin:top@127.0.0.1:15672",
    mqtt="mqtt://127.0.0.1:1883",
    database="postgresql://postgres:top@127.0.0.1:5432/posthouse?sslmode=disable",
    redis="redis://:word@127.0.0.1:6379/0",
)

DOOR = 7


def programs(root: Path, scale: dict[str, int], **given: str) -> dict[str, Program]:
    for name in ("gateway", "auth", "ingest"):
        (root / "services" / name).mkdir(parents=True)
        (root / "services" / name / "__main__.py").touch()
    (root / "services" / "unfinished").mkdir()
    instance = Instance(load(root, given), root)
    ports = Ports(root / "ports.json")
    return {one.name: one for one in Services(instance, ports, ADMIN, "key", scale).programs(DOOR)}


def test_every_service_is_started_and_the_door_last(tmp_path: Path) -> None:
    assert list(programs(tmp_path, {})) == ["auth", "ingest", "gateway"]
    assert service_names(Instance(load(tmp_path, {}), tmp_path)) == ["auth", "ingest", "gateway"]


def test_a_service_has_its_own_accounts_and_never_the_administrators(tmp_path: Path) -> None:
    env = programs(tmp_path, {}, POSTHOUSE_MANAGEMENT_URL=ADMIN.management)["auth"].env

    amqp, role = derive_password("key", "amqp:auth"), derive_password("key", "postgres:posthouse_auth")
    assert env["POSTHOUSE_AMQP_URL"] == f"amqp://auth:{amqp}@127.0.0.1:5672"
    assert env["POSTHOUSE_DATABASE_URL"] == (
        f"postgresql://posthouse_auth:{role}@127.0.0.1:5432/posthouse?sslmode=disable"
    )
    assert env["POSTHOUSE_REDIS_URL"] == ADMIN.redis
    assert env["POSTHOUSE_SECRET_KEY"] == "key"
    assert "top" not in "".join(value for name, value in env.items() if name.startswith("POSTHOUSE_"))


def test_a_setting_from_the_file_reaches_the_services(tmp_path: Path) -> None:
    (tmp_path / "posthouse.env").write_text("POSTHOUSE_NEWEST_AHEAD_HOURS=1\n")
    assert programs(tmp_path, {})["ingest"].env["POSTHOUSE_NEWEST_AHEAD_HOURS"] == "1"


def test_a_gateway_is_asked_at_a_port_of_its_own_not_where_another_may_answer(tmp_path: Path) -> None:
    gateway = programs(tmp_path, {})["gateway"]

    assert gateway.probes == (f"http://{gateway.env['POSTHOUSE_OPS_ADDRESS']}/readyz",)
    assert gateway.address == f"http://127.0.0.1:{gateway.env['POSTHOUSE_PORT']}"


def test_several_gateways_share_the_web_port_and_each_can_be_asked(tmp_path: Path) -> None:
    both = programs(tmp_path, {"gateway": 2, "ingest": 3})

    one, two = both["gateway"], both["gateway-2"]
    assert one.env["POSTHOUSE_PORT"] == two.env["POSTHOUSE_PORT"]
    assert one.env["POSTHOUSE_LISTEN_FD"] == two.env["POSTHOUSE_LISTEN_FD"] == str(DOOR)
    assert one.fds == two.fds == (DOOR,)
    assert both["ingest"].fds == ()
    assert one.probes != two.probes
    assert two.probes == (f"http://{two.env['POSTHOUSE_OPS_ADDRESS']}/readyz",)
    assert {"ingest", "ingest-2", "ingest-3"} < set(both)
    assert both["ingest"].env["POSTHOUSE_AMQP_URL"] == both["ingest-3"].env["POSTHOUSE_AMQP_URL"]


def test_a_scale_for_a_service_there_is_not_is_refused(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="no service ingets; there are auth, ingest, gateway"):
        programs(tmp_path, {"ingets": 2})


def test_an_account_replaces_the_one_in_an_address() -> None:
    assert with_account("amqp://a:b@h:1/x", "n@me", "p/w") == "amqp://n%40me:p%2Fw@h:1/x"
    assert with_account("amqp://h:1", "n", "p") == "amqp://n:p@h:1"


def test_the_gateway_alone_may_look_at_queues_and_with_an_account_that_changes_nothing(
    tmp_path: Path,
) -> None:
    all_of_them = programs(tmp_path, {})
    password = derive_password("key", "amqp:monitor")
    given = {name: one.env.get("POSTHOUSE_MANAGEMENT_URL") for name, one in all_of_them.items()}
    address = f"http://monitor:{password}@127.0.0.1:15672"
    assert given == {"gateway": address, "auth": None, "ingest": None}
