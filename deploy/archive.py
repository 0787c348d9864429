"""A backup file: a tar of what an instance keeps, and a manifest that proves it; standard library only."""

from __future__ import annotations

import hashlib
import json
import os
import tarfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

FORMAT = 1
MANIFEST, DATABASE, BROKER, SETTINGS = "manifest.json", "database.dump", "broker.json", "posthouse.env"
BLOCK = tarfile.BLOCKSIZE
CHUNK = 1 << 20
MOST_MANIFEST_BYTES = 64 << 20


class BadArchive(Exception):
    """The file is no backup, or not as it was written; says what is wrong."""


class Writer:
    """Adds members one after the other; the manifest, with the checksum of each, comes last."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._files: dict[str, dict[str, Any]] = {}

    def add(self, name: str, content: bytes) -> None:
        """A member that is known whole."""
        self.stream(name, [content])

    def stream(self, name: str, chunks: Iterable[bytes]) -> None:
        """A member whose size is known when it has ended: its header is written afterwards."""
        start = self._file.tell()
        self._file.write(bytes(BLOCK))
        digest, size = hashlib.sha256(), 0
        for chunk in chunks:
            self._file.write(chunk)
            digest.update(chunk)
            size += len(chunk)
        self._file.write(bytes(-size % BLOCK))
        end = self._file.tell()
        self._file.seek(start)
        self._file.write(_header(name, size))
        self._file.seek(end)
        self._files[name] = {"bytes": size, "sha256": digest.hexdigest()}

    def end(self, manifest: Mapping[str, Any]) -> None:
        """The manifest, and the end of the tar."""
        whole = {"format": FORMAT, **manifest, "files": self._files}
        self.add(MANIFEST, json.dumps(whole, indent=1, ensure_ascii=False).encode())
        self._file.write(bytes(2 * BLOCK))


def _header(name: str, size: int) -> bytes:
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o600, int(time.time())
    return info.tobuf(tarfile.GNU_FORMAT)


@contextmanager
def written(path: Path) -> Iterator[Writer]:
    """Write a backup that is whole or not there, readable by its owner only."""
    part = path.with_name(path.name + ".part")
    part.unlink(missing_ok=True)
    try:
        with os.fdopen(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o600), "w+b") as file:
            yield Writer(file)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
        _sync(path.parent)
    finally:
        part.unlink(missing_ok=True)


def _sync(directory: Path) -> None:
    handle = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


class Reader:
    """A backup to read from; nothing of it is ever unpacked by its own names."""

    def __init__(self, tar: tarfile.TarFile) -> None:
        self._tar = tar
        self.manifest = self._manifest()

    @property
    def format(self) -> int:
        """Later formats than FORMAT cannot be read."""
        return int(self.manifest.get("format", 0))

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """The members that the manifest vouches for."""
        return dict(self.manifest["files"])

    def has(self, name: str) -> bool:
        """Whether there is such a member."""
        return name in self.files

    def open(self, name: str) -> IO[bytes]:
        """A member; raises BadArchive when it is missing."""
        try:
            found = self._tar.extractfile(name)
        except KeyError:
            found = None
        if found is None:
            raise BadArchive(f"{name} is missing in it")
        return found

    def read(self, name: str) -> bytes:
        """A whole member."""
        with self.open(name) as member:
            return member.read()

    def check(self, at: Callable[[int], None] = lambda _: None) -> None:
        """Compare every member with its checksum; raises BadArchive. `at` hears how many bytes are done."""
        done = 0
        for name, facts in self.files.items():
            digest, size = hashlib.sha256(), 0
            with self.open(name) as member:
                while chunk := member.read(CHUNK):
                    digest.update(chunk)
                    size += len(chunk)
                    at(done + size)
            done += size
            if size != facts["bytes"] or digest.hexdigest() != facts["sha256"]:
                raise BadArchive(f"{name} in it is damaged: its checksum is another one")

    def _manifest(self) -> dict[str, Any]:
        with self.open(MANIFEST) as member:
            try:
                found = json.loads(member.read(MOST_MANIFEST_BYTES))
            except ValueError as error:
                raise BadArchive(f"{MANIFEST} in it cannot be read: {error}") from None
        if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
            raise BadArchive(f"{MANIFEST} in it is not that of a backup")
        return found


@contextmanager
def opened(path: Path) -> Iterator[Reader]:
    """A backup file; raises BadArchive when it is none, or was not written to its end."""
    try:
        with tarfile.open(path, "r:") as tar:
            yield Reader(tar)
    except (tarfile.TarError, EOFError) as error:
        raise BadArchive(f"it is not whole: {error}") from None
