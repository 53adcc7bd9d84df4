# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's command line out of a machine description: data in, words out."""

from __future__ import annotations

import difflib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import msgspec

from workbench.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from workbench.accel import Accelerator
    from workbench.paths import Paths


_NO_MACHINES = {"image", "console"}


class Proof(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A guest that proves KVM: assembler ``source``, gcc's words to ``build`` it as firmware.

    ``answer`` is QEMU's exit code when it ran to its end.
    """

    source: str
    build: tuple[str, ...]
    arguments: tuple[str, ...]
    answer: int


class Machine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """qemu/<arch>.toml.

    ``debian`` is the guest's Debian architecture, ``compiler`` the words that
    make a static program for it, ``kernel`` the file of a
    build that is booted, ``cpu_kvm`` the CPU models to try under KVM, best
    first. ``command_line`` is the kernel's, with ``{tsc_khz}`` and
    ``{loglevel}`` to be filled in.
    """

    debian: str
    compiler: tuple[str, ...]
    qemu: str
    kernel: str
    memory_mib: int
    machine: str
    cpu_tcg: str
    cpu_kvm: tuple[str, ...]
    virtio_suffix: str
    command_line: tuple[str, ...]
    arguments: tuple[str, ...] = ()
    proof: Proof | None = None


@dataclass(frozen=True)
class Wiring:
    """The host's end of one guest: what is plugged in where.

    ``console`` (the kernel's), ``results`` and ``output`` are files QEMU
    writes. ``terminal`` gives the guest's virtio console our own stdin and
    stdout. ``append`` are further words for the kernel.
    """

    kernel: Path
    root: Path
    payload: Path
    console: Path
    results: Path
    output: Path
    terminal: bool = False
    loglevel: int = 5
    memory_mib: int | None = None
    append: tuple[str, ...] = ()


def architectures(paths: Paths) -> tuple[str, ...]:
    """Return the architectures there is a machine for."""
    known = {path.stem for path in paths.qemu.glob("*.toml")} - _NO_MACHINES
    return tuple(sorted(known))


def load(paths: Paths, arch: str) -> Machine:
    """Read a machine description; UsageError when there is none, or it is wrong."""
    path = paths.qemu / f"{arch}.toml"
    if arch not in architectures(paths):
        known = architectures(paths)
        near = difflib.get_close_matches(arch, known, n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(known)}"
        raise UsageError(f"no machine for {arch!r}", where=str(paths.qemu), next_step=hint)
    try:
        return msgspec.toml.decode(path.read_bytes(), type=Machine)
    except (OSError, msgspec.MsgspecError) as error:
        raise UsageError(str(error), where=str(path), next_step="mend the file") from error


def argv(machine: Machine, wiring: Wiring, accelerator: Accelerator) -> tuple[str, ...]:
    """Return QEMU's words for one guest."""
    words = [machine.qemu, "-nodefaults", "-no-user-config", "-display", "none", "-no-reboot"]
    words += ["-sandbox", "on,obsolete=deny,elevateprivileges=deny,spawn=deny,resourcecontrol=deny"]
    words += ["-M", machine.machine, "-cpu", accelerator.cpu]
    processors = _processors(wiring.append)
    words += ["-smp", str(processors)]
    words += ["-accel", "kvm" if accelerator.name == "kvm" else _tcg(processors)]
    words += ["-m", f"{wiring.memory_mib or machine.memory_mib}M"]
    words += ["-kernel", str(wiring.kernel), "-append", _command_line(machine, wiring, accelerator)]
    words += ["-chardev", f"file,id=console,path={value(wiring.console)}"]
    words += ["-serial", "chardev:console"]
    words += _disk(machine, "root", wiring.root) + _disk(machine, "payload", wiring.payload)
    words += ["-device", f"virtio-serial-{machine.virtio_suffix}"]
    words += _port("results", wiring.results) + _port("output", wiring.output)
    if wiring.terminal:
        words += ["-chardev", "stdio,id=terminal,mux=on,signal=off"]
        words += ["-device", "virtconsole,chardev=terminal"]
    return (*words, *machine.arguments)


def _tcg(processors: int) -> str:
    """Return how TCG is to run: several CPUs at once, or who boots with several sees no races.

    One vCPU in a thread of its own is slower than in QEMU's.
    """
    return f"tcg,thread={'multi' if processors > 1 else 'single'}"


def _processors(append: Sequence[str]) -> int:
    """Return how many CPUs a boot's own words ask the kernel to bring up; one is the fastest."""
    words = " ".join(append).split()
    asked = [word.partition("=")[2] for word in words if word.startswith("maxcpus=")]
    return int(asked[-1]) if asked and asked[-1].isdecimal() else 1


def _command_line(machine: Machine, wiring: Wiring, accelerator: Accelerator) -> str:
    values = {"tsc_khz": accelerator.tsc_khz, "loglevel": wiring.loglevel}
    words = (word.format(**values) for word in machine.command_line)
    return " ".join((*words, *wiring.append))


def _disk(machine: Machine, name: str, path: Path) -> list[str]:
    drive = f"id={name},file={value(path)},format=raw,if=none,readonly=on,file.locking=off"
    return ["-drive", drive, "-device", f"virtio-blk-{machine.virtio_suffix},drive={name}"]


def _port(name: str, path: Path) -> list[str]:
    return [
        "-chardev",
        f"file,id={name},path={value(path)}",
        "-device",
        f"virtserialport,chardev={name},name=kpw.{name}",
    ]


def value(path: Path) -> str:
    """Escape a path for QEMU's option lists."""
    return str(path).replace(",", ",,")
