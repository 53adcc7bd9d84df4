# SPDX-License-Identifier: GPL-2.0-only
"""Which later patches depend on one that is left out."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING

import pytest
from toy_kernel import Files, ToyKernels, numbered, text

from workbench import report_series
from workbench.explained import Dependent
from workbench.model import PatchState

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.model import PatchOutcome

LINES = numbered("state", 90)
OTHER = numbered("other", 30)
PATH = "net/state.c"
BASE: Files = {PATH: text(LINES), "net/other.c": text(OTHER)}
FIRST = {"at30": b"patched the state\n" * 5}
AFTER: Files = {**BASE, PATH: text(LINES, **FIRST)}


@pytest.fixture
def toys(tmp_path: Path) -> ToyKernels:
    """Give a base kernel, and a first patch that will conflict on line 30."""
    found = ToyKernels(tmp_path)
    found.kernel("v5.10.262", {**BASE})
    found.describe("e")
    found.patch("e/0001-x.patch", {**BASE}, {**AFTER})
    return found


def conflicting(toys: ToyKernels) -> PatchOutcome:
    kernel = toys.kernel("v6.12.107", {**BASE, PATH: text(LINES, at30=b"upstream\n")})
    outcome = toys.rebase(kernel).outcomes[0]
    assert outcome.state is PatchState.CONFLICT
    return outcome


def second(toys: ToyKernels, after: Files, name: str = "e/0002-y.patch") -> None:
    toys.patch(name, {**AFTER}, after)


def how(toys: ToyKernels) -> list[tuple[str, str]]:
    return [(each.patch, each.how) for each in conflicting(toys).needed_by]


def test_one_that_changes_the_same_lines(toys: ToyKernels) -> None:
    second(toys, {**BASE, PATH: text(LINES, at30=b"patched the state\n" * 4 + b"y\n")})
    assert conflicting(toys).needed_by == (
        Dependent("e", "0002-y.patch", "stands on its lines", (PATH,)),
    )


@pytest.mark.parametrize("line", ["at29", "at33", "at27"])
def test_one_whose_context_reaches_there(toys: ToyKernels, line: str) -> None:
    second(toys, {**BASE, PATH: text(LINES, **FIRST, **{line: b"second\n"})})
    assert how(toys) == [("0002-y.patch", "stands on its lines")]


@pytest.mark.parametrize("line", ["at22", "at26", "at34", "at40"])
def test_one_that_is_elsewhere_in_the_file(toys: ToyKernels, line: str) -> None:
    second(toys, {**BASE, PATH: text(LINES, **FIRST, **{line: b"second\n"})})
    assert how(toys) == [("0002-y.patch", "changes the same files")]


def test_one_that_expects_lines_gone(toys: ToyKernels) -> None:
    """The first patch only takes a line out: the joint is what the second stands on."""
    toys.patch("e/0001-x.patch", {**BASE}, {**BASE, PATH: text(LINES, at30=b"")})
    joined = {**BASE, PATH: text(LINES, at30=b"")}
    toys.patch("e/0002-y.patch", joined, {**BASE, PATH: text(LINES, at30=b"", at32=b"y\n")})
    assert how(toys) == [("0002-y.patch", "stands on its lines")]


def test_one_that_touches_nothing_of_it_does_not(toys: ToyKernels) -> None:
    second(toys, {**AFTER, "net/other.c": text(OTHER, at9=b"second\n")})
    assert how(toys) == []


def test_one_on_a_file_it_brings(toys: ToyKernels) -> None:
    with_new: Files = {**AFTER, "net/new.c": text(OTHER[:20])}
    toys.patch("e/0001-x.patch", {**BASE}, with_new)
    toys.patch("e/0002-y.patch", with_new, {**with_new, "net/new.c": text(OTHER[:20], at9=b"y\n")})
    assert how(toys) == [("0002-y.patch", "needs a file it brings")]


def test_one_that_stands_on_one_that_depends_on_it(toys: ToyKernels) -> None:
    changes = {**FIRST, "at32": b"second patch\n"}
    second(toys, {**BASE, PATH: text(LINES, **changes)})
    changes |= {"at35": b"third patch\n"}
    before: Files = {**BASE, PATH: text(LINES, **FIRST, at32=b"second patch\n")}
    toys.patch("e/0003-z.patch", before, {**BASE, PATH: text(LINES, **changes)})
    assert how(toys) == [
        ("0002-y.patch", "stands on its lines"),
        ("0003-z.patch", "stands on e/0002-y.patch"),
    ]


def test_lines_any_function_has_do_not_count(toys: ToyKernels) -> None:
    """A hunk elsewhere that looks alike stands on its own lines, not on these."""
    ending = b"\t\tgoto out;\n\t}\n\treturn err;\n}\n\n"
    first: Files = {**BASE, PATH: text(LINES, at30=ending)}
    toys.patch("e/0001-x.patch", {**BASE}, first)
    both = {"at30": ending, "at60": ending}
    toys.patch("e/0002-y.patch", first, {**BASE, PATH: text(LINES, **both)})
    third = {**both, "at61": b"third\n"}
    before: Files = {**BASE, PATH: text(LINES, **both)}
    toys.patch("e/0003-z.patch", before, {**BASE, PATH: text(LINES, **third)})
    assert how(toys) == [
        ("0002-y.patch", "changes the same files"),
        ("0003-z.patch", "changes the same files"),
    ]


def test_a_single_line_that_is_alike_does_not_count(toys: ToyKernels) -> None:
    before: Files = {PATH: text(LINES, at60=b"patched the state\n")}
    toys.kernel("v5.10.262", before)
    first = {**FIRST, "at60": b"patched the state\n"}
    toys.patch("e/0001-x.patch", before, {PATH: text(LINES, **first)})
    after: Files = {PATH: text(LINES, **first, at61=b"second\n")}
    toys.patch("e/0002-y.patch", {PATH: text(LINES, **first)}, after)
    assert how(toys) == [("0002-y.patch", "changes the same files")]


def test_line_numbers_of_another_base_do_not_matter(toys: ToyKernels) -> None:
    """A variant is made on another kernel: only its text tells what it stands on."""
    toys.describe("e", '[variants."v6.12"]\nbase = "v6.12.38"\n')
    above = b"upstream\n" * 40
    toys.kernel("v6.12.38", {**BASE, PATH: above + text(LINES)})
    toys.patch(
        "e/since-v6.12/0002-y.patch",
        {PATH: above + text(LINES, **FIRST)},
        {PATH: above + text(LINES, **FIRST, at32=b"second\n")},
    )
    second(toys, {**BASE, PATH: text(LINES, **FIRST, at80=b"elsewhere\n")})
    assert how(toys) == [("since-v6.12/0002-y.patch", "stands on its lines")]


def test_one_of_an_extension_that_requires_it(toys: ToyKernels) -> None:
    toys.describe("f", 'requires = ["e"]\n')
    toys.describe("g")
    for name in ("f", "g"):
        toys.patch(
            f"{name}/0001-{name}.patch",
            {**BASE},
            {**BASE, f"net/{name}.c": b"new\n"},
        )
    assert [(each.extension, each.how) for each in conflicting(toys).needed_by] == [
        ("f", "its extension requires e")
    ]


def test_what_needs_a_file_that_cannot_be_restored(toys: ToyKernels) -> None:
    table = f'[[restore]]\nsince = "v6.3"\nfrom = "v5.10.262"\npaths = ["{PATH}"]\n'
    toys.describe("e", table)
    assert how(toys) == [("0001-x.patch", "needs a file it brings")]


def test_one_that_applies_has_nobody_waiting_for_it(toys: ToyKernels) -> None:
    second(toys, {**BASE, PATH: text(LINES, **FIRST, at32=b"second\n")})
    series = toys.rebase(toys.kernel("v6.12.107", {**BASE}))
    assert [outcome.needed_by for outcome in series.outcomes] == [(), ()]


def test_the_report_names_them(toys: ToyKernels) -> None:
    second(toys, {**BASE, PATH: text(LINES, **FIRST, at32=b"second\n")})
    before: Files = {**BASE, PATH: text(LINES, **FIRST, at32=b"second\n")}
    after: Files = {**BASE, PATH: text(LINES, **FIRST, at32=b"second\n", at80=b"third\n")}
    toys.patch("e/0003-z.patch", before, after)
    series = toys.rebase(toys.kernel("v6.12.107", {**BASE, PATH: text(LINES, at30=b"up\n")}))
    stream = io.StringIO()
    report_series.show([series], stream)
    told = stream.getvalue()
    assert "  depends on e/0001-x.patch: e/0002-y.patch (stands on its lines)\n" in told
    assert "  depends on e/0001-x.patch: e/0003-z.patch (changes the same files)\n" in told
    data = json.loads(json.dumps(report_series.as_data([series], 3)))
    assert data["kernels"][0]["patches"][0]["needed_by"][0] == {
        "extension": "e",
        "patch": "0002-y.patch",
        "how": "stands on its lines",
        "paths": [PATH],
    }
