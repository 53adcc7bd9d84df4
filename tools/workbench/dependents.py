# SPDX-License-Identifier: GPL-2.0-only
"""Which later patches of a series depend on one that is left out.

Patches of a series may be made on different kernels, so that their line
numbers do not compare. Their text does: a hunk that expects lines as an
earlier hunk leaves them stands on it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from difflib import SequenceMatcher
from typing import TYPE_CHECKING, Final

from workbench.explained import Dependent
from workbench.filechange import ChangeKind

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from workbench.filechange import Hunk
    from workbench.patchfile import PatchFile

_WORD = re.compile(rb"\w\w+")
_NO_NAMES: Final = frozenset(b"break case continue else endif goto if include out return".split())
_MIN_LINES: Final = 3
_MIN_NAMES: Final = 2


@dataclass(frozen=True)
class Step:
    """A patch, or a restore (``patch`` is None): what it touches, and what its extension needs."""

    extension: str
    label: str
    touched: tuple[str, ...]
    patch: PatchFile | None
    requires: tuple[str, ...] = ()

    @property
    def made(self) -> frozenset[str]:
        """The files that are there only because of it."""
        if self.patch is None:
            return frozenset(self.touched)
        kinds = {ChangeKind.CREATE, ChangeKind.RENAME, ChangeKind.COPY}
        return frozenset(each.name for each in self.patch.changes if each.kind in kinds)


def dependents(step: Step, later: Sequence[Step]) -> tuple[Dependent, ...]:
    """Return the later steps that depend on one, in their order, by the strongest reason each."""
    standing = [step]
    found = []
    for each in later:
        shared = tuple(path for path in each.touched if path in step.touched)
        how = _stands(each, standing)
        if how:
            standing.append(each)
        elif shared:
            how = "changes the same files"
        elif step.extension in each.requires:
            how = f"its extension requires {step.extension}"
        if how:
            found.append(Dependent(each.extension, each.label, how, shared))
    return tuple(found)


def _stands(later: Step, standing: Sequence[Step]) -> str:
    """Say on what of these a step stands, the first of them above all."""
    for number, below in enumerate(standing):
        if not below.made.isdisjoint(later.touched):
            how = "needs a file it brings" if not number else ""
        elif _on_lines(below, later):
            how = "stands on its lines" if not number else ""
        else:
            continue
        return how or f"stands on {below.extension}/{below.label}"
    return ""


def _on_lines(below: Step, later: Step) -> bool:
    """Tell whether a hunk of ``later`` expects what one of ``below`` leaves."""
    for path in set(below.touched) & set(later.touched):
        left = [(_lines(hunk.after), _places(hunk)) for hunk in _hunks(below, path)]
        expected = [_lines(hunk.before) for hunk in _hunks(later, path)]
        if any(_meet(*each, lines) for each in left for lines in expected):
            return True
    return False


def _hunks(step: Step, path: str) -> Iterator[Hunk]:
    for change in step.patch.changes if step.patch else ():
        if path in change.paths:
            yield from change.hunks


def _lines(text: bytes) -> list[bytes]:
    return text.split(b"\n")[:-1]


def _places(hunk: Hunk) -> list[int]:
    """Return the places of what a hunk leaves where it changed something: doubled line numbers.

    Line n is 2n + 1, the joint before it 2n.
    """
    places = []
    number = 0
    for line in hunk.body:
        if line[:1] == b"-":
            places.append(2 * number)
        elif not line.startswith(b"\\"):
            places += [2 * number + 1] if line[:1] == b"+" else []
            number += 1
    return places


def _meet(left: list[bytes], places: list[int], expected: list[bytes]) -> bool:
    """Tell whether lines in a row are in both, with a changed place within them."""
    matcher = SequenceMatcher(None, left, expected, autojunk=False)
    for start, _, size in matcher.get_matching_blocks():
        lines = left[start : start + size]
        inside = any(2 * start < place < 2 * (start + size) for place in places)
        if inside and size >= _MIN_LINES and any(map(_is_telling, lines)):
            return True
    return False


def _is_telling(line: bytes) -> bool:
    """Tell whether a line says more than any function has: it names two things."""
    return len(set(_WORD.findall(line)) - _NO_NAMES) >= _MIN_NAMES
