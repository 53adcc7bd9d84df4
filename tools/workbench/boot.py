# SPDX-License-Identifier: GPL-2.0-only
"""Run one guest from QEMU's start to its end, and say what became of it."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from workbench import accel, console, machine, process
from workbench.model import BuiltKernel, Splat, SplatKind
from workbench.watch import Deadlines, OnLine, OnOutput, Streams, Watch

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from workbench.image import GuestImage
    from workbench.paths import Paths
    from workbench.payload import Payload

_FOREVER = float("inf")


@dataclass(frozen=True)
class BootOptions:
    """How to run a guest; all times in seconds.

    ``where`` is a folder for the console, results and output (default: a new
    one under the state directory). ``boot_deadline`` is what the first line
    may take, ``step_deadline`` what any further line may take unless
    ``on_line`` says otherwise, ``total_deadline`` the whole run. Messages of
    a level below ``loglevel`` reach the console.
    """

    where: Path | None = None
    arch: str = "x86_64"
    boot_deadline: float = 90.0
    step_deadline: float = 300.0
    total_deadline: float = 3600.0
    loglevel: int = 5
    memory_mib: int | None = None
    append: tuple[str, ...] = ()
    accelerator: accel.Accelerator | None = None
    on_output: OnOutput | None = None


@dataclass(frozen=True)
class GuestRun:
    """What became of a guest.

    ``exit_status`` is the command's, None when the guest did not live to say
    it. ``results``, ``output`` (the command's) and ``console`` (the
    kernel's) are files. ``boot_seconds`` is from QEMU's start to the init's
    first line, None when that never came; ``started`` is the
    time.monotonic() of QEMU's start. ``finished`` is true only when the
    guest said that it ended, and then did.
    """

    exit_status: int | None
    results: Path
    output: Path
    console: Path
    splats: tuple[Splat, ...]
    boot_seconds: float | None
    seconds: float
    finished: bool
    accelerator: accel.Accelerator
    started: float = 0.0


def boot(
    paths: Paths,
    kernel: BuiltKernel | Path,
    image: GuestImage,
    payload: Payload,
    options: BootOptions | None = None,
    on_line: OnLine | None = None,
) -> GuestRun:
    """Boot ``kernel`` (or a bare vmlinux), let it do the payload, and return what happened.

    ``on_line`` gets every line of the results as it arrives and may return
    the seconds the next one may take. InfraError when QEMU cannot run.
    """
    options = options or BootOptions()
    where = options.where or _new_folder(paths)
    where.mkdir(parents=True, exist_ok=True)
    accelerator = options.accelerator or accel.choose(paths, options.arch)
    wiring = _wire(kernel, image, payload, options, where)
    words = machine.argv(machine.load(paths, options.arch), wiring, accelerator)
    watch = Watch(
        Streams(wiring.console, wiring.results, wiring.output, on_line, options.on_output),
        _deadlines(options, forever=payload.terminal),
        console.Classifier(console.load_patterns(paths.qemu / "console.toml")),
    )
    log = where / "qemu.log"
    try:
        payload.write(wiring.payload)
        returncode = _run(words, watch, log, terminal=payload.terminal)
    finally:
        wiring.payload.unlink(missing_ok=True)
    seconds = watch.seconds
    splats = watch.verdict(returncode, log)
    if payload.terminal and returncode == 0:
        # Ctrl-A x is the user's own way out.
        splats = tuple(splat for splat in splats if splat.kind is not SplatKind.QEMU_DEATH)
    return GuestRun(
        exit_status=watch.exit_status,
        results=wiring.results,
        output=wiring.output,
        console=wiring.console,
        splats=splats,
        boot_seconds=watch.boot_seconds,
        seconds=seconds,
        started=watch.started,
        finished=watch.exit_status is not None and returncode == 0,
        accelerator=accelerator,
    )


def _run(words: tuple[str, ...], watch: Watch, log: Path, *, terminal: bool) -> int | None:
    """Run QEMU under watch; return its exit code, None when it had to be killed."""
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(log.open("wb"))
        if terminal:
            stack.enter_context(_terminal_restored())
        stdin = None if terminal else process.DEVNULL
        stdout = None if terminal else said
        qemu = stack.enter_context(process.spawned(words, stdin=stdin, stdout=stdout, stderr=said))
        watch.until_the_end(qemu)
        return qemu.poll()


def _wire(
    kernel: BuiltKernel | Path,
    image: GuestImage,
    payload: Payload,
    options: BootOptions,
    where: Path,
) -> machine.Wiring:
    wiring = machine.Wiring(
        kernel=kernel.vmlinux if isinstance(kernel, BuiltKernel) else kernel,
        root=image.root,
        payload=where / "payload.tar",
        console=where / "console",
        results=where / "results",
        output=where / "output",
        terminal=payload.terminal,
        loglevel=options.loglevel,
        memory_mib=options.memory_mib,
        append=options.append,
    )
    for path in (wiring.console, wiring.results, wiring.output):
        path.write_bytes(b"")
    return wiring


def _deadlines(options: BootOptions, *, forever: bool) -> Deadlines:
    """Return the deadlines; a person at the terminal may think as long as they like."""
    if forever:
        return Deadlines(options.boot_deadline, _FOREVER, _FOREVER)
    return Deadlines(options.boot_deadline, options.step_deadline, options.total_deadline)


@contextlib.contextmanager
def _terminal_restored() -> Iterator[None]:
    """Give the terminal back as it was: a killed QEMU leaves it raw."""
    if not sys.stdin.isatty():
        yield
        return
    before = termios.tcgetattr(sys.stdin)
    try:
        yield
    finally:
        termios.tcsetattr(sys.stdin, termios.TCSADRAIN, before)


def _new_folder(paths: Paths) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    return paths.runs / f"guest-{stamp}-{os.getpid()}"
