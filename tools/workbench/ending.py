# SPDX-License-Identifier: GPL-2.0-only
"""What ends a command before its time, as the one line a user reads and its exit code."""

from __future__ import annotations

import contextlib
import errno
import os
from dataclasses import dataclass
from pathlib import Path

from workbench.errors import ExitCode, WorkbenchError
from workbench.interrupt import Terminated
from workbench.paths import Paths

# What a machine answers whoever asks; anything else may well be a fault of ours.
_REFUSALS = {errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EISDIR}


@dataclass(frozen=True)
class Ending:
    """``foreseen`` is False for what may be an error of the workbench: its traceback is wanted."""

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
        case OSError(filename=str() | bytes()):
            return Ending(_refused(error), ExitCode.INFRA, foreseen=error.errno in _REFUSALS)
        case _:
            first = str(error).splitlines()[0] if str(error) else "no message"
            line = f"an error of the workbench itself: {type(error).__name__}: {first}"
            return Ending(line, ExitCode.INFRA, foreseen=False)


def _refused(error: OSError) -> str:
    """Say what the machine refuses, and where else it could be."""
    name = os.fsdecode(error.filename)
    other = ""
    with contextlib.suppress(OSError):  # of a directory that is gone
        places = {"KPW_CACHE": Paths.default().cache, "KPW_STATE": Paths.default().state}
        below = (key for key, place in places.items() if Path(name).is_relative_to(place))
        other = "".join(f", or set {key} to another place," for key in below)
    why = error.strerror or type(error).__name__
    return f"{name}: {why}; mend that{other} and run the same command again"
