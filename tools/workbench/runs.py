# SPDX-License-Identifier: GPL-2.0-only
"""The folders of past runs: consoles, results and reports; the last ones are kept."""

from __future__ import annotations

import json
import os
import re
import shutil
import time
from typing import TYPE_CHECKING, Any, Final

from workbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workbench.paths import Paths

KEPT: Final = 20
REPORT: Final = "report.json"
_NAME: Final = re.compile(r"\d{8}-\d{6}-\d+")


def new_run(paths: Paths) -> Path:
    """Make the folder of a new run; of the older ones the last :data:`KEPT` stay."""
    folder = paths.runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    _prune(paths.runs, folder)
    return folder


def reports(paths: Paths) -> Iterator[dict[str, Any]]:
    """Return what the kept runs found, newest first, as report_json wrote it.

    A run that was cut short, or that is still under way, has no report.
    """
    for name in sorted(_names(paths.runs), reverse=True):
        if (paths.runs / name / REPORT).is_file():
            yield report_of(paths.runs / name)


def report_of(folder: Path) -> dict[str, Any]:
    """Return one run's report; UsageError when it cannot be read."""
    try:
        found = json.loads((folder / REPORT).read_bytes())
    except (OSError, ValueError) as error:
        raise UsageError(
            "there is no report of a run",
            where=str(folder / REPORT),
            next_step="name a folder that a run says its results are kept in",
        ) from error
    return dict(found)


def _prune(runs: Path, own: Path) -> None:
    """Remove the oldest; other runs may be pruning too, so what is gone is gone."""
    for name in sorted(_names(runs))[:-KEPT]:
        if name != own.name:
            shutil.rmtree(runs / name, ignore_errors=True)


def _names(runs: Path) -> list[str]:
    if not runs.is_dir():
        return []
    return [entry.name for entry in runs.iterdir() if _NAME.fullmatch(entry.name)]
