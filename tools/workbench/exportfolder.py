# SPDX-License-Identifier: GPL-2.0-only
"""The folder an export goes to: it appears whole, and only what we wrote is replaced.

A hidden file in it has the digest of every file as it was written. A letter
somebody has worded since, or a folder of somebody else's, is left alone.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import shutil
from typing import TYPE_CHECKING, Final

from workbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

#: What every cover letter's file name ends with, and quilt's list of patches.
COVER: Final = "0000-cover-letter.patch"
#: The letter once more, as 'b4 prep --edit-cover' takes it.
B4_COVER: Final = "b4-cover.txt"
QUILT_SERIES: Final = "series"
_RECORD: Final = ".kpw-export"


def refuse_foreign(folder: Path) -> None:
    """Raise UsageError when there is something in the folder that we did not write."""
    if not folder.exists():
        if not folder.parent.is_dir():
            raise UsageError("is no directory", where=str(folder.parent))
        return
    if not folder.is_dir():
        raise UsageError("is no directory", where=str(folder))
    there = _digests(folder)
    if not there:
        return
    if not (folder / _RECORD).is_file():
        raise UsageError(
            "is not empty, and is no export of kpw's",
            where=str(folder),
            next_step="name another folder",
        )
    own = _record(folder)
    if foreign := sorted(name for name in there if there[name] != own.get(name)):
        raise UsageError(
            "was changed since it was exported",
            where=str(folder / foreign[0]),
            next_step="keep it and name another folder, or remove it",
        )


def write(folder: Path, files: Mapping[str, bytes]) -> bool:
    """Make the folder hold exactly these files; False when it did already.

    Another run sees the old folder or the new one, or for a moment none.
    """
    refuse_foreign(folder)
    folder = folder.resolve()
    new = {name: _digest(data) for name, data in files.items()}
    if folder.is_dir() and _digests(folder) == new:
        return False
    mark = f"{os.getpid()}-{secrets.token_hex(4)}"
    young, old = (folder.with_name(f".{folder.name}.{word}-{mark}") for word in ("new", "old"))
    try:
        young.mkdir()
        for name, data in files.items():
            (young / name).write_bytes(data)
        (young / _RECORD).write_text(json.dumps(new, indent=1) + "\n")
        if folder.exists():
            folder.rename(old)
        young.rename(folder)
    except BaseException:
        if old.exists() and not folder.exists():
            old.rename(folder)
        raise
    finally:
        shutil.rmtree(young, ignore_errors=True)
        if folder.exists():
            shutil.rmtree(old, ignore_errors=True)
    return True


def _record(folder: Path) -> dict[str, str]:
    try:
        read = json.loads((folder / _RECORD).read_bytes())
    except (OSError, ValueError):
        return {}
    return read if isinstance(read, dict) else {}


def _digests(folder: Path) -> dict[str, str]:
    """Return a digest for each name in the folder, but our own record's; "" for no file."""
    return {
        path.name: _digest(path.read_bytes()) if path.is_file() else ""
        for path in folder.iterdir()
        if path.name != _RECORD
    }


def _digest(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()
