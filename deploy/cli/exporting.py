"""`export`: a dataset as CSV, to a file that is whole or not there, or to standard output."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import aiohttp

from deploy.cli.client import Server
from deploy.cli.errors import Stopped
from deploy.cli.importing import Reading, find_dataset


@dataclass(frozen=True)
class Export:
    """One dataset on its way out; `out` is written as the parts come."""

    server: Server
    dataset: str
    reading: Reading
    final_newline: bool = False

    async def run(self, out: BinaryIO) -> int:
        """Write every reading and return the number of bytes; raises Stopped when the stream breaks."""
        dataset_id = await find_dataset(self.server, self.dataset)
        if dataset_id is None:
            raise Stopped(f"There is no dataset called {self.dataset!r}.")
        size, held = 0, b""
        try:
            path = f"/v1/datasets/{dataset_id}/readings.csv"
            async with self.server.download(path, **self.reading.parameters()) as parts:
                async for part in parts:
                    # RFC 4180 leaves open whether the last line ends with a line break.
                    part, held = _without_last_newline(held + part)
                    size += out.write(part)
        except (aiohttp.ClientError, TimeoutError) as error:
            words = str(error) or type(error).__name__
            raise Stopped(f"The export broke off after {size:,} bytes: {words}.") from None
        return size + out.write(b"\n" if self.final_newline else b"")


def _without_last_newline(data: bytes) -> tuple[bytes, bytes]:
    if data.endswith(b"\n"):
        return data[:-1], b"\n"
    return data, b""


@contextmanager
def destination(path: Path | None) -> Iterator[BinaryIO]:
    """Standard output, or a file that takes its name only when all of it is written."""
    if path is None:
        yield sys.stdout.buffer
        sys.stdout.buffer.flush()
        return
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    except OSError as error:
        raise Stopped(f"{path} cannot be written: {error.strerror}.") from None
    finally:
        part.unlink(missing_ok=True)
