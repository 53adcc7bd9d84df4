# SPDX-License-Identifier: GPL-2.0-only
"""Red evidence that is remembered: what an unpatched kernel said stays true.

A file per extension, named after everything the answer depends on: the
unpatched kernel's build, the guest image, the extension's selftests and what
they share. It is written whole or not at all, and one that cannot be read is
as good as none.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from workbench import atomic
from workbench.model import SelftestResult  # noqa: TC001 - msgspec reads the annotation
from workbench.prove import Evidence

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.paths import Paths

# Raised when the meaning of a remembered file changes.
_FORMAT: Final = 1


class _Remembered(msgspec.Struct, frozen=True):
    extension: str
    results: tuple[SelftestResult, ...]


def recall(paths: Paths, key: str) -> Evidence | None:
    """Return the evidence remembered under a key, or None."""
    try:
        found = msgspec.json.decode(_file(paths, key).read_bytes(), type=_Remembered)
    except (OSError, msgspec.MsgspecError):
        return None
    return Evidence(found.results, remembered=True)


def remember(paths: Paths, key: str, extension: str, evidence: Evidence) -> None:
    """Keep evidence for later runs; what is incomplete proves nothing and is not kept."""
    if evidence.lost or evidence.splats or not evidence.results:
        return
    file = _file(paths, key)
    file.parent.mkdir(parents=True, exist_ok=True)
    atomic.write(file, msgspec.json.encode(_Remembered(extension, evidence.results)))


def key_of(extension: str, *digests: str) -> str:
    """Name an extension's evidence by what it depends on: kernel, image, machine, tests."""
    parts = (str(_FORMAT), extension, *digests)
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _file(paths: Paths, key: str) -> Path:
    return paths.cache / "evidence" / f"{key}.json"
