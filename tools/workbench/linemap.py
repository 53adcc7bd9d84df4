# SPDX-License-Identifier: GPL-2.0-only
"""Where lines of one text are in another, by git's diff of the two."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workbench.gitstore import Store

_HUNK = re.compile(rb"^@@ -(\d+)(?:,(\d+))? \+(\d+)(?:,(\d+))? @@", re.MULTILINE)


class Span(NamedTuple):
    """Lines ``start`` (1-based) to before ``end``; empty between two lines."""

    start: int
    end: int


class Change(NamedTuple):
    """Which lines a diff replaces by which; empty where it only adds or takes away."""

    old: Span
    new: Span


def changes(store: Store, before: str | Path, after: str | Path, *options: str) -> list[Change]:
    """Compare two blobs of the store, or with the option ``--no-index`` two files."""
    words = ("diff", "--no-color", "--no-ext-diff", "--text", "-U0", *options)
    _, out, _ = store.git_bytes(*words, before, after)
    found = []
    for match in _HUNK.finditer(out):
        numbers = [1 if each is None else int(each) for each in match.groups()]
        found.append(Change(_span(*numbers[:2]), _span(*numbers[2:])))
    return found


def followed(found: Sequence[Change], span: Span) -> tuple[Span, bool]:
    """Return where lines of the old text are in the new, and whether they differ there."""
    touched = [change for change in found if _touches(change.old, span)]
    above = [each for each in found if each.old.end <= span.start and each not in touched]
    shift = sum(map(_growth, above))
    grown = sum(map(_growth, touched))
    start = min([span.start + shift, *(each.new.start for each in touched)])
    end = max([span.end + shift + grown, *(each.new.end for each in touched)])
    return Span(start, end), bool(touched)


def _span(start: int, count: int) -> Span:
    """Read a hunk's numbers: of no lines git names the line before."""
    return Span(start, start + count) if count else Span(start + 1, start + 1)


def _touches(changed: Span, span: Span) -> bool:
    """Tell whether a change reaches into lines; what is added at their edge does."""
    if changed.start == changed.end or span.start == span.end:
        return changed.start <= span.end and changed.end >= span.start
    return changed.start < span.end and changed.end > span.start


def _growth(change: Change) -> int:
    return (change.new.end - change.new.start) - (change.old.end - change.old.start)
