# SPDX-License-Identifier: GPL-2.0-only
"""A folder somebody works in: a git work tree, and a file that says what it is about.

It appears and goes by one rename, so that a run killed at any moment leaves it
there or not. The folders lie two deep below a root: ``<root>/<what>/<which>``.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
from typing import TYPE_CHECKING, TypeVar

import filelock
import msgspec

from workbench import atomic
from workbench.errors import InfraError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TREE = "tree"
_STATE = "state.json"
_State = TypeVar("_State", bound=msgspec.Struct)


@contextlib.contextmanager
def held(root: Path) -> Iterator[None]:
    """Be the only run that opens or closes below ``root``; sweep up what a killed one left."""
    root.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(root / "lock"):
        for stale in (*root.glob("*/.opening-*"), *root.glob("*/.done-*")):
            shutil.rmtree(stale)
        yield


@contextlib.contextmanager
def appearing(final: Path, state: msgspec.Struct) -> Iterator[Path]:
    """Give the place for a work tree; when all went well the whole becomes ``final``."""
    final.parent.mkdir(parents=True, exist_ok=True)
    young = final.with_name(f".opening-{os.getpid()}-{secrets.token_hex(4)}")
    try:
        young.mkdir()
        yield young / TREE
        atomic.write(young / _STATE, msgspec.json.format(msgspec.json.encode(state)))
        young.rename(final)
    except BaseException:
        shutil.rmtree(young, ignore_errors=True)
        raise


def all_below(root: Path) -> tuple[Path, ...]:
    """Return every folder that is there."""
    return tuple(file.parent for file in sorted(root.glob(f"*/*/{_STATE}")))


def read(folder: Path, kind: type[_State]) -> _State:
    """Read what a folder is about; InfraError when its file is damaged."""
    file = folder / _STATE
    try:
        return msgspec.json.decode(file.read_bytes(), type=kind)
    except (OSError, msgspec.DecodeError) as error:
        raise InfraError(
            f"cannot be read: {error}", where=str(file), next_step=f"remove {folder}"
        ) from error


def remove(folder: Path) -> None:
    """Take one away: by one rename, and then at leisure."""
    done = folder.with_name(f".done-{secrets.token_hex(4)}")
    folder.rename(done)
    shutil.rmtree(done)
