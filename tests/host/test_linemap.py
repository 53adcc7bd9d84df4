# SPDX-License-Identifier: GPL-2.0-only
"""Lines of one text are found in another."""

from __future__ import annotations

import pytest

from workbench.conflicts import Region, _place
from workbench.linemap import Change, Span, followed

GROWN = Change(Span(7, 9), Span(7, 12))
ADDED = Change(Span(5, 5), Span(5, 7))
TAKEN = Change(Span(5, 8), Span(5, 5))


@pytest.mark.parametrize(
    ("change", "span", "there", "differs"),
    [
        (GROWN, Span(9, 11), Span(12, 14), False),
        (GROWN, Span(5, 7), Span(5, 7), False),
        (GROWN, Span(5, 8), Span(5, 12), True),
        (GROWN, Span(8, 11), Span(7, 14), True),
        (ADDED, Span(5, 8), Span(5, 10), True),
        (ADDED, Span(3, 5), Span(3, 7), True),
        (ADDED, Span(6, 8), Span(8, 10), False),
        (ADDED, Span(5, 5), Span(5, 7), True),
        (TAKEN, Span(8, 9), Span(5, 6), False),
        (TAKEN, Span(4, 9), Span(4, 6), True),
        (TAKEN, Span(8, 8), Span(5, 5), True),
    ],
)
def test_lines_are_followed_through_a_change(
    change: Change, span: Span, there: Span, *, differs: bool
) -> None:
    assert followed([change], span) == (there, differs)


def test_changes_above_add_up() -> None:
    assert followed([ADDED, Change(Span(8, 8), Span(10, 11))], Span(20, 21))[0] == Span(23, 24)


def test_what_a_diff_puts_beside_a_region_is_not_taken_for_it() -> None:
    region = Region(3, b"c\n", b"", b"")
    assert _place(region, [Change(Span(3, 3), Span(3, 5))], b"a\nb\nx\ny\nc\n") == 5
    assert _place(region, [Change(Span(4, 4), Span(4, 6))], b"a\nb\nc\nx\ny\n") == 3
