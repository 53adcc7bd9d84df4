# SPDX-License-Identifier: GPL-2.0-only
"""A diff as quilt and diff(1) write it, put into git's form.

Each line is carried with the line it came from. Only what is between the
files changes; hunks are handed on as they are, and judged by the reader.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from workbench.mailhead import refused

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

#: A line without its end, and its 1-based place in the user's file.
Line = tuple[bytes, int]

STARTS = re.compile(rb"diff -|Index: |--- \S")
_HUNK = re.compile(rb"@@ -(\d{1,9})(?:,(\d{1,9}))? \+(\d{1,9})(?:,(\d{1,9}))? @@.*")
_NOISE = re.compile(rb"Index: .*|=+|diff -.*|")
_STRIP = "patch with -p1: the names start with a/ and b/, or with the two directories"


def as_git(path: Path, lines: Sequence[Line]) -> list[Line]:
    """Return the diff with git's header lines; one that has them comes back unchanged.

    UsageError names file and line.
    """
    if any(text.startswith(b"diff --git ") for text, _ in lines):
        return list(lines)
    found: list[Line] = []
    at = 0
    while at < len(lines):
        text, number = lines[at]
        if text.startswith(b"--- ") and at + 1 < len(lines):
            found += _header(path, lines, at)
            at += 2
            end = _end_of_hunks(path, lines, at)
            found += lines[at:end]
            at = end
        elif _NOISE.fullmatch(text):
            at += 1
        elif text.rstrip() == b"--":
            break
        else:
            raise refused(path, number, "this is no part of a diff")
    return found


def _header(path: Path, lines: Sequence[Line], at: int) -> list[Line]:
    """Turn a '---' and a '+++' line into git's header of a file."""
    (old_line, number), (new_line, _) = lines[at], lines[at + 1]
    if not new_line.startswith(b"+++ "):
        raise refused(path, number + 1, "a '--- ' line without a '+++ ' line")
    hunk = _HUNK.fullmatch(lines[at + 2][0]) if at + 2 < len(lines) else None
    old, new = (_name(line) for line in (old_line, new_line))
    if old is None and new is None:
        raise refused(path, number, "a diff between nothing and nothing", _STRIP)
    if old is not None and new is not None and old != new:
        raise refused(path, number, "the two names differ", _STRIP)
    name = new or old or b""
    head = [b"diff --git a/%s b/%s" % (name, name)]
    # diff -N writes a name where git writes /dev/null.
    if old is None or (hunk and (hunk[1], hunk[2]) == (b"0", b"0")):
        head += [b"new file mode 100644", b"--- /dev/null", b"+++ b/" + name]
    elif new is None or (hunk and (hunk[3], hunk[4]) == (b"0", b"0")):
        head += [b"deleted file mode 100644", b"--- a/" + name, b"+++ /dev/null"]
    else:
        head += [b"--- a/" + name, b"+++ b/" + name]
    return [(text, number) for text in head]


def _name(line: bytes) -> bytes | None:
    """Return a name without its first directory, None for /dev/null."""
    name = line[4:].partition(b"\t")[0].rstrip()
    if name == b"/dev/null":
        return None
    return name.partition(b"/")[2]


def _end_of_hunks(path: Path, lines: Sequence[Line], at: int) -> int:
    """Return the index after a file's hunks, by what their headers count."""
    while at < len(lines) and (match := _HUNK.fullmatch(lines[at][0])):
        old, new = (1 if count is None else int(count) for count in (match[2], match[4]))
        at += 1
        while old > 0 or new > 0:
            # A blank line is one of context, whose space an editor took away.
            sign = (lines[at][0][:1] or b" ") if at < len(lines) else b""
            if not sign or sign not in b" +-\\":
                number = lines[min(at, len(lines) - 1)][1]
                raise refused(path, number, f"the hunk is short of {old} old and {new} new lines")
            old -= sign in b" -"
            new -= sign in b" +"
            at += 1
        if at < len(lines) and lines[at][0].startswith(b"\\ "):
            at += 1
    return at
