"""A RabbitMQ of another release is chosen, fetched and started with the libraries it was built for."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from deploy.local import rabbitmq, rabbitmq4
from deploy.local.debian import Apt, Release
from deploy.local.errors import Failure
from deploy.local.instance import Instance
from deploy.local.rabbitmq import Rabbit, RabbitPorts
from deploy.local.settings import load
from deploy.local.testing import given

# Prints how it was started, as the loader of a C library would find it.
LOADER = '#!/bin/sh\necho "$@"\n'


def an_instance(tmp_path: Path, **settings: str) -> Instance:
    instance = Instance(load(tmp_path, settings), tmp_path)
    instance.make_directories()
    return instance


def unpacked(place: Path, version: str) -> Path:
    home = place / "usr/lib/rabbitmq/lib" / f"rabbitmq_server-{version}"
    (home / "sbin").mkdir(parents=True)
    (home / "plugins" / f"rabbit-{version}").mkdir(parents=True)
    (home / "sbin/rabbitmq-server").touch()
    return place


def with_programs(place: Path) -> Path:
    programs = place / "usr/lib/erlang/erts-15/bin"
    programs.mkdir(parents=True)
    (programs / "beam.smp").write_bytes(b"\x7fELF and so on")
    (programs / "start").write_text("#!/bin/sh\n")
    (place / "usr/lib/erlang/bin").mkdir()
    (place / "usr/lib/erlang/bin/beam").symlink_to(programs / "beam.smp")
    loader = place / "usr/lib/some-linux-gnu/ld-linux-some.so.2"
    loader.parent.mkdir(parents=True)
    loader.write_text(LOADER)
    loader.chmod(0o755)
    return programs


def a_rabbit(instance: Instance) -> Rabbit:
    return Rabbit(
        instance, RabbitPorts(amqp=1, management=2, prometheus=3, mqtt=4, distribution=5, epmd=6), ""
    )


def test_it_is_found_only_when_it_is_chosen(tmp_path: Path) -> None:
    plain, newer = an_instance(tmp_path), an_instance(tmp_path, POSTHOUSE_RABBITMQ="4")
    unpacked(plain.servers / "rabbitmq", "3.10.8")
    assert rabbitmq.find(newer) is None
    unpacked(plain.servers / "rabbitmq4", "4.0.5")
    for instance, version in ((plain, "3.10.8"), (newer, "4.0.5")):
        found = rabbitmq.find(instance)
        assert found is not None
        assert found.server.parents[1].name == f"rabbitmq_server-{version}"


def test_data_stays_with_the_broker_that_made_it(tmp_path: Path) -> None:
    newer = an_instance(tmp_path, POSTHOUSE_RABBITMQ="4")
    unpacked(newer.servers / "rabbitmq", "3.10.8")
    unpacked(newer.servers / "rabbitmq4", "4.0.5")
    a_rabbit(newer).prepare()

    _, broker = a_rabbit(an_instance(tmp_path)).prepare()

    assert "rabbitmq_server-4.0.5" in broker.command[0]


def test_data_of_an_older_broker_is_not_touched(tmp_path: Path) -> None:
    plain = an_instance(tmp_path)
    unpacked(plain.servers / "rabbitmq", "3.10.8")
    unpacked(plain.servers / "rabbitmq4", "4.0.5")
    a_rabbit(plain).prepare()
    (plain.data / "rabbitmq/mnesia/posthouse@localhost").mkdir()

    with pytest.raises(Failure, match=r"cannot open what an older one keeps.*posthouse backup"):
        a_rabbit(an_instance(tmp_path, POSTHOUSE_RABBITMQ="4")).prepare()
    assert not rabbitmq4.is_chosen(an_instance(tmp_path))


def test_another_series_is_not_known(tmp_path: Path) -> None:
    with pytest.raises(Failure, match=r"POSTHOUSE_RABBITMQ is 4, or empty .* not '5'"):
        rabbitmq.find(an_instance(tmp_path, POSTHOUSE_RABBITMQ="5"))


def test_programs_start_with_the_loader_and_the_libraries_beside_them(tmp_path: Path) -> None:
    place = tmp_path / "a place"
    programs = with_programs(place)
    for _ in range(2):
        rabbitmq4.say_where_libraries_are(place)
    command = [place / "usr/lib/erlang/bin/beam", "--", "a b"]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    libraries = place / "usr/lib/some-linux-gnu"
    assert said == f"--library-path {libraries} --argv0 {command[0]} {programs}/beam.smp.elf -- a b\n"
    assert (programs / "start").read_text() == "#!/bin/sh\n"

    moved = place.rename(tmp_path / "another")
    rabbitmq4.say_where_libraries_are(moved)
    script = (moved / "usr/lib/erlang/erts-15/bin/beam.smp").read_text()
    assert str(moved) in script
    assert "a place" not in script


class Mirror(Apt):
    """Has Debian from somewhere, or has none of it."""

    def __init__(self, uri: str) -> None:
        super().__init__(Path(), Path())
        self.uri = uri

    def mirror(self) -> str:
        return self.uri


def test_another_release_comes_from_the_mirror_of_this_machine(tmp_path: Path) -> None:
    mirror = Mirror("http://mirror.example.org/debian/")
    Release(mirror, "trixie", tmp_path / "apt", tmp_path / "log").say_sources()
    sources = (tmp_path / "apt/sources.list").read_text()
    assert sources.endswith("http://mirror.example.org/debian/ trixie main\n")
    assert (tmp_path / "apt/status").read_text() == ""


def test_a_machine_without_debian_says_so(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="Debian's trixie is fetched from where apt has Debian"):
        Release(Mirror(""), "trixie", tmp_path / "apt", tmp_path / "log").say_sources()


def test_tests_take_the_choice_over() -> None:
    assert given({"POSTHOUSE_RABBITMQ": "4", "POSTHOUSE_PORT": "80"}) == {"POSTHOUSE_RABBITMQ": "4"}
    assert given({}) == {}
