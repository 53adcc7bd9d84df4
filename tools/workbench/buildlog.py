# SPDX-License-Identifier: GPL-2.0-only
"""What a build's log says: how far it is, and what the first error was."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Sequence

_COMPILED = re.compile(r"  (?:CC|AS)(?: \[M\])? +(\S+\.o)$")
# In the order of how much they explain: the first kind found in the log wins,
# and of one kind the first line.
_ERRORS: Final = (
    re.compile(r"\S+:\d+(?::\d+)?: (?:fatal )?error: .*"),
    re.compile(r"Kconfig\S*:\d+:.*|\S+/Kconfig\S*:\d+:.*"),
    # Before the linker's line on where that is, which names no symbol.
    re.compile(r".*undefined reference to .*|.*multiple definition.*"),
    re.compile(r"\S*ld(?:\.\w+)?: (?!warning).*"),
    re.compile(r"ERROR: modpost: .*"),
    re.compile(r"\S+:\d+: Error: .*"),
    re.compile(r".*\bNo rule to make target .*"),
    re.compile(r"bwrap: .*"),
    re.compile(
        r".*: (?:Read-only file system|Permission denied|Network is unreachable"
        r"|(?:command )?not found|No such file or directory)"
    ),
    re.compile(r".*\berror\b:? .*", re.IGNORECASE),
    re.compile(r"make(?:\[\d+\])?: \*\*\* .*"),
)
_NO_SPACE = re.compile(r".*(?:No space left on device|Disk quota exceeded).*")
_KILLED = re.compile(
    r".*(?:Killed signal terminated program|internal compiler error: Killed"
    r"|Cannot allocate memory|virtual memory exhausted|out of memory allocating).*"
)
_MISSING = re.compile(
    r"No rule to make target '([^']+)'|fatal error: (\S+): No such file or directory"
)
_BEFORE, _AFTER = 4, 10


@dataclass(frozen=True)
class Failure:
    """The first error of a build: ``reason`` is its line, ``excerpt`` the lines around it."""

    reason: str
    excerpt: str


def compiled_file(line: str) -> str | None:
    """Return the object a line of make's says it compiles, None for any other line."""
    match = _COMPILED.match(line)
    return match[1] if match else None


def missing_file(reason: str) -> str | None:
    """Return the file an error says is not there, None when it says something else."""
    match = _MISSING.search(reason)
    return next(filter(None, match.groups())) if match else None


def machine_fault(log: str) -> str | None:
    """Return what the machine lacked, when that and not the source broke the build."""
    if _NO_SPACE.search(log):
        return "the disk is full"
    if _KILLED.search(log):
        return "memory ran out: the compiler was killed"
    return None


def first_failure(log: str, source_prefixes: Sequence[str] = ()) -> Failure:
    """Find the first error; ``source_prefixes`` are cut from paths, so that they read as git's."""
    for prefix in source_prefixes:
        log = log.replace(prefix, "")
    lines = log.splitlines()
    for pattern in _ERRORS:
        for at, line in enumerate(lines):
            if pattern.fullmatch(line.strip()):
                return Failure(line.strip(), _around(lines, at))
    last = next((line.strip() for line in reversed(lines) if line.strip()), "no output")
    return Failure(last, _around(lines, len(lines)))


def _around(lines: Sequence[str], at: int) -> str:
    return "\n".join(lines[max(0, at - _BEFORE) : at + _AFTER])
