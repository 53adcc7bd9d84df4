# SPDX-License-Identifier: GPL-2.0-only
"""The one error tree, and the exit codes every command shares.

What the user came to learn (a conflict, a red test, a panic) is a *finding*
and is returned; only what keeps the workbench from finding out is raised.
Only ``workbench.__main__`` turns either into an exit.
"""

from __future__ import annotations

from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every ``kpw`` command; the README's table is tested against this.

    Of several findings the largest wins (workbench.verdict says why); a fault
    ends the command and so wins over all of them.
    """

    GOOD = 0
    RED = 1
    USAGE = 2
    CONFLICT = 3
    BUILD = 4
    CRASH = 5
    INFRA = 128
    INTERRUPTED = 130
    TERMINATED = 143

    @property
    def meaning(self) -> str:
        """Say in a phrase what it tells; the help and the manual page have it from here."""
        return _MEANING[self]


_MEANING = {
    ExitCode.GOOD: "all good",
    ExitCode.RED: "red: a selftest failed, something is not proven, or a gate found something",
    ExitCode.USAGE: "usage: an unknown word or tag, a malformed patch or data file",
    ExitCode.CONFLICT: "a patch conflicts, or what it patches is gone",
    ExitCode.BUILD: "a build failed, or its configuration did not come out as asked",
    ExitCode.CRASH: "the guest panicked, hung, or its kernel complained",
    ExitCode.INFRA: "infrastructure: network, disk, QEMU, a bad digest or signature",
    ExitCode.INTERRUPTED: "interrupted; the same command again resumes",
    ExitCode.TERMINATED: "terminated; the same command again resumes",
}


class WorkbenchError(Exception):
    """A fault with one line for the user: what went wrong, where, and what to do next."""

    exit_code = ExitCode.INFRA

    def __init__(self, what: str, *, where: str = "", next_step: str = "") -> None:
        """Keep the three parts of the message apart so that a report can lay them out."""
        super().__init__(what)
        self.what = what
        self.where = where
        self.next_step = next_step

    def __str__(self) -> str:
        """Return the one line: ``where: what; next step``."""
        line = f"{self.where}: {self.what}" if self.where else self.what
        return f"{line}; {self.next_step}" if self.next_step else line


class UsageError(WorkbenchError):
    """The user's words or files cannot be taken: unknown tag, malformed patch or TOML."""

    exit_code = ExitCode.USAGE


class InfraError(WorkbenchError):
    """The machine failed, not the series: no QEMU, full disk, bad signature, no network."""

    exit_code = ExitCode.INFRA


class DeadlineError(InfraError):
    """A program was given a time and did not come to its end in it."""
