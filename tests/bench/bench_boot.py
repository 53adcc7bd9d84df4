# SPDX-License-Identifier: GPL-2.0-only
"""How long until a guest answers: ``python tests/bench/bench_boot.py [ROUNDS [VMLINUX]]``.

Three things in turn in every round, all on the same kernel (flavour "bench"
of the default tag, which has what virtme-ng needs) and all under TCG, timed
from the exec of QEMU:

- ours: until the result of a Python selftest has left the guest, as `kpw test`
  runs it (restored from a snapshot) and as `kpw run` does (cold);
- virtme-ng: until the same test's result does, on the same userland;
- the floor: until the line of an init that does nothing else.

Medians and ratios are printed; the exit code says whether they are reached.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from workbench import accel, boot, image, machine, process, selftest
from workbench.boot import BootOptions
from workbench.errors import InfraError
from workbench.paths import Paths
from workbench.progress import Plain

if TYPE_CHECKING:
    from collections.abc import Iterator

    from workbench.accel import Accelerator
    from workbench.image import GuestImage
    from workbench.payload import Payload

TO_VIRTME = 2.5
TO_FLOOR = 4.0

# One that asks the kernel something, by the standard library alone.
TEST = """\
import socket
import struct


def test_the_kernel_lists_its_links():
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as route:
        route.send(struct.pack("=IHHIIBxHiII", 32, 18, 0x301, 1, 0, 0, 0, 0, 0, 0))
        assert b"lo\\0" in route.recv(65536)
"""
START = "python3 -B /payload/start.py"
RESULT = b'"outcome": "passed"'
# The userland has no udev, which would name the port (and take its time).
FIND_PORT = (
    "for p in /sys/class/virtio-ports/*; do read n <$p/name;"
    " [ $n = virtme.dev_stdout ] && port=/dev/${p##*/}; done;"
)
VNG_PORT = "/run/kpw-port"
FLOOR = """\
#include <sys/reboot.h>
#include <unistd.h>
int main(void)
{
	write(1, "kpw floor\\n", 10);
	reboot(RB_AUTOBOOT);
}
"""
DEADLINE = 120.0


@dataclass(frozen=True)
class Bench:
    """What all three use; ``place`` is a scratch directory."""

    paths: Paths
    vmlinux: Path
    image: GuestImage
    accelerator: Accelerator
    place: Path


def ours(bench: Bench, *, snapshot: bool = True) -> float:
    """Return the seconds until our guest's result; without ``snapshot`` it boots for it."""
    arrived: list[float] = []

    def hear(line: str) -> None:
        if RESULT in line.encode() and '"when": "call"' in line:
            arrived.append(time.monotonic())

    work = _work("/dev/virtio-ports/kpw.results")
    options = BootOptions(
        where=bench.place / "ours", snapshot=snapshot, accelerator=bench.accelerator
    )
    run = boot.boot(bench.paths, bench.vmlinux, bench.image, work, options, hear)
    if not arrived or not run.finished:
        raise InfraError(f"our guest gave no result: {run.splats}", where=str(run.console))
    return arrived[0] - run.started


def ours_cold(bench: Bench) -> float:
    """Return the same for a guest that boots."""
    return ours(bench, snapshot=False)


def _work(report: str) -> Payload:
    """Return the payload: the same start of the same test, wherever its report goes."""
    work = selftest.start([f"--report-log={report}", "test_one.py"])
    return replace(work, files=(*work.files, ("tests/test_one.py", TEST.encode())))


def virtme(bench: Bench) -> float:
    """Return the seconds until virtme-ng's result; its own start is not counted."""
    root = bench.place / "root"
    stamp = bench.place / "stamp"
    tools = Path(sys.executable).parent
    wrapper = bench.place / "qemu"
    wrapper.write_text(f'#!/bin/sh\ndate +%s.%N >{stamp}\nexec qemu-system-x86_64 "$@"\n')
    wrapper.chmod(0o755)
    argv: list[str | Path] = [
        tools / "vng",
        "--run",
        bench.vmlinux,
        "--disable-kvm",
        "--force-9p",
        "--root",
        root,
    ]
    argv += ["--user", "root", "--cpus", "1", "--memory", "1G", "--qemu", wrapper]
    # At its best: what spares our guest some waiting at boot serves it, too.
    words = f"tsc_early_khz={bench.accelerator.tsc_khz} tsc=reliable cryptomgr.notests=1"
    argv += ["--append", words]
    argv += [
        "--exec",
        f"{FIND_PORT} ln -s $port {VNG_PORT}; PYTEST_DISABLE_PLUGIN_AUTOLOAD=1 {START}",
    ]
    env = os.environ | {"PATH": f"{tools}:{os.environ['PATH']}"}
    with (
        (bench.place / "vng.log").open("wb") as log,
        process.spawned(argv, env=env, stderr=log, contained=True) as vng,
    ):
        arrived = _line(vng, RESULT)
    return arrived - float(stamp.read_text())


def floor(bench: Bench) -> float:
    """Return the seconds until the line of an init that does nothing else."""
    place = bench.place / "floor"
    wiring = machine.Wiring(
        kernel=bench.vmlinux,
        root=place / "root.erofs",
        payload=place / "root.erofs",
        console=place / "console",
        results=place / "results",
        output=place / "output",
        append=("init=/init",),
    )
    wiring.console.write_bytes(b"")
    words = machine.argv(machine.load(bench.paths, "x86_64"), wiring, bench.accelerator)
    began = time.time()
    with process.spawned(words) as qemu:
        while time.time() - began < DEADLINE:
            if b"kpw floor" in wiring.console.read_bytes():
                return time.time() - began
            time.sleep(0.005)
        raise InfraError(f"the floor never came: {qemu.poll()}", where=str(place))


def _line(child: process.Popen[bytes], wanted: bytes) -> float:
    """Return the time at which a line arrived on the child's stdout."""
    seen = b""
    stdout = child.stdout
    while stdout is not None and (line := stdout.readline()):
        seen += line
        if wanted in line and b'"when": "call"' in line:
            return time.time()
    raise InfraError(f"virtme-ng gave no result: {seen.decode(errors='replace')[-2000:]}")


@contextmanager
def prepared(vmlinux: Path | None) -> Iterator[Bench]:
    """Build what is missing, unpack the userland, make the floor's root."""
    paths, display = Paths.default(), Plain(sys.stderr)
    guest = image.ensure_image(paths, display)
    proven = accel.choose(paths)
    tcg = accel.Accelerator("tcg", "max", "the comparison is under TCG", proven.tsc_khz)
    with tempfile.TemporaryDirectory(prefix="kpw-bench-") as name:
        place = Path(name)
        root = place / "root"
        process.run(["fsck.erofs", f"--extract={root}", guest.root])
        for file, data in _work(VNG_PORT).files:
            (root / "payload" / file).parent.mkdir(exist_ok=True)
            (root / "payload" / file).write_bytes(data if isinstance(data, bytes) else b"")
        (place / "floor" / "root" / "dev").mkdir(parents=True)
        source = place / "floor" / "floor.c"
        source.write_text(FLOOR)
        process.run(["gcc", "-O2", "-static", "-o", place / "floor/root/init", source])
        process.run(["mkfs.erofs", "-d0", place / "floor/root.erofs", place / "floor/root"])
        yield Bench(paths, vmlinux or _kernel(paths), guest, tcg, place)


def _kernel(paths: Paths) -> Path:
    from workbench import build, source
    from workbench.gitstore import Store
    from workbench.model import BuiltKernel

    display = Plain(sys.stderr)
    name = str(source.default_tag(paths))
    kernel = source.obtain(paths, name, repo=None, progress=display)
    request = build.BuildRequest(kernel, kernel.tree, (), "bench")
    built = build.build(paths, Store.open(paths), request, display)
    if not isinstance(built, BuiltKernel):
        raise InfraError(f"the bench kernel does not build: {built.reason}", where=str(built.log))
    return built.vmlinux


def main(arguments: list[str]) -> int:
    """Run the rounds and print what came of them."""
    rounds = int(arguments[0]) if arguments else 5
    vmlinux = Path(arguments[1]) if len(arguments) > 1 else None
    contestants = {"ours": ours, "ours, cold": ours_cold, "virtme-ng": virtme, "floor": floor}
    times: dict[str, list[float]] = {name: [] for name in contestants}
    with prepared(vmlinux) as bench:
        ours(bench)  # makes the snapshot
        for number in range(rounds):
            for name, run in contestants.items():
                times[name].append(run(bench))
            line = "  ".join(f"{name} {all_[-1]:.2f} s" for name, all_ in times.items())
            print(f"round {number + 1}: {line}", flush=True)  # noqa: T201 - a bench prints
    median = {name: statistics.median(all_) for name, all_ in times.items()}
    against = median["virtme-ng"] / median["ours"]
    above = median["ours"] / median["floor"]
    for name, seconds in median.items():
        print(f"{name:<10} {seconds:6.2f} s (median of {rounds})")  # noqa: T201
    print(f"virtme-ng / ours  {against:.2f}  (to reach: at least {TO_VIRTME})")  # noqa: T201
    print(f"ours / floor      {above:.2f}  (to reach: at most {TO_FLOOR})")  # noqa: T201
    return 0 if against >= TO_VIRTME and above <= TO_FLOOR else 1


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
