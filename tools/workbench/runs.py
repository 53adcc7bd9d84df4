# SPDX-License-Identifier: GPL-2.0-only
"""The folders of past runs: consoles, results and reports; the last ones are kept."""

from __future__ import annotations

import os
import re
import shutil
import time
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.paths import Paths

KEPT: Final = 20
_NAME: Final = re.compile(r"\d{8}-\d{6}-\d+")


def new_run(paths: Paths) -> Path:
    """Make the folder of a new run; of the older ones the last :data:`KEPT` stay."""
    folder = paths.runs / f"{time.strftime('%Y%m%d-%H%M%S')}-{os.getpid()}"
    folder.mkdir(parents=True, exist_ok=True)
    _prune(paths.runs, folder)
    return folder


def _prune(runs: Path, own: Path) -> None:
    """Remove the oldest; other runs may be pruning too, so what is gone is gone."""
    names = sorted(entry.name for entry in runs.iterdir() if _NAME.fullmatch(entry.name))
    for name in names[:-KEPT]:
        if name != own.name:
            shutil.rmtree(runs / name, ignore_errors=True)
