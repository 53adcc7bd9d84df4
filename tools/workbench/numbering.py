# SPDX-License-Identifier: GPL-2.0-only
"""The numbers patches get in a new order: as many as can be keep the one they have.

A number is what a patch's variants and its remembered resolutions are named
by, and what people call it; so gaps are left, and used.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from workbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

_LAST: Final = 9999


def numbered(
    order: Sequence[int | None], beside: Collection[int]
) -> tuple[list[int], dict[int, int]]:
    """Return the numbers of patches in order, and what becomes of the numbers ``beside`` them.

    ``order`` has the former number of each patch, None for a new one.
    ``beside`` are numbers in use that have no place in the order: each stays
    between the patches it was between, as far as these still are in order.
    UsageError when there are too many.
    """
    if 0 in {*order, *beside}:  # git counts from 1, but nobody is forbidden to begin below
        up = [None if each is None else each + 1 for each in order]
        found, away = numbered(up, [each + 1 for each in beside])
        return [each - 1 for each in found], {old - 1: new - 1 for old, new in away.items()}
    slots: list[int | None] = list(order)
    places = list(range(len(order)))  # which of the order a slot is
    for number in sorted(beside):
        at = _between(slots, number)
        slots.insert(at, number)
        places.insert(at, -1)
    given = _assigned(slots)
    if given and given[-1] > _LAST:
        raise UsageError(f"a patch would have the number {given[-1]}", next_step="close some gaps")
    numbers = [0] * len(order)
    moved: dict[int, int] = {}
    for number, slot, place in zip(given, slots, places, strict=True):
        if place >= 0:
            numbers[place] = number
        elif slot is not None:
            moved[slot] = number
    return numbers, moved


def _between(slots: Sequence[int | None], number: int) -> int:
    """Return the first place for a number with the fewest on the wrong side of it."""

    def wrong(at: int) -> int:
        before = sum(each is not None and each > number for each in slots[:at])
        return before + sum(each is not None and each < number for each in slots[at:])

    return min(range(len(slots) + 1), key=wrong)


def _assigned(slots: Sequence[int | None]) -> list[int]:
    """Return the numbers of all slots, by the best of a few ways to choose those that stay.

    That is the one by which the most stay; the highest number may grow
    otherwise than by new patches only where that saves more than one renaming.
    """
    had = {each for each in slots if each is not None}
    room = max(had, default=0) + slots.count(None) - len(slots)
    ways = []
    for most, growing in ((room, False), (_LAST, True)):
        for early in (True, False):
            kept = _kept(slots, most, early=early)
            given = _counted(slots, kept)
            ways.append((len(kept) - growing, len(had.intersection(given)), not growing, given))
    return max(ways, key=lambda way: way[:3])[3]


def _counted(slots: Sequence[int | None], kept: set[int]) -> list[int]:
    """Count up through the slots, from each that stays."""
    given: list[int] = []
    for at, slot in enumerate(slots):
        before = given[-1] if given else 0
        given.append(slot if slot is not None and at in kept else before + 1)
    return given


def _kept(slots: Sequence[int | None], most: int, *, early: bool) -> set[int]:
    """Return the places of the most numbers that can stay, with room for all between them.

    A number less its place is the room there is before it; that may not
    shrink from one that stays to the next, nor be more than ``most``. Of
    several choices take that with the first of them ``early``, else that
    which leaves the least room.
    """
    best: dict[int, tuple[int, int, int]] = {}  # place -> how many stay, the room, the one before

    def choice(at: int) -> tuple[int, int]:
        count, room, _ = best[at]
        return count, 0 if early else -room

    for at, slot in enumerate(slots):
        room = -1 if slot is None else slot - (at + 1)
        if not 0 <= room <= most:
            continue
        before = [each for each in best if best[each][1] <= room]
        last = max(before, key=choice, default=-1)
        best[at] = (best[last][0] + 1 if last >= 0 else 1, room, last)
    last = max(best, key=choice, default=-1)
    kept: set[int] = set()
    while last >= 0:
        kept.add(last)
        last = best[last][2]
    return kept
