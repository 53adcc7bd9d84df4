# SPDX-License-Identifier: GPL-2.0-only
"""A guest as it was after boot and imports, kept so that the next one need not do that again.

The guest says when it is ready and waits for a payload on its second disk;
QEMU's state then goes to a file, which another QEMU of the same words takes
up in a fraction of a second. The file is named by all that it is made from.
What is restored has booted once, not anew, which is why only `kpw test` asks
for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import os
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Final

from workbench import machine, process
from workbench.errors import InfraError

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.accel import Accelerator
    from workbench.paths import Paths

#: For the kernel's command line; the guest's init looks for it.
PRELOAD: Final = "kpw_preload=1"
#: The line of a guest that waits for its payload.
READY: Final = '{"kpw":"ready"}'
# About 110 MB each; kernels come and go.
_KEPT = 8
_SOCKET = "qmp"
_LONGEST_SOCKET = 107
# What was being written this long ago was left by somebody who was killed.
_STALE_SECONDS = 3600.0
_STATE = "state"
_POLL = 0.01
# It takes a second or two; a slow disk gets some patience.
_PATIENCE = 60.0
_BYTES_A_SECOND = 1 << 40


class NotTakenError(InfraError):
    """There is no snapshot, and the guest that was asked for one is in an unknown state."""


@dataclass(frozen=True)
class Snapshot:
    """One guest's state, or the place for it."""

    path: Path

    @classmethod
    def of(
        cls, paths: Paths, arch: str, wiring: machine.Wiring, accelerator: Accelerator
    ) -> Snapshot:
        """Name the snapshot of this kernel and root on this machine."""
        description = machine.load(paths, arch)
        parts = [
            _digest(wiring.kernel),
            # The image's folder is named by all that is in it.
            wiring.root.parent.name,
            repr(description),
            _version(description.qemu),
            repr((accelerator.name, accelerator.cpu, accelerator.tsc_khz)),
            repr((wiring.memory_mib, wiring.append, wiring.loglevel)),
        ]
        name = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:20]
        return cls(paths.cache / "snapshots" / name)

    @staticmethod
    def can_be_taken(folder: Path) -> bool:
        """Tell whether a socket's name in ``folder`` is short enough for the kernel."""
        return len(os.fsencode(folder / _SOCKET)) <= _LONGEST_SOCKET

    def exists(self) -> bool:
        """Tell whether there is one to restore."""
        return self.path.exists()

    def restoring(self) -> tuple[str, ...]:
        """Return QEMU's words to start from it, given as its stdin."""
        self.path.touch()
        return "-incoming", "fd:0"

    def being_taken(self, folder: Path) -> tuple[str, ...]:
        """Return QEMU's words to be asked for it through a socket in ``folder``."""
        return "-qmp", f"unix:{machine.value(folder / _SOCKET)},server=on,wait=off"

    def take(self, folder: Path) -> None:
        """Keep the state of the QEMU that listens in ``folder``; it goes on afterwards.

        NotTakenError when nobody can tell whether it does.
        """
        from qemu.qmp import QMPError

        young = self.path.with_name(f".{self.path.name}.{os.getpid()}")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if asyncio.run(_save(folder / _SOCKET, young)):
                young.replace(self.path)
            self._prune()
        except (QMPError, OSError, EOFError) as error:
            raise NotTakenError(
                f"QEMU could not be asked for a snapshot: {str(error) or type(error).__name__}",
                where="QMP",
                next_step="say --cold, which asks for none",
            ) from error
        finally:
            with contextlib.suppress(OSError):
                young.unlink(missing_ok=True)

    def discard(self) -> None:
        """Forget it."""
        self.path.unlink(missing_ok=True)

    def _prune(self) -> None:
        everything = list(self.path.parent.iterdir())
        kept = [path for path in everything if not path.name.startswith(".")]
        for young in set(everything) - set(kept):
            if time.time() - young.stat().st_mtime > _STALE_SECONDS:
                young.unlink(missing_ok=True)
        for old in sorted(kept, key=lambda path: path.stat().st_mtime)[:-_KEPT]:
            old.unlink(missing_ok=True)


async def _save(socket: Path, target: Path) -> bool:
    """Write a running QEMU's state and let it go on; False when it could not be written.

    Migration stops the guest by itself; one stopped before would be restored
    as stopped. TimeoutError when QEMU does not come to an end with it.
    """
    from qemu.qmp import QMPClient

    # What it logs is raised too, and told then.
    logging.getLogger("qemu.qmp").setLevel(logging.CRITICAL)
    client = QMPClient("kpw")
    async with asyncio.timeout(_PATIENCE):
        await client.connect(str(socket))
        try:
            await client.execute("migrate-set-parameters", {"max-bandwidth": _BYTES_A_SECOND})
            # Not by "exec:": our QEMU may start no program.
            with target.open("wb") as file:
                client.send_fd_scm(file.fileno())
                await client.execute("getfd", {"fdname": _STATE})
            await client.execute("migrate", {"uri": f"fd:{_STATE}"})
            while (status := await _status(client)) not in {"completed", "failed", "cancelled"}:  # noqa: ASYNC110 - QEMU is to be asked
                await asyncio.sleep(_POLL)
            await client.execute("cont")
        finally:
            await client.disconnect()
    return status == "completed"


async def _status(client: object) -> str:
    answer = await client.execute("query-migrate")  # type: ignore[attr-defined]
    return str(answer.get("status", ""))


@cache
def _version(qemu: str) -> str:
    return process.run([qemu, "--version"]).stdout


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
