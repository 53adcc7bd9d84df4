# SPDX-License-Identifier: GPL-2.0-only
"""Which commit of a branch is which patch it once was.

Amending, rewording and rebasing keep a commit's author, with his address and
the date, so that is what ties the two; of several patches with the same author
and date the subject decides, then the diff. A commit whose author was reset is
known by its subject, else by its diff. Of a split patch the piece that keeps
the most of this is the patch, and the others are new; of patches squashed into
one the one whose author and subject are left is that patch.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Hashable, Sequence

    from workbench.pieces import Piece

#: What has to be the same, the strongest first.
_SIGNS: Final[tuple[Callable[[Piece], Hashable], ...]] = (
    lambda each: (each.author, each.mail.subject, each.patch_id),
    lambda each: (each.author, each.mail.subject),
    lambda each: (each.author, each.patch_id),
    lambda each: each.mail.subject,
    lambda each: each.patch_id,
)


def tied(commits: Sequence[Piece], former: Sequence[Piece]) -> list[int | None]:
    """Return for each commit which of ``former`` it is, None for a new one."""
    found: dict[int, int] = {}
    for sign in _SIGNS:
        left = [at for at in range(len(former)) if at not in found.values()]
        for number, commit in enumerate(commits):
            same = (at for at in left if sign(former[at]) == sign(commit))
            if number not in found and (at := next(same, None)) is not None:
                found[number] = at
                left.remove(at)
    found |= _by_likeness(commits, former, found)
    return [found.get(number) for number in range(len(commits))]


def _by_likeness(
    commits: Sequence[Piece], former: Sequence[Piece], found: dict[int, int]
) -> dict[int, int]:
    """Tie what has the same author and date, and another subject and diff: the likest first."""
    pairs = [
        (-_likeness(commit.diff, old.diff), number, at)
        for number, commit in enumerate(commits)
        for at, old in enumerate(former)
        if number not in found and at not in found.values() and commit.author == old.author
    ]
    more: dict[int, int] = {}
    for _, number, at in sorted(pairs):
        if number not in more and at not in more.values():
            more[number] = at
    return more


def _likeness(one: bytes, other: bytes) -> float:
    """Return the share of lines that two diffs have in common."""
    counts = Counter(one.splitlines()), Counter(other.splitlines())
    every = (counts[0] | counts[1]).total()
    return (counts[0] & counts[1]).total() / every if every else 1.0
