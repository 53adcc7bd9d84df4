# SPDX-License-Identifier: GPL-2.0-only
"""Run one guest from QEMU's start to its end, and say what became of it."""

from __future__ import annotations

import contextlib
import os
import sys
import termios
import time
from dataclasses import dataclass, replace
from typing import IO, TYPE_CHECKING

from workbench import accel, console, machine, process, snapshot
from workbench.errors import InfraError
from workbench.model import BuiltKernel, Splat, SplatKind
from workbench.watch import Deadlines, OnLine, OnOutput, Streams, Watch

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from workbench.image import GuestImage
    from workbench.paths import Paths
    from workbench.payload import Payload

_FOREVER = float("inf")
# It takes a fraction of a second; a busy host gets some patience.
_RESTORED = 20.0


@dataclass(frozen=True)
class BootOptions:
    """How to run a guest; all times in seconds.

    ``where`` is a folder for the console, results and output (default: a new
    one under the state directory). ``boot_deadline`` is what the first line
    may take, ``step_deadline`` what any further line may take unless
    ``on_line`` says otherwise, ``total_deadline`` the whole run: by default a
    guest may take as long as it takes (KASAN under TCG is ten times slower),
    and only one that falls silent is ended. Messages of a level below
    ``loglevel`` reach the console. With ``snapshot`` the guest is restored
    from one made after its boot, if need be made now; its work is the
    payload's start.py. ``go_on`` is called all the while and ends the guest
    by raising.
    """

    where: Path | None = None
    arch: str = "x86_64"
    boot_deadline: float = 90.0
    step_deadline: float = 300.0
    total_deadline: float = _FOREVER
    loglevel: int = 5
    memory_mib: int | None = None
    append: tuple[str, ...] = ()
    snapshot: bool = False
    accelerator: accel.Accelerator | None = None
    on_output: OnOutput | None = None
    go_on: Callable[[], object] | None = None


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
    job = _Job(paths, options, wiring, accelerator, payload)
    if options.snapshot and snapshot.Snapshot.can_be_taken(where):
        shot = snapshot.Snapshot.of(paths, options.arch, wiring, accelerator)
        run = _restored(job, on_line, shot)
        if run is not None:
            return run
        loaded = replace(wiring, append=(*wiring.append, snapshot.PRELOAD))
        with contextlib.suppress(snapshot.NotTakenError):
            taking = replace(job, wiring=loaded)
            return _one_guest(taking, on_line, shot.being_taken(where), shot)
        # It only saves time: this guest is given up, and another boots without.
        _empty(wiring)
    return _one_guest(job, on_line, (), None)


@dataclass(frozen=True)
class _Job:
    """One guest's work and machine."""

    paths: Paths
    options: BootOptions
    wiring: machine.Wiring
    accelerator: accel.Accelerator
    payload: Payload
    stdin: Path | None = None


def _restored(job: _Job, on_line: OnLine | None, shot: snapshot.Snapshot) -> GuestRun | None:
    """Run the guest of a snapshot; None when there is none, or none that can be used."""
    if not shot.exists():
        return None
    options = replace(job.options, boot_deadline=_RESTORED)
    with contextlib.suppress(InfraError):
        job = replace(job, options=options, stdin=shot.path)
        run = _one_guest(job, on_line, shot.restoring(), None)
        if run.boot_seconds is not None:
            return run
    # Made by another QEMU, or damaged: whatever it was, a boot is as good.
    shot.discard()
    _empty(job.wiring)
    return None


def _one_guest(
    job: _Job, on_line: OnLine | None, further: tuple[str, ...], shot: snapshot.Snapshot | None
) -> GuestRun:
    """Run one QEMU to its end, with ``further`` words; take ``shot`` when the guest is ready."""
    options, wiring, payload = job.options, job.wiring, job.payload
    words = machine.argv(machine.load(job.paths, options.arch), wiring, job.accelerator)
    if shot is not None:
        on_line = _taking(shot, job, on_line)
    watch = Watch(
        Streams(wiring.console, wiring.results, wiring.output, on_line, options.on_output),
        _deadlines(options, forever=payload.terminal),
        console.Classifier(console.load_patterns(job.paths.qemu / "console.toml")),
        options.go_on,
    )
    log = wiring.console.with_name("qemu.log")
    try:
        payload.write(wiring.payload, empty=shot is not None)
        returncode = _run((*words, *further), watch, log, job)
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
        accelerator=job.accelerator,
    )


def _taking(shot: snapshot.Snapshot, job: _Job, on_line: OnLine | None) -> OnLine:
    """Return a listener that takes the snapshot when the guest is ready, then gives it its work."""

    def hear(line: str) -> float | None:
        if line == snapshot.READY:
            shot.take(job.wiring.console.parent)
            job.payload.write(job.wiring.payload)
            return None
        return on_line(line) if on_line is not None else None

    return hear


def _empty(wiring: machine.Wiring) -> None:
    for path in (wiring.console, wiring.results, wiring.output):
        path.write_bytes(b"")


def _run(words: tuple[str, ...], watch: Watch, log: Path, job: _Job) -> int | None:
    """Run QEMU under watch; return its exit code, None when it had to be killed."""
    with contextlib.ExitStack() as stack:
        said = stack.enter_context(log.open("wb"))
        stdin: IO[bytes] | int | None = process.DEVNULL
        stdout: IO[bytes] | None = said
        if job.payload.terminal:
            stack.enter_context(_terminal_restored())
            stdin = stdout = None
        elif job.stdin is not None:
            stdin = stack.enter_context(job.stdin.open("rb"))
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
    _empty(wiring)
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
