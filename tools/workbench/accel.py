# SPDX-License-Identifier: GPL-2.0-only
"""Which accelerator a guest gets: KVM only when it was seen to work, else TCG.

That /dev/kvm opens, and even that KVM runs a few instructions, says little:
some hosts abort with one CPU model, some interpret a guest's kernel so slowly
that it never boots. So a small guest must do an ordinary guest's work in time.
"""

from __future__ import annotations

import contextlib
import ctypes
import grp
import hashlib
import mmap
import os
import platform
import stat
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from workbench import atomic, machine, process
from workbench.errors import InfraError

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.machine import Machine, Proof
    from workbench.paths import Paths

_KVM = Path("/dev/kvm")
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
# TCG needs 0.3 s for the proof.
_PROOF_SECONDS = 2.5
# rdtsc; shl $32,%rdx; or %rdx,%rax; ret
_READ_TSC = bytes.fromhex("0f31 48c1e220 4809d0 c3")
# What QEMU counts where it has no such counter: nanoseconds.
_NANOSECONDS_KHZ = 1_000_000


@dataclass(frozen=True)
class Accelerator:
    """``name`` is kvm or tcg, ``cpu`` QEMU's CPU model, ``reason`` one line for the user.

    ``tsc_khz`` is the rate of the guest's time stamp counter.
    """

    name: str
    cpu: str
    reason: str
    tsc_khz: int


class _Remembered(msgspec.Struct, frozen=True):
    key: str
    name: str
    cpu: str
    reason: str
    tsc_khz: int


def choose(paths: Paths, arch: str = "x86_64") -> Accelerator:
    """Return the fastest accelerator that is known to work.

    The answer is remembered until the host boots again, or QEMU or the
    machine's description changes.
    """
    file = paths.cache / f"accelerator-{arch}.json"
    key = _key(paths, arch)
    try:
        known = msgspec.json.decode(file.read_bytes(), type=_Remembered)
    except (OSError, msgspec.MsgspecError):
        known = None
    if known is None or known.key != key:
        found = prove(paths, arch)
        known = _Remembered(key, found.name, found.cpu, found.reason, found.tsc_khz)
        paths.cache.mkdir(parents=True, exist_ok=True)
        atomic.write(file, msgspec.json.encode(known))
    return Accelerator(known.name, known.cpu, known.reason, known.tsc_khz)


def prove(paths: Paths, arch: str) -> Accelerator:
    """Try KVM now, down the machine's list of CPU models."""
    description = machine.load(paths, arch)
    tsc_khz = host_tsc_khz()
    why_not = _obstacle(description, arch)
    if why_not is None and description.proof is not None:
        tried: dict[str, list[str]] = {}
        for cpu in description.cpu_kvm:
            failure = _try(paths, description, description.proof, cpu)
            if failure is None:
                reason = f"KVM: it ran the proof guest in time with -cpu {cpu}"
                return Accelerator("kvm", cpu, reason, tsc_khz)
            tried.setdefault(failure, []).append(cpu)
        said = "; ".join(f"-cpu {', '.join(cpus)}: {what}" for what, cpus in tried.items())
        why_not = f"KVM is there but could not prove itself ({said})"
    return Accelerator("tcg", description.cpu_tcg, f"TCG: {why_not}", tsc_khz)


def _obstacle(description: Machine, arch: str) -> str | None:
    """Say why KVM need not be tried, or None."""
    if platform.machine() != arch:
        return f"a {platform.machine()} host has no KVM for {arch}"
    if not _KVM.exists():
        return f"there is no {_KVM}"
    if not os.access(_KVM, os.R_OK | os.W_OK):
        return f"no permission to open {_KVM}"
    if description.proof is None:
        return f"nothing to prove KVM with on {arch}"
    return None


def group_to_join() -> str:
    """Name the group whose members may open KVM's node; empty when that is not what is missing."""
    if not _KVM.exists() or os.access(_KVM, os.R_OK | os.W_OK):
        return ""
    node = _KVM.stat()
    both = stat.S_IRGRP | stat.S_IWGRP
    if node.st_mode & both != both or node.st_gid == 0:
        return ""
    with contextlib.suppress(KeyError):
        return grp.getgrgid(node.st_gid).gr_name
    return str(node.st_gid)


def _try(paths: Paths, description: Machine, proof: Proof, cpu: str) -> str | None:
    """Run the proof guest; return None when it answered in time, else what happened."""
    with tempfile.TemporaryDirectory(prefix="kpw-proof-") as name:
        rom = Path(name) / "proof.rom"
        source = paths.qemu / proof.source
        try:
            process.run(["gcc", *proof.build, "-o", rom, source], timeout=30)
            words = [description.qemu, "-nodefaults", "-no-user-config", "-display", "none"]
            words += ["-no-reboot", "-M", description.machine, "-m", "16M", "-accel", "kvm"]
            words += ["-cpu", cpu, "-bios", str(rom), *proof.arguments]
            with process.spawned(words) as qemu:
                try:
                    _, stderr = qemu.communicate(timeout=_PROOF_SECONDS)
                except process.TimeoutExpired:
                    return f"no answer in {_PROOF_SECONDS} s"
        except InfraError as error:
            return str(error)
    if qemu.returncode == proof.answer:
        return None
    said = [line for line in stderr.decode(errors="replace").splitlines() if line.strip()]
    return f"exit code {qemu.returncode}" + (f", {said[-1]}" if said else "")


def _key(paths: Paths, arch: str) -> str:
    description = machine.load(paths, arch)
    parts = [_BOOT_ID.read_text().strip(), str(_KVM.exists()), str(os.access(_KVM, os.W_OK))]
    qemu = Path(process.which(description.qemu)).stat()
    parts += [str(qemu.st_mtime_ns), str(qemu.st_size)]
    digest = hashlib.sha256("\n".join(parts).encode())
    digest.update((paths.qemu / f"{arch}.toml").read_bytes())
    if description.proof is not None:
        digest.update((paths.qemu / description.proof.source).read_bytes())
    return digest.hexdigest()


def host_tsc_khz() -> int:
    """Return the rate of this host's time stamp counter in kHz.

    QEMU passes the counter on to the guest. /proc/cpuinfo names the core's
    momentary frequency instead, so the counter itself is read, twice.
    """
    if platform.machine() != "x86_64":
        return _NANOSECONDS_KHZ
    access = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
    with mmap.mmap(-1, mmap.PAGESIZE, prot=access) as page:
        page.write(_READ_TSC)
        code = ctypes.c_char.from_buffer(page)
        read = ctypes.CFUNCTYPE(ctypes.c_uint64)(ctypes.addressof(code))
        began, first = _instant(read)
        time.sleep(0.1)
        ended, second = _instant(read)
        # The mapping cannot be closed while something points into it.
        del read, code
    return round((second - first) * 1_000_000 / (ended - began))


def _instant(read: Callable[[], int]) -> tuple[int, int]:
    """Read clock (nanoseconds) and counter at one instant: the closest of several tries."""
    tries = []
    for _ in range(20):
        before, counter, after = time.monotonic_ns(), read(), time.monotonic_ns()
        tries.append((after - before, (before + after) // 2, counter))
    _, clock, counter = min(tries)
    return clock, counter
