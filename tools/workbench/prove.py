# SPDX-License-Identifier: GPL-2.0-only
"""Red before green: each proof must fail without its patch, for the reason it states.

Pure. The kernel without patches has the same configuration; what it answers
is the evidence each proof is held against.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

from workbench.reportlog import first_line, short

if TYPE_CHECKING:
    from workbench.model import SelftestResult, Splat


class ProofState(StrEnum):
    """How a proof did on the kernel without its extension."""

    RED = "red for the stated reason"
    OTHER = "red for another reason"
    NOT_RED = "passes without its patch"
    MISSING = "has no result without its patch"


@dataclass(frozen=True)
class Proof:
    """One proof's red: ``message`` is what failed there, ``expected`` the stated pattern."""

    nodeid: str
    state: ProofState
    message: str
    expected: str


@dataclass(frozen=True)
class Evidence:
    """The run on the kernel without patches, for the proofs of one extension.

    ``remembered`` tells that it was made by an earlier run of exactly the
    same kernel, image and tests. ``splats`` and ``lost`` are those of that run.
    """

    results: tuple[SelftestResult, ...]
    remembered: bool = False
    splats: tuple[Splat, ...] = ()
    lost: tuple[str, ...] = ()
    console: str = ""


def red_check(nodeid: str) -> str:
    """Name the question for a proof's red, beside the one for the proof itself."""
    return f"red: {short(nodeid)}"


def judge_proof(green: SelftestResult, red: SelftestResult | None) -> Proof:
    """Compare a proof with its own run on the kernel without the extension."""

    def say(state: ProofState, message: str) -> Proof:
        return Proof(green.nodeid, state, message, green.red)

    if red is None:
        return say(ProofState.MISSING, "")
    if red.outcome == "passed":
        return say(ProofState.NOT_RED, "")
    message = first_line(red.message)
    if red.outcome != "failed":
        return say(ProofState.OTHER, f"{red.outcome}: {message}")
    try:
        stated = bool(green.red) and re.search(green.red, red.message) is not None
    except re.error as error:
        return say(ProofState.OTHER, f"its pattern is not a regular expression: {error}")
    return say(ProofState.RED if stated else ProofState.OTHER, message)
