"""Where Prometheus is told to look, from what the launcher has running."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from deploy.local.errors import Failure
from deploy.local.instance import ROOT, Instance
from deploy.local.prometheus import configure
from deploy.local.settings import load


def configured(root: Path, *programs: str) -> tuple[list[str], Any, Any]:
    """What is said and the two lists of targets, while these programs run."""
    for name in ("gateway", "ingest"):
        (root / "services" / name).mkdir(parents=True)
        (root / "services" / name / "__main__.py").touch()
    shutil.copytree(ROOT / "deploy/prometheus", root / "deploy/prometheus")
    instance = Instance(load(root, {}), root)
    instance.make_directories()
    probes = {name: {"probes": [f"http://127.0.0.1:{2000 + n}/readyz"]} for n, name in enumerate(programs)}
    instance.state.write_text(json.dumps({"programs": probes}))
    (instance.run / "ports.json").write_text(json.dumps({"prometheus": 3000}))
    said = configure(instance, root / "out")
    ours, broker = (json.loads((root / f"out/targets/{name}.json").read_text()) for name in NAMES)
    return said, ours, broker


NAMES = ("posthouse", "rabbitmq")


def test_every_process_of_ours_is_named_with_its_service(tmp_path: Path) -> None:
    said, ours, broker = configured(tmp_path, "rabbitmq", "postgres", "ingest", "ingest-2", "gateway")
    assert [(one["targets"], one["labels"]) for one in ours] == [
        (["127.0.0.1:2002"], {"service": "ingest", "process": "ingest"}),
        (["127.0.0.1:2003"], {"service": "ingest", "process": "ingest-2"}),
        (["127.0.0.1:2004"], {"service": "gateway", "process": "gateway"}),
    ]
    assert [one["targets"] for one in broker] == [["127.0.0.1:3000"]]
    assert "3 processes and RabbitMQ" in said[0]
    assert (tmp_path / "out/alerts.yml").exists()


def test_a_broker_of_somebody_else_is_asked_for(tmp_path: Path) -> None:
    said, _, broker = configured(tmp_path, "gateway")
    assert broker == []
    assert any("targets/rabbitmq.json" in line for line in said)


def test_nothing_is_written_when_nothing_runs(tmp_path: Path) -> None:
    with pytest.raises(Failure, match="not running"):
        configured(tmp_path, "postgres")
    assert not (tmp_path / "out").exists()
