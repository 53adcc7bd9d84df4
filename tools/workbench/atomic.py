# SPDX-License-Identifier: GPL-2.0-only
"""Write a file whole or not at all."""

from __future__ import annotations

import os
import secrets
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path


def write(path: Path, data: bytes) -> None:
    """Replace ``path`` by a file with these bytes; a reader sees the old or the new.

    What cannot be replaced (a pipe, /dev/stderr) is written to as it is.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    # A user's link shall keep pointing where it points.
    path = path.resolve()
    young = path.with_name(f".{path.name}.{os.getpid()}-{secrets.token_hex(4)}")
    try:
        with young.open("xb") as file:
            file.write(data)
        young.replace(path)
    except BaseException as error:
        young.unlink(missing_ok=True)
        if isinstance(error, OSError) and not error.filename:
            # A full disk names no file by itself.
            error.filename = str(path)
        raise
