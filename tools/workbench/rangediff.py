# SPDX-License-Identifier: GPL-2.0-only
"""What differs between a series on one kernel and the same series on another.

Git guesses which commits of two ranges belong together by their likeness.
Here it is known: a patch keeps its extension and its number, whatever became
of its text. So git's pairs are taken where they are ours, and a pair it did
not see is compared by itself.
"""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping

    from workbench.gitstore import Store
    from workbench.model import PatchOutcome, RebasedSeries

# range-diff does not hear --abbrev.
_WORDS: Final = ("-c", "core.abbrev=40", "range-diff", "--no-color", "--no-notes")
# Two commits are one pair however little they have in common. It is a factor
# of a number of lines in an int of C's: larger ones overflow.
_ALWAYS: Final = "--creation-factor=9999"
_HEADER = re.compile(
    r" *(?:\d+|-): +([0-9a-f]{40}|-+) ([=!<>]) +(?:\d+|-): +([0-9a-f]{40}|-+)(?: .*)?"
)
_NUMBER = re.compile(r"(\d+)-")
_INDENT: Final = 4


class PairState(StrEnum):
    """What a patch is in two rebased series; NEITHER has a commit for it in none."""

    SAME = "same"
    CHANGED = "changed"
    ONLY_A = "only-a"
    ONLY_B = "only-b"
    NEITHER = "neither"


@dataclass(frozen=True)
class Pair:
    """One patch on two kernels: ``a`` and ``b`` None where it has no file for that kernel.

    ``text`` is git's range-diff of the two commits without its indent, empty
    unless they differ.
    """

    extension: str
    a: PatchOutcome | None
    b: PatchOutcome | None
    state: PairState
    text: str = ""

    @property
    def outcome(self) -> PatchOutcome:
        """The patch where it is: on the second kernel, else on the first."""
        found = self.b or self.a
        if found is None:
            raise AssertionError("a pair has a side")
        return found

    @property
    def conflicts(self) -> bool:
        """Tell that it does not apply on one of the kernels."""
        return any(side is not None and not side.state.applies for side in (self.a, self.b))


def compare(
    store: Store, a: RebasedSeries, b: RebasedSeries, extension: str | None = None
) -> tuple[Pair, ...]:
    """Pair the patches of two rebased series, all of them or one extension's; in b's order.

    What is only in ``a`` stands before what follows it there.
    """
    sides = _sides(a, extension), _sides(b, extension)
    found = _read(_range_diff(store, a, b))
    return tuple(
        _pair(store, found, sides[0].get(key), sides[1].get(key)) for key in _merged(*sides)
    )


_Key = tuple[str, str, int]
_Said = tuple[str, str]


def _sides(series: RebasedSeries, extension: str | None) -> dict[_Key, PatchOutcome]:
    """Name every patch by what does not change between kernels."""
    seen: Counter[tuple[str, str]] = Counter()
    named: dict[_Key, PatchOutcome] = {}
    for outcome in series.outcomes:
        if extension not in {None, outcome.extension}:
            continue
        number = _NUMBER.match(outcome.patch.rpartition("/")[2])
        name = (outcome.extension, number[1] if number else outcome.patch)
        seen[name] += 1
        named[*name, seen[name]] = outcome
    return named


def _merged(a: Mapping[_Key, PatchOutcome], b: Mapping[_Key, PatchOutcome]) -> list[_Key]:
    """Merge the orders: b's, with what only ``a`` has before what follows it there."""
    keys = list(b)
    for key in reversed([key for key in a if key not in b]):
        order = list(a)
        after = next((each for each in order[order.index(key) + 1 :] if each in keys), None)
        keys.insert(keys.index(after) if after is not None else len(keys), key)
    return keys


def _pair(
    store: Store,
    found: Mapping[tuple[str, str], _Said],
    a: PatchOutcome | None,
    b: PatchOutcome | None,
) -> Pair:
    one, two = a and a.commit, b and b.commit
    extension = a.extension if a is not None else b.extension if b is not None else ""
    if one and two:
        sign, text = found.get((one, two)) or _alone(store, one, two)
        state = PairState.SAME if sign == "=" else PairState.CHANGED
        return Pair(extension, a, b, state, text)
    state = PairState.ONLY_A if one else PairState.ONLY_B if two else PairState.NEITHER
    return Pair(extension, a, b, state)


def _range_diff(store: Store, a: RebasedSeries, b: RebasedSeries) -> str:
    ranges = (f"{each.kernel.commit}..{each.commit}" for each in (a, b))
    return store.git(*_WORDS, *ranges)


def _alone(store: Store, a: str, b: str) -> _Said:
    """Compare two commits that git would not take for the same patch."""
    said = store.git(*_WORDS, _ALWAYS, f"{a}^..{a}", f"{b}^..{b}")
    return _read(said)[a, b]


def _read(said: str) -> dict[tuple[str, str], _Said]:
    """Read a range-diff: by pair of commits git's sign and the text below, without indent."""
    found: dict[tuple[str, str], tuple[str, list[str]]] = {}
    lines: list[str] = []
    # Not splitlines: a patch may hold a form feed, which that takes for a line's end.
    for line in said.split("\n"):
        header = _HEADER.fullmatch(line)
        if header is not None:
            lines = []
            found[header[1], header[3]] = header[2], lines
        else:
            lines.append(line[_INDENT:])
    return {pair: (sign, "\n".join(body)) for pair, (sign, body) in found.items()}
