# SPDX-License-Identifier: GPL-2.0-only
"""Look at the host: what the workbench needs, whether it is there, how to mend it."""

from __future__ import annotations

import os
import re
import shutil
import sys
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Final

from workbench import accel, machine, process, sandbox, userland
from workbench.errors import WorkbenchError

if TYPE_CHECKING:
    from collections.abc import Callable

    from workbench.paths import Paths

_GIB: Final = 1 << 30
# A store, one tree with its objects, ccache and the guest image: about 4 GiB a kernel.
_DISK_GOOD, _DISK_LEAST = 20 * _GIB, 6 * _GIB
_MEMORY_GOOD, _MEMORY_LEAST = 4 * _GIB, 2 * _GIB
_PACKAGES: Final = "tools/packages.txt"


class State(StrEnum):
    """How it is: in order, usable with less comfort, or in the way."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True)
class Check:
    """One thing looked at: what was ``found``, and how to ``mend`` it ("" when ok)."""

    name: str
    state: State
    found: str
    mend: str = ""


def examine(paths: Paths, arch: str = "x86_64") -> tuple[Check, ...]:
    """Do every check; none of them raises."""
    qemu = machine.load(paths, arch).qemu
    checks: tuple[tuple[str, Callable[[], Check]], ...] = (
        ("Python", _python),
        ("packages", lambda: packages(paths)),
        ("git", lambda: _version("git", "git", "--version", (2, 38))),
        ("QEMU", lambda: _version("QEMU", qemu, "--version", (7, 0))),
        ("accelerator", lambda: _accelerator(paths, arch)),
        ("compiler", lambda: _version("compiler", "gcc", "--version", (8, 1))),
        ("make", lambda: _version("make", "make", "--version", (4, 0))),
        ("ccache", lambda: _version("ccache", "ccache", "--version", (4, 0))),
        ("sandbox", _sandbox),
        ("children", lambda: _programs("children", "setpriv", "unshare")),
        ("guest image", lambda: _programs("guest image", "mmdebstrap", "mkfs.erofs", "ldconfig")),
        ("archive", lambda: _archive(paths)),
        ("disk", lambda: disk(paths.cache)),
        ("memory", lambda: memory(Path("/proc/meminfo").read_text())),
    )
    return tuple(_guarded(name, check) for name, check in checks)


def _guarded(name: str, check: Callable[[], Check]) -> Check:
    try:
        return check()
    except WorkbenchError as error:
        return Check(name, State.FAIL, str(error), error.next_step)
    except OSError as error:
        return Check(name, State.FAIL, str(error), "see the message")


def version_in(text: str) -> tuple[int, ...]:
    """Return the first thing in a program's words that looks like a version."""
    match = re.search(r"\b(\d+)\.(\d+)(?:\.(\d+))?", text)
    return tuple(int(part) for part in match.groups() if part) if match else ()


def _version(name: str, program: str, option: str, least: tuple[int, ...]) -> Check:
    install = f"install the packages of {_PACKAGES} ('tools/kpw run' does it as root)"
    path = shutil.which(program)
    if path is None:
        return Check(name, State.FAIL, f"{program} is not installed", install)
    lines = process.run([path, option]).stdout.splitlines() or [""]
    if version_in(lines[0]) < least:
        wanted = ".".join(map(str, least))
        return Check(name, State.FAIL, lines[0], f"{wanted} or later is needed: Debian 12 has it")
    return Check(name, State.OK, lines[0])


def _programs(name: str, *programs: str) -> Check:
    where = [process.which(program) for program in programs]
    return Check(name, State.OK, ", ".join(where))


def _python() -> Check:
    found = f"Python {sys.version.split()[0]} in {sys.prefix}"
    if sys.version_info < (3, 11):  # noqa: UP036 - a doctor also sees what is not supported
        return Check("Python", State.FAIL, found, "3.11 or later is needed: Debian 12 has it")
    return Check("Python", State.OK, found)


def packages(paths: Paths) -> Check:
    """Look for what packages.txt lists; what 'kpw check' alone needs is not in the way."""
    name = "packages"
    if shutil.which("dpkg-query") is None:
        found = "this is no Debian system (no dpkg-query)"
        return Check(name, State.WARN, found, "use Debian 12, or a container of it")
    lines = (paths.repo / _PACKAGES).read_text().splitlines()
    listed = {one.strip(): why for one, _, why in (line.partition("#") for line in lines) if one}
    form = "${db:Status-Status} ${Package}\n"
    said = process.run(["dpkg-query", "-W", "-f", form, *listed], check=False).stdout
    there = {line.removeprefix("installed ") for line in said.splitlines()}
    missing = [one for one in listed if one not in there]
    needed = [one for one in missing if "only 'kpw check'" not in listed[one]]
    if not missing:
        return Check(name, State.OK, f"all {len(listed)} of {_PACKAGES}")
    found = f"not installed: {', '.join(needed or missing)}"
    if needed:
        mend = f"'apt-get install {' '.join(needed)}' as root; 'tools/kpw run' does it too"
        return Check(name, State.FAIL, found, mend)
    return Check(name, State.WARN, found, "'tools/kpw check' installs them; nothing else asks")


def _accelerator(paths: Paths, arch: str) -> Check:
    chosen = accel.choose(paths, arch)
    if chosen.name == "kvm":
        return Check("accelerator", State.OK, chosen.reason)
    mend = "guests run all the same, several times slower; a host with working KVM mends it"
    if group := accel.group_to_join():
        user = os.environ.get("USER", "YOUR-NAME")
        join = f"'usermod -aG {group} {user}' as root, then log in again"
        mend = f"guests run all the same, several times slower; {join}"
    return Check("accelerator", State.WARN, chosen.reason, mend)


def _sandbox() -> Check:
    sandbox.require()
    return Check("sandbox", State.OK, "bubblewrap can make one")


def _archive(paths: Paths) -> Check:
    suite = userland.parse_recipe(paths.qemu / "image.toml").suite
    sources = userland.apt_sources(suite)
    return Check("archive", State.OK, f"apt knows {len(sources)} sources for {suite}")


def disk(where: Path) -> Check:
    """Judge the room for the cache."""
    existing = next(path for path in (where, *where.parents) if path.exists())
    free = shutil.disk_usage(existing).free
    found = f"{free / _GIB:.1f} GiB free at {where}"
    mend = f"make room to {_DISK_GOOD // _GIB} GiB, or name another place in KPW_CACHE"
    if not os.access(existing, os.W_OK):
        return Check("disk", State.FAIL, f"no permission to write at {existing}", mend)
    return _scaled("disk", free, (_DISK_LEAST, _DISK_GOOD), found, mend)


def memory(meminfo: str) -> Check:
    """Judge the memory that /proc/meminfo says is available."""
    match = re.search(r"^MemAvailable:\s+(\d+) kB$", meminfo, re.MULTILINE)
    free = int(match[1]) * 1024 if match else 0
    found = f"{free / _GIB:.1f} GiB available"
    mend = f"a kernel build and a guest want {_MEMORY_GOOD // _GIB} GiB: end other programs"
    return _scaled("memory", free, (_MEMORY_LEAST, _MEMORY_GOOD), found, mend)


def _scaled(name: str, have: int, want: tuple[int, int], found: str, mend: str) -> Check:
    least, good = want
    if have >= good:
        return Check(name, State.OK, found)
    return Check(name, State.WARN if have >= least else State.FAIL, found, mend)
