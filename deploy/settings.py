"""`python -m deploy.settings`: every setting, its value, where that comes from, and what it is for."""

from __future__ import annotations

import importlib
import os
import sys
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from deploy.local import settings as launcher
from shared.settings import Setting, describe

ROOT = Path(__file__).resolve().parents[1]
EVERY = "every service"


def settings_of_services() -> dict[str, list[Setting]]:
    """The settings of each service; those that all share come once, under a name of their own."""
    own = {
        path.parent.name: _described(path.parent.name) for path in sorted(ROOT.glob("services/*/settings.py"))
    }
    uses = Counter(setting.name for settings in own.values() for setting in settings)
    shared = {
        setting.name: setting for settings in own.values() for setting in settings if uses[setting.name] > 1
    }
    groups = {name: [one for one in settings if uses[one.name] == 1] for name, settings in own.items()}
    return {EVERY: list(shared.values())} | groups


def _described(service: str) -> list[Setting]:
    for module in (f"services.{service}.settings", f"services.{service}.main"):
        if kind := getattr(importlib.import_module(module), "Settings", None):
            return describe(kind)
    return []


def main() -> int:
    """Print all of them; what is secret is named, never shown."""
    known = {setting.name for setting in launcher.TABLE}
    given = launcher.load(ROOT, os.environ)
    own = [Setting(one.name, one.default, one.text, one.secret) for one in launcher.TABLE]
    _print("launcher", own, given)
    for name, settings in settings_of_services().items():
        _print(name, [setting for setting in settings if setting.name not in known], given)
        known |= {setting.name for setting in settings}
    _print(
        "not known to anything",
        [Setting(name, None, "", True) for name in given.values if name not in known],
        given,
    )
    return 0


def _print(title: str, settings: Iterable[Setting], given: launcher.Settings) -> None:
    rows = [_row(setting, given) for setting in settings]
    if rows:
        print(f"\n{title}")
    for row in rows:
        print("  {:<34} {:<30} {:<14} {}".format(*row).rstrip())


def _row(setting: Setting, given: launcher.Settings) -> tuple[str, str, str, str]:
    value, source = given.values.get(setting.name) or "", given.sources.get(setting.name, "default")
    if value and setting.secret:
        value = launcher.without_password(value) if "://" in value else "(hidden)"
    value = value or (setting.default if setting.default is not None else "(set by the launcher)")
    return setting.name, value or "-", Path(source).name, setting.text


if __name__ == "__main__":
    sys.exit(main())
