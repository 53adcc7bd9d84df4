# SPDX-License-Identifier: GPL-2.0-only
"""The kernel's own checkpatch.pl, of the very tree a patch is for."""

from __future__ import annotations

import re
from functools import cache
from typing import TYPE_CHECKING

from workbench import process
from workbench.errors import InfraError
from workbench.gates import CHECKPATCH, Finding, GateResult, GateState
from workbench.gitstore import MEND_STORE

if TYPE_CHECKING:
    from workbench.configure import Workplace
    from workbench.gitstore import Store

# The path is empty for what it says of the commit's message, and the line means nothing then.
_SAID = re.compile(r"(?P<path>[^:]*):(?P<line>\d+): (?P<text>(?:ERROR|WARNING|CHECK):.*)")
_TOTAL = re.compile(r"total: (\d+) errors, (\d+) warnings, (\d+) checks, (\d+) lines checked")


def mail(store: Store, commit: str) -> bytes:
    """Return a commit as git format-patch writes it: the patch as it is for this kernel."""
    words = ("format-patch", "--stdout", "--full-index", "--no-signature", "-1", commit)
    code, out, err = store.git_bytes(*words)
    if code != 0:
        raise InfraError(err, where=f"git format-patch {commit}", next_step=MEND_STORE)
    return out


def run(place: Workplace, patch: bytes) -> GateResult:
    """Run it over a patch, in the sandbox; nothing may be found.

    Not with --terse: then it says nothing at all of a clean patch.
    """
    script = place.src / "scripts" / "checkpatch.pl"
    words = ("--strict", "--no-color", "--show-types", "--showfile")
    argv = ("perl", script, f"--root={place.src}", *words, "-")
    done = process.run(
        place.inside(argv, cwd=place.out), env=place.environment(), stdin=patch, check=False
    )
    return judge(done.stdout, done.stderr)


def judge(said: str, complained: str) -> GateResult:
    """Read its output; InfraError when it did not come to its end."""
    matches = [_SAID.fullmatch(line) for line in said.splitlines()]
    findings = tuple(
        Finding(match["path"] or "commit message", _line(match), match["text"])
        for match in matches
        if match
    )
    total = _TOTAL.search(said)
    if total is None:
        what = (complained or said).strip().splitlines() or ["no output"]
        raise InfraError(
            f"no verdict: {what[-1]}",
            where="checkpatch.pl",
            next_step="see if perl runs it, then run 'kpw lint' again",
        )
    errors, warnings, checks, lines = map(int, total.groups())
    counted = f"{errors} errors, {warnings} warnings, {checks} checks"
    if errors + warnings + checks != len(findings):
        raise InfraError(
            f"{counted}, but {len(findings)} were read",
            where="checkpatch.pl",
            next_step="its words are new to kpw: report this line",
        )
    state = GateState.FOUND if findings else GateState.OK
    return GateResult(CHECKPATCH, state, counted if findings else f"{lines} lines", findings)


@cache
def identity() -> str:
    """Name what runs it."""
    return process.run(("perl", "-e", "print $^V")).stdout


def _line(match: re.Match[str]) -> int:
    return int(match["line"]) if match["path"] else 0
