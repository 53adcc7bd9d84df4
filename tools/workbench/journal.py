# SPDX-License-Identifier: GPL-2.0-only
"""Change several files of an extension's folder as one, and one run at a time.

What is to be written is written down first, in one file of the folder. From
then on it is done: whoever reads the folder next finishes what a run that was
killed had not come to.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING, Final

import filelock
import msgspec

from workbench import atomic
from workbench.errors import InfraError
from workbench.progress import Silent

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from pathlib import Path

    from workbench.progress import Progress

#: The file in an extension's folder that says what is being written there.
NAME: Final = ".saving"
# The repository may be another's: its journal shall reach no other file.
_ALLOWED = re.compile(r"extension\.toml|(?:(?:since-v[0-9.rc-]+|resolutions)/)?\d{4}-[^/]+")


class _Journal(msgspec.Struct, forbid_unknown_fields=True):
    files: dict[str, bytes]
    gone: list[str] = []


@contextlib.contextmanager
def held(patches: Path, progress: Progress | None = None) -> Iterator[None]:
    """Be the only run that writes below ``patches``; waits for another one."""
    # A singleton, since who holds it may come upon a journal to finish.
    lock = filelock.FileLock(patches.with_name(f".{patches.name}.lock"), is_singleton=True)
    try:
        lock.acquire(timeout=0)
    except filelock.Timeout:
        (progress or Silent()).note(f"waiting for another run that writes to {patches}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def write(folder: Path, files: Mapping[str, bytes], gone: Iterable[str] = ()) -> None:
    """Write files of an extension's folder, given by their names in it: all, or none yet.

    Those of ``gone`` are removed, and with its last file a folder.
    """
    with held(folder.parent):
        journal = _Journal(dict(files), list(gone))
        atomic.write(folder / NAME, msgspec.json.encode(journal))
        _carry_out(folder, journal)


def finish(folder: Path) -> None:
    """Write what a run that was killed had written down and not come to."""
    if (folder / NAME).exists():
        with held(folder.parent):
            _carry_out(folder, _read(folder / NAME))


def _read(journal: Path) -> _Journal:
    """Read what is to be written; nothing when another run has done it meanwhile."""
    try:
        read = msgspec.json.decode(journal.read_bytes(), type=_Journal)
    except FileNotFoundError:
        return _Journal({})
    except (OSError, msgspec.DecodeError) as error:
        raise InfraError(
            f"cannot be read: {error}", where=str(journal), next_step="remove it, and save again"
        ) from error
    if foreign := [name for name in (*read.files, *read.gone) if _ALLOWED.fullmatch(name) is None]:
        raise InfraError(
            f"names {foreign[0]!r}, which no save writes",
            where=str(journal),
            next_step="remove it: 'kpw save' did not write it",
        )
    return read


def _carry_out(folder: Path, journal: _Journal) -> None:
    for name, data in journal.files.items():
        file = folder / name
        file.parent.mkdir(exist_ok=True)
        for young in file.parent.glob(f".{file.name}.*"):
            young.unlink()  # of a run that was killed while it wrote
        atomic.write(file, data)
    for name in journal.gone:
        _take_away(folder, name)
    (folder / NAME).unlink(missing_ok=True)


def _take_away(folder: Path, name: str) -> None:
    """Remove a file, and the folder in ``folder`` that has none left.

    A run that was killed may have done either.
    """
    file = folder / name
    file.unlink(missing_ok=True)
    if file.parent != folder and file.parent.is_dir() and not any(file.parent.iterdir()):
        file.parent.rmdir()
