# SPDX-License-Identifier: GPL-2.0-only
"""The numbers of patches in a new order, with gaps and with numbers of others beside them."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import UsageError
from workbench.numbering import numbered

#: Numbers in any order, with new patches among them.
_ORDERS = st.lists(st.integers(0, 12), unique=True, max_size=6).flatmap(
    lambda had: st.permutations([*had, None, None])
)


@pytest.mark.parametrize(
    ("order", "beside", "wanted"),
    [
        ([1, 2, 3, 5], [], [1, 2, 3, 5]),
        ([0, 4, 7], [], [0, 4, 7]),
        ([1, 3, 5], [], [1, 3, 5]),
        ([1, 2, 3, None, 5], [], [1, 2, 3, 4, 5]),
        ([1, 2, None, 3, 5], [], [1, 2, 3, 4, 5]),
        ([1, 2, 3, 5, None], [], [1, 2, 3, 5, 6]),
        ([None, 1, 2, 5], [], [1, 2, 3, 5]),
        ([10, None, None, 12], [], [10, 11, 12, 13]),
        ([2, 1], [], [1, 2]),
        ([1, 3, 2, 5], [], [1, 3, 4, 5]),
        ([3, 1, 2, 5], [4], [1, 2, 3, 5]),
        ([1, 2, 3, None, 5], [4], [1, 2, 3, 5, 6]),
        ([*range(2, 9), 1], [], [*range(2, 9), 9]),
        ([8, *range(1, 8)], [], [*range(1, 9)]),
        ([], [4], []),
    ],
)
def test_as_many_as_can_be_keep_their_number(
    order: list[int | None], beside: list[int], wanted: list[int]
) -> None:
    assert numbered(order, beside)[0] == wanted


@settings(max_examples=200, deadline=None)
@given(_ORDERS, st.sets(st.integers(0, 12), max_size=4))
def test_the_order_is_kept_and_no_number_given_twice(
    order: list[int | None], others: set[int]
) -> None:
    beside = others - set(order)
    numbers, moved = numbered(order, beside)
    assert all(a < b for a, b in itertools.pairwise(numbers))
    assert set(moved) == beside
    assert len({*numbers, *moved.values()}) == len(order) + len(beside)
    pairs = [moved[each] for each in sorted(moved)]
    assert pairs == sorted(pairs), "what is beside keeps its order"


@given(st.sets(st.integers(0, 40)), st.sets(st.integers(0, 40)))
def test_what_is_in_order_keeps_its_numbers(own: set[int], others: set[int]) -> None:
    beside = others - own
    assert numbered(sorted(own), beside) == (sorted(own), {each: each for each in beside})


def test_there_is_an_end_of_numbers() -> None:
    with pytest.raises(UsageError, match="would have the number 10000; close some gaps"):
        numbered([9998, None, 9999], [])
