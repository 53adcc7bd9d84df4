# SPDX-License-Identifier: GPL-2.0-only
"""What is told of a patch that does not go in as it stands: values of a rebase's report."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

#: What comes of a resolution that a selftest has confirmed.
SAVED: Final = (
    "'kpw save' writes the patch, "
    "unless it conflicts with other extensions only: then this stays in use"
)


@dataclass(frozen=True)
class UpstreamCommit:
    """A commit of upstream's: the start of its id, and its subject."""

    id: str
    subject: str


@dataclass(frozen=True)
class UpstreamWork:
    """What upstream did to some lines since ``since``, the name of a kernel.

    ``commits`` (newest first, a handful) come from a git history. Without one
    ``between`` has the pairs of neighbouring imported kernels, older and
    newer, between which the lines changed; the pair nearest to the kernel
    first. At most one of the two is not empty.
    """

    since: str
    commits: tuple[UpstreamCommit, ...] = ()
    between: tuple[tuple[str, str], ...] = ()


class HunkState(StrEnum):
    """What one hunk would come to by itself."""

    THERE = "already there"
    APPLIES = "applies"
    CONFLICTS = "conflicts"


@dataclass(frozen=True)
class HunkOutcome:
    """One hunk: ``path`` is the file's name here, ``line`` the hunk's (1-based) in the patch."""

    path: str
    line: int
    state: HunkState


@dataclass(frozen=True)
class Dependent:
    """A later patch that depends on one that is left out.

    ``how`` is half a sentence ("stands on its lines"), ``paths`` the files
    both touch.
    """

    extension: str
    patch: str
    how: str
    paths: tuple[str, ...] = ()
