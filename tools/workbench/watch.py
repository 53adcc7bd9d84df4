# SPDX-License-Identifier: GPL-2.0-only
"""Watch one guest: read what it writes as it writes it, and end it when there is no hope."""

from __future__ import annotations

import json
import os
import select
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, BinaryIO

from workbench.errors import InfraError
from workbench.model import Splat, SplatKind

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.console import Classifier
    from workbench.process import Popen

OnLine = Callable[[str], float | None]
OnOutput = Callable[[bytes], object]

_POLL = 0.02
# A guest that panicked resets, and so ends QEMU, by itself.
_LAST_WORDS = 1.0
_POWER_OFF = 10.0
_MOST_BYTES = 512 << 20
_LEAST_FREE = 1 << 20


@dataclass(frozen=True)
class Streams:
    """The files QEMU writes, and who wants to hear what comes."""

    console: Path
    results: Path
    output: Path
    on_line: OnLine | None = None
    on_output: OnOutput | None = None


@dataclass(frozen=True)
class Deadlines:
    """Seconds: for the first line, for any further one (by default), for the whole run."""

    boot: float
    step: float
    total: float


@dataclass
class Watch:
    """One guest under watch.

    ``boot_seconds`` is None until the guest's first line, ``exit_status``
    until its last. ``go_on`` is called many times a second; what it raises
    ends the watch.
    """

    streams: Streams
    deadlines: Deadlines
    classifier: Classifier
    go_on: Callable[[], object] | None = None
    boot_seconds: float | None = None
    exit_status: int | None = None
    _splats: list[Splat] = field(default_factory=list)
    _rest: bytes = b""
    _seen: int = 0
    _until: float = 0.0
    started: float = 0.0
    _step: float = 0.0

    def until_the_end(self, qemu: Popen[bytes]) -> None:
        """Return when QEMU has ended, or when it should be ended (then it still runs)."""
        self.started = time.monotonic()
        self._until = self._step = self.deadlines.boot
        ending = select.poll()
        pidfd = os.pidfd_open(qemu.pid)
        ending.register(pidfd)
        try:
            with (
                self.streams.console.open("rb") as console,
                self.streams.results.open("rb") as results,
                self.streams.output.open("rb") as output,
            ):
                ended = False
                while not ended and not self._hopeless():
                    if self.go_on is not None:
                        self.go_on()
                    ended = bool(ending.poll(_POLL * 1000))
                    self._read(console, results, output)
        finally:
            os.close(pidfd)

    @property
    def seconds(self) -> float:
        """Seconds since QEMU was started."""
        return time.monotonic() - self.started

    def _read(self, console: BinaryIO, results: BinaryIO, output: BinaryIO) -> None:
        said, found, printed = console.read(), results.read(), output.read()
        self._seen += len(said) + len(found) + len(printed)
        if printed and self.streams.on_output is not None:
            self.streams.on_output(printed)
        *lines, self._rest = (self._rest + found).split(b"\n")
        for line in lines:
            self._take(line.decode(errors="replace"))
        if said:
            new = self.classifier.feed(said.decode(errors="replace"), self.seconds)
            if SplatKind.PANIC in new:
                self._until = min(self._until, self.seconds + _LAST_WORDS)
                self._step = 0.0

    def _take(self, line: str) -> None:
        match _own(line):
            case {"kpw": "boot"}:
                self.boot_seconds = self.seconds
            case {"kpw": "exit", "status": int(status)}:
                self.exit_status = status
        asked = self.streams.on_line(line) if self.streams.on_line is not None else None
        self._step = self.deadlines.step if asked is None else asked
        if self.exit_status is not None:
            self._step = _POWER_OFF
        self._until = self.seconds + self._step

    def _hopeless(self) -> bool:
        now = self.seconds
        if self._seen > _MOST_BYTES:
            self._hang(f"it wrote more than {_MOST_BYTES >> 20} MiB", now)
        elif now > self.deadlines.total:
            self._hang(f"it was not done after {now:.0f} s", now)
        elif now > self._until and self._step:
            self._hang(f"no sign of life for {self._step:.0f} s", now)
        elif now <= self._until:
            return False
        return True

    def _hang(self, line: str, at: float) -> None:
        self._splats.append(Splat(SplatKind.HANG, line, self.classifier.tail(), at))

    def verdict(self, returncode: int | None, log: Path) -> tuple[Splat, ...]:
        """Return what went wrong, in order.

        ``returncode`` is QEMU's, None when it had to be ended; ``log`` holds
        what it said itself. InfraError when it was QEMU that could not run,
        or had no room to write.
        """
        at = self.seconds
        splats = (*self.classifier.close(at), *self._splats)
        if self.exit_status is not None or any(s.kind is SplatKind.PANIC for s in splats):
            return splats
        words = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
        _check_disk(log)
        if returncode == 1 and not self._seen:
            raise InfraError(
                words[-1] if words else "it did not start, and did not say why",
                where="QEMU",
                next_step="run 'kpw doctor'",
            )
        if not any(s.kind is SplatKind.HANG for s in splats):
            said = f": {words[-1]}" if words else ""
            line = f"{_ending(returncode)} before the guest said it was done{said}"
            excerpt = "\n".join([*words[-10:], self.classifier.tail()])
            splats += (Splat(SplatKind.QEMU_DEATH, line, excerpt, at),)
        return splats


def _own(line: str) -> object:
    if not line.startswith('{"kpw"'):
        return None
    try:
        return json.loads(line)
    except ValueError:
        return None


def _ending(returncode: int | None) -> str:
    if returncode is not None and returncode < 0:
        return f"QEMU was killed by signal {-returncode}"
    return f"QEMU ended (code {returncode})"


def _check_disk(log: Path) -> None:
    if shutil.disk_usage(log.parent).free < _LEAST_FREE:
        raise InfraError(
            "no space left on the disk, what the guest found could not be written",
            where=str(log.parent),
            next_step="free some and run the same command again",
        )
