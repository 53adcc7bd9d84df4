# SPDX-License-Identifier: GPL-2.0-only
"""An output directory that says whether what lies in it can be trusted.

A compiler that is killed leaves an object that is newer than its source,
which make takes for finished. A marker lies in the directory as long as a
make is at it; where one is found, everything goes. ccache has what was compiled.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MARKER: Final = ".kpw-building"


@contextlib.contextmanager
def compiling(out: Path) -> Iterator[bool]:
    """Hold an output directory, marked as long as a build is at it; yields whether it is new."""
    is_new = not out.exists()
    out.mkdir(parents=True, exist_ok=True)
    (out / _MARKER).touch()
    yield is_new
    (out / _MARKER).unlink()


def discard_unfinished(out: Path) -> None:
    """Throw an output directory away that a build was killed in, or broke for want of disk."""
    if (out / _MARKER).exists():
        # The marker goes last: rmtree may be killed too.
        for path in out.iterdir():
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            elif path.name != _MARKER:
                path.unlink()
        shutil.rmtree(out)
