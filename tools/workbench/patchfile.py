# SPDX-License-Identifier: GPL-2.0-only
"""Read a patch file strictly, before git sees any of it.

The reader goes over the file once. What it does not understand it refuses
with file and line; a path that leaves the tree (``../``, ``/``, ``.git/``, a
symbolic link to the outside) is refused here too, so that nothing was run by
then. Only the bytes that were understood are handed on (:attr:`PatchFile.diff`).
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from workbench.errors import UsageError
from workbench.filechange import (
    SYMLINK,
    ChangeKind,
    FileChange,
    HeaderReader,
    Hunk,
)
from workbench.mailhead import Mail, read_mail, refused
from workbench.treepath import leads_outside, outside

if TYPE_CHECKING:
    from pathlib import Path

_HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@(?: .*)?\n?")
_NOTE = re.compile(rb"[a-z][a-z-]*: \S.*")
_FIX = "mend the patch, or write it anew with 'git format-patch --full-index'"
_STAY = "a patch may only name files inside the kernel tree"


@dataclass(frozen=True)
class PatchFile:
    """A patch: the commit it asks for and what it does to which files."""

    path: Path
    mail: Mail
    changes: tuple[FileChange, ...]

    @property
    def diff(self) -> bytes:
        """What git is given: the parts that were understood, and nothing else."""
        return b"".join(change.text for change in self.changes)

    @property
    def touched(self) -> tuple[str, ...]:
        """All names it touches."""
        return tuple(dict.fromkeys(path for change in self.changes for path in change.paths))


def read_patch(path: Path) -> PatchFile:
    """Read and check a patch file; UsageError says at which line it cannot be taken."""
    try:
        data = path.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot be read: {error.strerror}", where=str(path), next_step="mend its permissions"
        ) from error
    return _parsed(path, data)


def parse_patch(path: Path, data: bytes) -> PatchFile:
    """Parse the bytes of a patch file; ``path`` is only its name in messages."""
    lines = _split(data)
    mail, start = read_mail(path, lines)
    reader = _Reader(path, lines, start)
    return PatchFile(path, mail, reader.changes())


def parse_diff(path: Path, diff: bytes) -> tuple[FileChange, ...]:
    """Parse a diff that has no mail around it; ``path`` is only its name in messages."""
    return _Reader(path, _split(diff), 0).changes()


#: The same patches go to one kernel after the other.
_parsed = functools.lru_cache(maxsize=512)(parse_patch)


def _split(data: bytes) -> list[bytes]:
    """Split at newlines only: a lone CR is part of a line."""
    lines = [line + b"\n" for line in data.split(b"\n")]
    lines[-1] = lines[-1][:-1]
    return lines if lines[-1] else lines[:-1]


class _Reader:
    """A cursor over the lines of the diff; ``at`` is the 0-based next line."""

    def __init__(self, path: Path, lines: list[bytes], start: int) -> None:
        self.path = path
        self.lines = lines
        self.at = start

    def changes(self) -> tuple[FileChange, ...]:
        """Read every file's part, and what stands between and after them."""
        self._skip_to_diff()
        found = []
        while self._here().startswith(b"diff --git "):
            found.append(self._change())
            self._skip_notes()
        return tuple(found)

    def _here(self) -> bytes:
        return self.lines[self.at] if self.at < len(self.lines) else b""

    def _fault(self, what: str, next_step: str = _FIX) -> UsageError:
        return refused(self.path, min(self.at + 1, len(self.lines)), what, next_step)

    def _skip_to_diff(self) -> None:
        """Pass the diffstat; what looks like a diff without git's header is refused."""
        while not (line := self._here()).startswith(b"diff --git "):
            if not line:
                raise self._fault("there is no diff in it")
            if line.startswith((b"@@ -", b"+++ ", b"--- a/", b"diff ")):
                raise self._fault("a diff without the line 'diff --git a/... b/...'")
            self.at += 1

    def _skip_notes(self) -> None:
        """Pass blank lines, format-patch's notes and the signature; nothing else may stand here."""
        while line := self._here():
            if line.startswith(b"diff --git "):
                return
            if line.rstrip() == b"--":
                self._skip_signature()
            elif _NOTE.fullmatch(line.rstrip()):
                pass
            elif line[:1] in b"+- @\\":
                raise self._fault("the hunk has more lines than its @@ line says")
            elif line.strip():
                raise self._fault("this is no part of a diff")
            self.at += 1

    def _skip_signature(self) -> None:
        while line := self._here():
            if line.startswith((b"diff --git ", b"From ")):
                raise self._fault("a second patch in the same file", "put each in its own file")
            self.at += 1

    def _change(self) -> FileChange:
        """Read one file's part: its header lines, then its hunks."""
        start = self.at
        if self._here().endswith(b"\r\n"):
            raise self._fault("lines end in CR LF", "convert the file with dos2unix")
        try:
            head = HeaderReader(start + 1, self._here().rstrip(b"\n")[len(b"diff --git ") :])
            self.at += 1
            while head.take(self._header_line()):
                self.at += 1
        except ValueError as error:
            raise self._fault(str(error)) from error
        try:
            change = head.change()
        except ValueError as error:
            raise refused(self.path, start + 1, str(error), _FIX) from error
        hunks = []
        while head.named and self._here().startswith(b"@@"):
            hunks.append(self._hunk())
        text = b"".join(self.lines[start : self.at])
        change = replace(change, hunks=tuple(hunks), text=text)
        self._check(change)
        return change

    def _header_line(self) -> bytes:
        line = self._here()
        if line.startswith((b"GIT binary patch", b"Binary files ")):
            raise self._fault("binary files cannot be carried")
        return line

    def _hunk(self) -> Hunk:
        match = _HUNK.fullmatch(self._here())
        if match is None:
            raise self._fault("not a hunk header (@@ -line,count +line,count @@)")
        old_start, new_start = int(match[1]), int(match[3])
        old, new = (1 if count is None else int(count) for count in (match[2], match[4]))
        start = self.at
        self.at += 1
        self._body(old, new)
        body = tuple(self.lines[start + 1 : self.at])
        if not any(line[:1] in b"+-" for line in body if line != b"\n"):
            raise refused(self.path, start + 1, "a hunk that changes nothing", _FIX)
        return Hunk(start + 1, old_start, old, new_start, new, body)

    def _body(self, old: int, new: int) -> None:
        """Pass as many lines as the hunk's header counts."""
        while old or new:
            line = self._here()
            sign = line[:1]
            if not line or not line.endswith(b"\n"):
                raise self._fault(
                    f"the file ends inside a hunk ({old} old, {new} new lines missing)"
                )
            if b"\0" in line:
                raise self._fault("a NUL byte in a hunk")
            if sign not in b" +-\n\\" or (sign == b"\\" and not line.startswith(b"\\ ")):
                raise self._fault(f"the hunk is short of {old} old and {new} new lines")
            old -= sign in b" -\n"
            new -= sign in b" +\n"
            if old < 0 or new < 0:
                raise self._fault("the hunk's lines do not add up to its @@ line")
            self.at += 1
        if self._here().startswith(b"\\ "):
            self.at += 1

    def _check(self, change: FileChange) -> None:
        """Refuse what git would, and every name or link that leaves the tree."""
        for path in change.paths:
            if reason := outside(path):
                raise refused(self.path, change.line, f"{path!r} {reason}", _STAY)
        if change.needs_hunks and not change.hunks:
            raise refused(self.path, change.line, f"no hunk for {change.name!r}", _FIX)
        starts = [hunk.old_start for hunk in change.hunks]
        if starts != sorted(starts):
            raise refused(self.path, change.line, "hunks are not in the order of the file", _FIX)
        for hunk in change.hunks:
            self._check_hunk(change, hunk)

    def _check_hunk(self, change: FileChange, hunk: Hunk) -> None:
        if change.kind is ChangeKind.CREATE and hunk.old_count:
            raise refused(self.path, hunk.line, "a new file has no old lines", _FIX)
        if change.kind is ChangeKind.DELETE and hunk.new_count:
            raise refused(self.path, hunk.line, "a deleted file keeps no lines", _FIX)
        if change.new is None or change.new_mode != SYMLINK:
            return
        target = hunk.after.decode(errors="replace")
        if leads_outside(change.new, target):
            raise refused(self.path, hunk.line, f"a symbolic link to {target!r}", _STAY)
