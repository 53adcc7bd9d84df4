# SPDX-License-Identifier: GPL-2.0-only
"""Merge three versions of one file, as git does."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from workbench.errors import InfraError
from workbench.gitstore import MEND_STORE

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.gitstore import Store

_MAX_REGIONS = 127


class Versions(NamedTuple):
    """The whole texts: what is there, what the patch was made on, what it makes of that."""

    upstream: bytes
    base: bytes
    ours: bytes


def merge_file(
    store: Store, folder: Path, versions: Versions, *options: str
) -> tuple[bool, bytes] | None:
    """Return whether it merged without conflict, and the text; None for binary files.

    ``folder`` is scratch, ``options`` are those of ``git merge-file``.
    """
    files = []
    for name, text in zip(versions._fields, versions, strict=True):
        files.append(folder / f"side-{name}")
        files[-1].write_bytes(text)
    code, merged, err = store.git_bytes("merge-file", "--stdout", "--quiet", *options, *files)
    if code <= _MAX_REGIONS:
        return code == 0, merged
    if "binary" in err:
        return None
    raise InfraError(err or f"exit code {code}", where="git merge-file", next_step=MEND_STORE)
