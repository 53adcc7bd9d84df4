# SPDX-License-Identifier: GPL-2.0-only
"""What compiler, kernel-doc and sparse say in a log of make's, and what of it is new."""

from __future__ import annotations

import posixpath
import re
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping

_SAID = re.compile(
    r"(?P<path>[^\s:]+):(?P<line>\d+):(?:\d+:)? (?P<text>(?:warning|error|fatal error): .*)"
)
# kernel-doc speaks so since it is Python (v6.16).
_KERNEL_DOC = re.compile(r"(?P<kind>Warning|Error): (?P<path>[^\s:]+):(?P<line>\d+):? (?P<text>.*)")
_CHECK = re.compile(r"  CHECK +(\S+)")


@dataclass(frozen=True)
class Diagnostic:
    """One message: ``path`` is as git spells it, ``line`` 1-based, ``text`` begins with its kind.

    Messages of the same path and text are the same, wherever they stand.
    """

    path: str
    line: int
    text: str

    @property
    def key(self) -> tuple[str, str]:
        """What stays of it when lines move."""
        return self.path, self.text


def read(log: str, source: str) -> tuple[Diagnostic, ...]:
    """Return the messages of a log, each once; ``source`` is the tree's absolute path.

    A header's message comes with every object that includes it.
    """
    found = (_parse(line, source) for line in log.splitlines())
    return tuple(dict.fromkeys(each for each in found if each is not None))


def checked(log: str, source: str) -> frozenset[str]:
    """Return the source files make says it gave to the checker."""
    matches = (_CHECK.fullmatch(line.rstrip()) for line in log.splitlines())
    return frozenset(_as_git_spells(match[1], source) for match in matches if match)


def new(
    before: Iterable[Diagnostic],
    after: Iterable[Diagnostic],
    touched: Mapping[str, Container[int]],
) -> tuple[Diagnostic, ...]:
    """Return what is said of touched files after a patch and was not before.

    ``touched`` are the files, each with the lines the patch brought. Lines
    move, so messages are counted; where one more of a kind stands than
    before, it is the one on a line of the patch.
    """
    left = Counter(each.key for each in before)
    mine = [each for each in after if each.path in touched]
    found = []
    for each in sorted(mine, key=lambda one: one.line in touched[one.path]):
        if left[each.key]:
            left[each.key] -= 1
        else:
            found.append(each)
    return tuple(sorted(found, key=lambda one: (one.path, one.line)))


def _parse(line: str, source: str) -> Diagnostic | None:
    match = _SAID.match(line)
    if match is not None:
        return Diagnostic(_as_git_spells(match["path"], source), int(match["line"]), match["text"])
    match = _KERNEL_DOC.match(line)
    if match is None:
        return None
    text = f"{match['kind'].lower()}: {match['text']}"
    return Diagnostic(_as_git_spells(match["path"], source), int(match["line"]), text)


def _as_git_spells(path: str, source: str) -> str:
    """Cut the tree's place off: absolute, or beside the output directory."""
    name = posixpath.basename(source)
    for prefix in (f"{source}/", f"../{name}/"):
        path = path.removeprefix(prefix)
    return posixpath.normpath(path)
