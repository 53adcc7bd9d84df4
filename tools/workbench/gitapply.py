# SPDX-License-Identifier: GPL-2.0-only
"""Run ``git apply`` on an index of a few entries, and understand its answer.

An index that holds just the files a patch touches gives git's own semantics
at a few milliseconds, whatever the size of the tree behind it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

from workbench import indexfile
from workbench.errors import InfraError, UsageError
from workbench.gitstore import MEND_STORE

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from workbench.gitstore import Store

_OFFSET = re.compile(r"Hunk #\d+ succeeded at \d+ \(offset (-?\d+) lines?\)\.")
_FAILED = re.compile(r"error: patch failed: (.+):(\d+)")
_DOES_NOT_APPLY = re.compile(
    r"error: (?:.+: (?:patch does not apply|does not exist in index|already exists in index"
    r"|wrong type|does not match index)|affected file .+ is beyond a symbolic link"
    r"|new mode .+ does not match old mode .+"
    r"|removal patch leaves file contents|repository lacks the necessary blob.*"
    # Both sides add the file: for --3way, git 2.39 looks for it in a work tree.
    r"|cannot read the current contents of .+)"
)
_MALFORMED = re.compile(
    r"error: (?:corrupt patch|patch fragment without|No valid patches|git diff header"
    r"|.*inconsistent|new file .+ depends on|deleted file .+ still has|invalid path).*"
)
_QUOTE_STARTS = "error: while searching for:"


class Entry(NamedTuple):
    """A file in a tree: git's mode (``100644``) and the blob's id."""

    mode: str
    oid: str


@dataclass(frozen=True)
class Application:
    """What ``git apply`` said.

    ``offsets`` are the lines by which hunks moved (those that did);
    ``failed`` where hunks did not fit: file and line in the patch's old text.
    """

    applied: bool
    offsets: tuple[int, ...] = ()
    failed: tuple[tuple[str, int], ...] = ()


class SmallIndex:
    """An index file of its own, apart from any work tree."""

    def __init__(self, store: Store, file: Path) -> None:
        """Use ``file`` as the index; it need not exist."""
        self._store = store
        self._file = file
        self._env = {"GIT_INDEX_FILE": str(file)}

    def put(self, entries: Mapping[str, Entry | None]) -> None:
        """Set entries; None takes one out."""
        kept = [record for record in self._records() if record[0] not in entries]
        kept += [(path, *entry, 0) for path, entry in entries.items() if entry]
        self._file.write_bytes(indexfile.pack(kept))

    def stages(self) -> dict[str, dict[int, Entry]]:
        """Return every path with its entry at each stage (0: merged; 1 base, 2 ours, 3 theirs)."""
        found: dict[str, dict[int, Entry]] = {}
        for path, mode, oid, stage in self._records():
            found.setdefault(path, {})[stage] = Entry(mode, oid)
        return found

    def _records(self) -> list[indexfile.Record]:
        try:
            data = self._file.read_bytes()
        except FileNotFoundError:
            return []
        return list(indexfile.unpack(data, str(self._file)))

    def write_tree(self) -> str:
        """Write the entries as a tree; its id."""
        return self._store.git("write-tree", env=self._env)

    def apply(self, diff: bytes, *options: str, where: str = "") -> Application:
        """Apply a diff to the index; when it does not apply, the index stays as it was.

        With ``--3way`` a conflict leaves its stages in the index. InfraError
        when git failed for a reason that is not the patch's.
        """
        # The kernel's whitespace is not ours to judge.
        words = ("apply", "--cached", "--verbose", "--whitespace=nowarn", *options, "-")
        code, _, err = self._store.git_rc(*words, input=diff, env=self._env)
        lines = _without_quotes(err)
        if code == 0:
            moved = (_OFFSET.fullmatch(line) for line in lines)
            return Application(applied=True, offsets=tuple(int(m[1]) for m in moved if m))
        failed = []
        for line in lines:
            if match := _FAILED.fullmatch(line):
                failed.append((match[1], int(match[2])))
            elif _MALFORMED.fullmatch(line):
                raise UsageError(line.removeprefix("error: "), where=where, next_step="mend it")
            elif line.startswith(("error:", "fatal:")) and not _DOES_NOT_APPLY.fullmatch(line):
                raise InfraError(
                    line.partition(": ")[2], where=f"git apply {where}", next_step="try again"
                )
        if code != 1:
            raise InfraError(f"exit code {code}", where=f"git apply {where}", next_step=MEND_STORE)
        return Application(applied=False, failed=tuple(failed))


def _without_quotes(err: str) -> list[str]:
    """Drop the source text git quotes between two of its own lines."""
    kept = []
    quoting = False
    for line in err.splitlines():
        if line == _QUOTE_STARTS:
            quoting = True
        elif _FAILED.fullmatch(line):
            quoting = False
        if not quoting:
            kept.append(line)
    return kept
