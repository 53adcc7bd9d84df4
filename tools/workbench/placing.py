# SPDX-License-Identifier: GPL-2.0-only
"""Place a patch's hunks in a text as ``git apply`` does, line for line.

git looks for a hunk's old lines from the line the hunk names outwards, the
later line first; it takes the first place where all of them stand, touches no
line that an earlier hunk wrote, and wants a hunk without lines before (after)
the change at the beginning (end) of the file. What is out of the ordinary is
not judged here (:func:`understood`): that is left to git.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from workbench.filechange import ChangeKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workbench.filechange import FileChange, Hunk

_REGULAR = {"100644", "100755"}


@dataclass(frozen=True)
class Placed:
    """A text with its hunks in, and the lines by which those moved that did."""

    text: bytes
    offsets: tuple[int, ...] = ()


def understood(change: FileChange) -> bool:
    """Tell whether it is a plain change of text: no rename, mode, link, CR or missing newline."""
    if not change.hunks or b"\r" in change.text or _lacks_newline(change.hunks):
        return False
    first = change.hunks[0]
    match change.kind:
        case ChangeKind.MODIFY:
            same = change.old_mode == change.new_mode
            plain = change.old_mode in {*_REGULAR, ""}
            return same and plain and all(hunk.old_count for hunk in change.hunks)
        case ChangeKind.CREATE:
            alone = len(change.hunks) == 1 and (first.old_start, first.new_start) == (0, 1)
            return alone and change.new_mode in _REGULAR
        case ChangeKind.DELETE:
            alone = len(change.hunks) == 1 and (first.old_start, first.new_start) == (1, 0)
            return alone and change.old_mode in _REGULAR
        case _:
            return False


def place(text: bytes, hunks: Sequence[Hunk]) -> Placed | None:
    """Put the hunks of an understood change into a text; None when one finds no place."""
    work = _Work(text)
    for hunk in hunks:
        if not work.put(hunk):
            return None
    return Placed(work.text, tuple(work.offsets))


def _lacks_newline(hunks: Sequence[Hunk]) -> bool:
    return any(line.startswith(b"\\") for hunk in hunks for line in hunk.body)


@dataclass
class _Work:
    """A text under change; ``written`` are the spans (in bytes) that hunks wrote."""

    text: bytes
    offsets: list[int] = field(default_factory=list)
    written: list[tuple[int, int]] = field(default_factory=list)

    def put(self, hunk: Hunk) -> bool:
        before, after = hunk.before, hunk.after
        named = max(hunk.new_start - 1, 0)
        found = self._find(before, hunk, named)
        if found is None:
            return False
        line, start = found
        end, growth = start + len(before), len(after) - len(before)
        self.text = self.text[:start] + after + self.text[end:]
        self.written = [
            (low + growth, high + growth) if low >= end else (low, high)
            for low, high in self.written
        ]
        self.written.append((start, start + len(after)))
        if line != named:
            self.offsets.append(line - named)
        return True

    def _find(self, before: bytes, hunk: Hunk, named: int) -> tuple[int, int] | None:
        """Return line (0-based) and byte of the place git takes."""
        if hunk.old_start <= 1 or not _ends_in_context(hunk):
            return self._find_at_edge(before, hunk)
        # Nearest first, and of two as near the later.
        return min(
            self._places(before),
            key=lambda place: (abs(place[0] - named), place[0] < named),
            default=None,
        )

    def _find_at_edge(self, before: bytes, hunk: Hunk) -> tuple[int, int] | None:
        last = len(self.text) - len(before)
        start = 0 if hunk.old_start <= 1 else last
        must_end = not _ends_in_context(hunk)
        if start < 0 or (must_end and start != last) or not self._fits(before, start):
            return None
        return self.text.count(b"\n", 0, start), start

    def _places(self, before: bytes) -> Iterator[tuple[int, int]]:
        line, counted = 0, 0
        start = self.text.find(before)
        while start >= 0:
            if self._fits(before, start):
                line += self.text.count(b"\n", counted, start)
                counted = start
                yield line, start
            start = self.text.find(before, start + 1)

    def _fits(self, before: bytes, start: int) -> bool:
        """Tell whether whole lines, none written by an earlier hunk, are the old lines."""
        if start and self.text[start - 1 : start] != b"\n":
            return False
        end = start + len(before)
        clear = all(high <= start or end <= low for low, high in self.written)
        return clear and self.text.startswith(before, start)


def _ends_in_context(hunk: Hunk) -> bool:
    return hunk.body[-1][:1] in {b" ", b"\n"}
