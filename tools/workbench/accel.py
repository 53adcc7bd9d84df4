# SPDX-License-Identifier: GPL-2.0-only
"""Which accelerator a guest gets: KVM only when it was seen to work."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from workbench.paths import Paths


@dataclass(frozen=True)
class Accelerator:
    """``name`` is kvm or tcg, ``cpu`` QEMU's CPU model, ``reason`` one line for the user.

    ``tsc_khz`` is the rate of the guest's time stamp counter.
    """

    name: str
    cpu: str
    reason: str
    tsc_khz: int


def choose(paths: Paths, arch: str = "x86_64") -> Accelerator:
    """Return the fastest accelerator that is known to work."""
    from workbench import machine

    return Accelerator("tcg", machine.load(paths, arch).cpu_tcg, "TCG (for now)", 2300000)
