# SPDX-License-Identifier: GPL-2.0-only
"""The selftests as they were when the trial began.

Read once: a build lies between the red and the green, and somebody may save
a file meanwhile. Both guests get the same bytes, and what is remembered of
the red is named after the bytes that ran.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from workbench.paths import Paths

_NOT_SOURCE: Final = {"__pycache__", ".pytest_cache", ".mypy_cache", ".ruff_cache"}


@dataclass(frozen=True)
class Suite:
    """The files of tests/guest: (name under it, contents), sorted.

    ``known`` are all extensions there are; what lies in none of their
    folders is shared code.
    """

    files: tuple[tuple[str, bytes], ...]
    known: tuple[str, ...]

    @classmethod
    def read(cls, paths: Paths, known: Iterable[str]) -> Suite:
        """Read all of it: a few hundred kilobytes."""
        return cls(tuple(_files(paths.guest_tests)), tuple(known))

    def part(self, extensions: Iterable[str]) -> tuple[tuple[str, bytes], ...]:
        """Return what a guest needs for these extensions: their folders and the shared code."""
        wanted = set(extensions)
        others = set(self.known) - wanted
        return tuple(each for each in self.files if each[0].partition("/")[0] not in others)

    def has_tests(self, extension: str) -> bool:
        """Tell whether an extension has a test file."""
        names = [name for name, _ in self.files if name.startswith(f"{extension}/")]
        files = (name.rpartition("/")[2] for name in names)
        return any(name.startswith("test_") and name.endswith(".py") for name in files)

    def digest(self, extension: str) -> str:
        """Return the sha256 of all that an extension's tests depend on here."""
        whole = hashlib.sha256()
        for name, data in self.part((extension,)):
            whole.update(f"{name}\0{len(data)}\0".encode())
            whole.update(data)
        return whole.hexdigest()


def _files(root: Path) -> Iterator[tuple[str, bytes]]:
    for path in sorted(root.rglob("*")):
        parts = path.relative_to(root).parts
        if path.is_file() and not _NOT_SOURCE.intersection(parts):
            yield "/".join(parts), path.read_bytes()
