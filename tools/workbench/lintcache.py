# SPDX-License-Identifier: GPL-2.0-only
"""Results of gates by content: ``lint/<key>.json``, so that a second run does nothing twice."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Final

import msgspec

from workbench import atomic
from workbench.gates import GateResult, GateState

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from workbench.paths import Paths

_RECIPE: Final = 1
"""Raise it when the gates come to another result from the same inputs."""


def key(parts: Iterable[str]) -> str:
    """Name a result by everything it depends on: 32 hex digits."""
    return hashlib.sha256("\0".join((str(_RECIPE), *parts)).encode()).hexdigest()[:32]


def find(paths: Paths, name: str, gates: Sequence[str]) -> tuple[GateResult, ...] | None:
    """Return the results kept under a key when they are for these gates, else None."""
    try:
        data = (paths.lint / f"{name}.json").read_bytes()
        results = msgspec.json.decode(data, type=tuple[GateResult, ...])
    except (OSError, msgspec.DecodeError):
        return None
    return results if [result.gate for result in results] == list(gates) else None


def keep(paths: Paths, name: str, results: Sequence[GateResult]) -> None:
    """Keep results, but for a build that broke: what broke it may have been the machine."""
    if any(result.state is GateState.BROKEN for result in results):
        return
    paths.lint.mkdir(parents=True, exist_ok=True)
    atomic.write(paths.lint / f"{name}.json", msgspec.json.encode(tuple(results)))
