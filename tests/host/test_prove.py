# SPDX-License-Identifier: GPL-2.0-only
"""Red for the stated reason, for another, or not at all; and what is remembered of it."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from workbench import evidence
from workbench.model import SelftestResult, Splat, SplatKind, TestKind
from workbench.paths import Paths
from workbench.prove import Evidence, ProofState, judge_proof
from workbench.suite import Suite

if TYPE_CHECKING:
    from pathlib import Path

GREEN = SelftestResult("ext", "ext/test_x.py::test_p", TestKind.PROOF, "passed", red="30 seconds")
RED = replace(GREEN, outcome="failed", message="AssertionError: lives 30 seconds\nassert 30 == 2")


@pytest.mark.parametrize(
    ("red", "state"),
    [
        (RED, ProofState.RED),
        (replace(RED, message="AssertionError\nassert '30 seconds' == 2"), ProofState.RED),
        (replace(RED, message="TypeError: None"), ProofState.OTHER),
        (replace(RED, outcome="error"), ProofState.OTHER),
        (replace(RED, outcome="skipped"), ProofState.OTHER),
        (replace(RED, outcome="passed", message=""), ProofState.NOT_RED),
        (None, ProofState.MISSING),
    ],
)
def test_red(red: SelftestResult | None, state: ProofState) -> None:
    assert judge_proof(GREEN, red).state is state


def test_the_message_is_the_failures_first_line() -> None:
    assert judge_proof(GREEN, RED).message == "AssertionError: lives 30 seconds"


@pytest.mark.parametrize("pattern", ["", "("])
def test_a_proof_that_states_nothing_usable_is_not_proven(pattern: str) -> None:
    assert judge_proof(replace(GREEN, red=pattern), RED).state is ProofState.OTHER


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    guest = tmp_path / "repo" / "tests" / "guest"
    for name, text in {
        "conftest.py": "shared",
        "lib/codec.py": "codec",
        "one/test_a.py": "a",
        "two/test_b.py": "b",
        "one/__pycache__/test_a.pyc": "no",
    }.items():
        (guest / name).parent.mkdir(parents=True, exist_ok=True)
        (guest / name).write_text(text)
    return Paths(tmp_path / "repo", tmp_path / "cache", tmp_path / "state")


def test_evidence_is_recalled_as_it_was_and_says_that_it_is_remembered(paths: Paths) -> None:
    evidence.remember(paths, "k", "ext", Evidence((RED,)))
    assert evidence.recall(paths, "k") == Evidence((RED,), remembered=True)
    assert evidence.recall(paths, "other") is None


@pytest.mark.parametrize(
    "found",
    [
        Evidence(()),
        Evidence((RED,), lost=("ext/test_x.py::test_q",)),
        Evidence((RED,), splats=(Splat(SplatKind.WARN, "w", "", 1.0),)),
    ],
)
def test_incomplete_evidence_is_not_remembered(paths: Paths, found: Evidence) -> None:
    evidence.remember(paths, "k", "ext", found)
    assert evidence.recall(paths, "k") is None


def test_a_damaged_memory_is_none(paths: Paths) -> None:
    evidence.remember(paths, "k", "ext", Evidence((RED,)))
    (file,) = (paths.cache / "evidence").iterdir()
    file.write_bytes(file.read_bytes()[:-7])
    assert evidence.recall(paths, "k") is None


def test_the_guest_gets_the_shared_code_and_its_own_extensions(paths: Paths) -> None:
    files = Suite.read(paths, ["one", "two"]).part(["one"])
    assert [name for name, _ in files] == ["conftest.py", "lib/codec.py", "one/test_a.py"]


@pytest.mark.parametrize(
    ("changed", "differs"),
    [("one/test_a.py", True), ("conftest.py", True), ("two/test_b.py", False)],
)
def test_the_key_follows_the_tests_and_what_they_share(
    paths: Paths, changed: str, *, differs: bool
) -> None:
    def digest() -> str:
        return Suite.read(paths, ["one", "two"]).digest("one")

    held = Suite.read(paths, ["one", "two"])
    before = digest()
    (paths.guest_tests / changed).write_text("edited")
    assert (digest() != before) is differs
    assert held.digest("one") == before
