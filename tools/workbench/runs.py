# SPDX-License-Identifier: GPL-2.0-only
"""The folders of past runs: consoles and results of the last ones, reports of many more.

What is proven rests on the reports ('kpw status'), and they are small.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import time
from typing import TYPE_CHECKING, Any, Final

import filelock

from workbench.errors import UsageError

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.paths import Paths

KEPT: Final = 20
REPORTS_KEPT: Final = 200
REPORT: Final = "report.json"
# Locked by the run: a lock ends with its process, however that ends.
_ALIVE: Final = ".alive"
_HELD: Final[list[filelock.BaseFileLock]] = []
_NAME: Final = re.compile(r"\d{8}-\d{6}-\d+")


def new_run(paths: Paths) -> Path:
    """Make the folder of a new run; of the older ones the last :data:`KEPT` stay whole.

    Of those before them the report stays, if there is one. The folder of a run
    that lives is never touched: it is held as long as this process is there.
    """
    folder = paths.runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    held = filelock.FileLock(folder / _ALIVE, timeout=0)
    with contextlib.suppress(filelock.Timeout):  # this process's own, of the same second
        held.acquire()
        _HELD.append(held)
    _prune(paths.runs, folder)
    return folder


def report_of(folder: Path) -> dict[str, Any]:
    """Return one run's report; UsageError when it cannot be read."""
    try:
        found = dict(json.loads((folder / REPORT).read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise UsageError(
            "there is no report of a run",
            where=str(folder / REPORT),
            next_step="name a folder that a run says its results are kept in",
        ) from error
    return found


def _prune(runs: Path, own: Path) -> None:
    """Remove the oldest; other runs may be pruning too, so what is gone is gone."""
    names = sorted(entry.name for entry in runs.iterdir() if _NAME.fullmatch(entry.name))
    older = [runs / name for name in names[:-KEPT] if name != own.name]
    older = [folder for folder in older if not _is_alive(folder)]
    told = [folder for folder in older if (folder / REPORT).is_file()]
    keep = set(told[-REPORTS_KEPT:])
    for folder in older:
        if folder in keep:
            _keep_report(folder)
        else:
            shutil.rmtree(folder, ignore_errors=True)


def _is_alive(folder: Path) -> bool:
    if not (folder / _ALIVE).exists():
        return False
    try:
        with filelock.FileLock(folder / _ALIVE, timeout=0):
            return False
    except filelock.Timeout:
        return True
    except OSError:  # another run pruned it meanwhile
        return False


def reports(paths: Paths) -> tuple[Path, ...]:
    """Return the reports that runs left, newest first."""
    if not paths.runs.is_dir():
        return ()
    names = sorted((each.name for each in paths.runs.iterdir()), reverse=True)
    files = (paths.runs / name / REPORT for name in names if _NAME.fullmatch(name))
    return tuple(file for file in files if file.is_file())


def _keep_report(folder: Path) -> None:
    """Remove all of a run but its report."""
    with contextlib.suppress(OSError):
        for entry in list(os.scandir(folder)):
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.name != REPORT:
                (folder / entry.name).unlink()
