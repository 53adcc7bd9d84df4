# SPDX-License-Identifier: GPL-2.0-only
"""What ends a command before its time, as the one line a user reads and its exit code."""

from __future__ import annotations

import errno
from dataclasses import dataclass

from workbench.errors import ExitCode, WorkbenchError
from workbench.interrupt import Terminated


@dataclass(frozen=True)
class Ending:
    """``foreseen`` is False for an error of the workbench itself: its traceback is wanted."""

    line: str
    exit_code: ExitCode
    foreseen: bool = True


def of(error: BaseException) -> Ending:
    """Return what an exception means to the user."""
    match error:
        case KeyboardInterrupt():
            line = "interrupted; run the same command again to resume"
            return Ending(line, ExitCode.INTERRUPTED)
        case Terminated():
            line = "terminated; run the same command again to resume"
            return Ending(line, ExitCode.TERMINATED)
        case WorkbenchError():
            return Ending(str(error), error.exit_code)
        case OSError(errno=errno.ENOSPC | errno.EDQUOT):
            where = f" at {error.filename}" if error.filename else ""
            line = f"no space left on the disk{where}; free some and run the same command again"
            return Ending(line, ExitCode.INFRA)
        case _:
            first = str(error).splitlines()[0] if str(error) else "no message"
            line = f"an error of the workbench itself: {type(error).__name__}: {first}"
            return Ending(line, ExitCode.INFRA, foreseen=False)
