"""Where a setting comes from, and what of it may be shown."""

from __future__ import annotations

import stat
from pathlib import Path

import pytest

from deploy.identity import derive_password, fingerprint
from deploy.local.errors import Failure
from deploy.local.settings import load, own_settings, read_file, scale_of, secret_key


def test_the_environment_goes_before_the_file_and_the_file_before_the_default(tmp_path: Path) -> None:
    (tmp_path / "posthouse.env").write_text("# ours\nPOSTHOUSE_PORT=9000\nPOSTHOUSE_HOST='::1'\n")

    settings = load(tmp_path, {"POSTHOUSE_PORT": "9001", "HOME": "/nowhere"})

    assert settings.get("POSTHOUSE_PORT") == "9001"
    assert settings.get("POSTHOUSE_HOST") == "::1"
    assert settings.get("POSTHOUSE_LISTEN") == "127.0.0.1"
    assert settings.sources["POSTHOUSE_PORT"] == "environment"
    assert settings.sources["POSTHOUSE_HOST"].endswith("posthouse.env")


def test_an_instance_elsewhere_has_a_settings_file_of_its_own(tmp_path: Path) -> None:
    assert load(tmp_path, {}).file == tmp_path / "posthouse.env"
    assert load(tmp_path, {"POSTHOUSE_LOCAL": "other"}).file == tmp_path / "other" / "posthouse.env"
    assert load(tmp_path, {"POSTHOUSE_ENV_FILE": "/etc/posthouse"}).file == Path("/etc/posthouse")


@pytest.mark.parametrize("line", ["POSTHOUSE_PORT", "PORT=1", "=x"])
def test_a_line_that_is_no_setting_is_named(tmp_path: Path, line: str) -> None:
    file = tmp_path / "posthouse.env"
    file.write_text(f"POSTHOUSE_HOST=x\n{line}\n")

    with pytest.raises(Failure, match="line 2"):
        read_file(file)


def test_a_secret_key_is_made_once_and_only_its_owner_can_read_it(tmp_path: Path) -> None:
    file = tmp_path / "posthouse.env"
    file.write_text("POSTHOUSE_HOST=0.0.0.0")

    made = secret_key(load(tmp_path, {}))

    again = load(tmp_path, {})
    assert secret_key(again) == made
    assert len(made) >= 43
    assert again.get("POSTHOUSE_HOST") == "0.0.0.0"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_no_secret_is_shown(tmp_path: Path) -> None:
    given = {
        "POSTHOUSE_SECRET_KEY": "sesame",
        "POSTHOUSE_AMQP_URL": "amqp://admin:sesame@broker:5672/%2F?password=sesame",
        "POSTHOUSE_SMTP_PASSWORD": "sesame",
    }

    rows = own_settings(load(tmp_path, given))

    assert "sesame" not in str(rows)
    assert ("POSTHOUSE_AMQP_URL", "amqp://admin@broker:5672/%2F", "environment") in rows


def test_a_scale_can_be_written_with_commas_or_spaces() -> None:
    assert scale_of("gateway=2,ingest=3") == scale_of(" gateway=2  ingest=3 ") == {"gateway": 2, "ingest": 3}
    assert scale_of("") == {}


@pytest.mark.parametrize("text", ["gateway", "gateway=0", "gateway=-1", "gateway=many", "=2", "gateway=65"])
def test_a_scale_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(Failure, match="scale"):
        scale_of(text)


def test_passwords_follow_from_the_key_and_stay_the_same_for_ever() -> None:
    assert derive_password("key", "amqp:chat") == "OrNPLDivgzdU7mqLuiwNHhUFfpY6sksx"
    assert derive_password("key", "amqp:chat") != derive_password("key", "amqp:auth")
    assert derive_password("other", "amqp:chat") != derive_password("key", "amqp:chat")
    assert fingerprint("key") != fingerprint("other")
