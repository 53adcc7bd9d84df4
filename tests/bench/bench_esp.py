# SPDX-License-Identifier: GPL-2.0-only
"""What the series costs an ESP packet: ``python tests/bench/bench_esp.py [TAG [PACKETS]]``.

Counts instructions, not time: QEMU runs with ``-icount shift=0``, where the
guest's clock advances by one nanosecond per instruction. So the figures are
the same on a busy machine. Two gateways in two network namespaces of one
guest exchange UDP datagrams through an ESP tunnel (AES-GCM), and what the
sender's loop takes from its first to its last datagram, both namespaces' work
included, is divided by the number of datagrams:

- unpatched: the kernel of that tag as it is;
- patched, off: the whole series, none of it in use;
- owner: a CLUSTERIP rule on both sides, which own all segments;
- receiver stands by: what is received is another node's: every 16th packet is
  verified;
- both stand by: what is sent is another node's, too: it takes a number, and
  that is all.

The exit code says whether "patched, off" is within 1 % of "unpatched".
"""

from __future__ import annotations

import shutil
import sys
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from workbench import accel, boot, build, extensions, image, process, rebase, source
from workbench.boot import BootOptions
from workbench.errors import InfraError
from workbench.gitstore import Store
from workbench.model import BuiltKernel
from workbench.paths import Paths
from workbench.payload import Payload
from workbench.progress import Plain

TO_REACH = 0.01
ONE_PER_NANOSECOND_KHZ = 1_000_000

SENDER = """\
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>
static long long now(void)
{
	struct timespec t;
	clock_gettime(CLOCK_MONOTONIC, &t);
	return t.tv_sec * 1000000000LL + t.tv_nsec;
}
int main(int argc, char **argv)
{
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
	int i, count = atoi(argv[2]), fd = socket(AF_INET, SOCK_DGRAM, 0);
	static char data[1024];
	long long since;
	inet_pton(AF_INET, argv[1], &to.sin_addr);
	connect(fd, (void *)&to, sizeof(to));
	for (i = 0; i < 200; i++)
		send(fd, data, sizeof(data), 0);
	since = now();
	for (i = 0; i < count; i++)
		send(fd, data, sizeof(data), 0);
	printf("%lld\\n", (now() - since) / count);
}
"""

TWO_GATEWAYS = """\
set -e
sa() { # NAMESPACE DIRECTION
    for words in "10.9.0.1 10.9.0.2 0x1000" "10.9.0.2 10.9.0.1 0x2000"; do
        set -- "$1" $words
        ip -n $1 xfrm state add src $2 dst $3 proto esp spi $4 reqid 1 mode tunnel \\
            replay-window 32 aead 'rfc4106(gcm(aes))' 0x$(printf %040d 7) 128
    done
}
policy() { # NAMESPACE OUT-SOURCE OUT-DESTINATION
    ip -n $1 xfrm policy add src $2/32 dst $3/32 dir out \\
        tmpl src $2 dst $3 proto esp reqid 1 mode tunnel
    ip -n $1 xfrm policy add src $3/32 dst $2/32 dir in \\
        tmpl src $3 dst $2 proto esp reqid 1 mode tunnel
}
ip netns add a; ip netns add b
ip link add va netns a type veth peer name vb netns b
ip -n a addr add 10.9.0.1/24 dev va; ip -n a link set va up
ip -n b addr add 10.9.0.2/24 dev vb; ip -n b link set vb up
ip netns exec a ping -c1 -W5 10.9.0.2 >/dev/null
sa a; sa b; policy a 10.9.0.1 10.9.0.2; policy b 10.9.0.2 10.9.0.1
exec 3>&1 >/dev/null
python3 -c 'import shutil; shutil.copy("/payload/sender", "/root/sender")'; chmod +x /root/sender
cluster() { # NAMESPACE INTERFACE ADDRESS SEGMENT-COMMAND
    ip netns exec $1 iptables-legacy -F INPUT
    ip netns exec $1 iptables-legacy -A INPUT -i $2 -d $3 -j CLUSTERIP --new --hashmode sourceip \\
        --clustermac 01:00:5e:00:01:0$4 --total-nodes 1 --local-node 0
    [ $5 = owner ] && ip netns exec $1 sh -c "echo +1 >/proc/net/ipt_CLUSTERIP/$3" || true
}
"""
MEASURE = "ip netns exec a /root/sender 10.9.0.2 {packets} >&3\n"
OFF = TWO_GATEWAYS + MEASURE
# The neighbours were learnt before: both go on sending to each other's own address.
USED = (
    TWO_GATEWAYS
    + "cluster a va 10.9.0.1 1 owner; cluster b vb 10.9.0.2 2 owner\n"
    + MEASURE
    + "cluster b vb 10.9.0.2 2 other\n"
    + MEASURE
    + "cluster a va 10.9.0.1 1 other\n"
    + MEASURE
)


@dataclass(frozen=True)
class Bench:
    """Where guests are run; ``sender`` is the program they measure with."""

    paths: Paths
    image: image.GuestImage
    sender: bytes
    place: Path

    def instructions(self, vmlinux: Path, script: str, packets: int) -> list[int]:
        """Run a guest; return the figures its script printed."""
        counted = accel.Accelerator("tcg", "max", "instructions count", ONE_PER_NANOSECOND_KHZ)
        options = BootOptions(where=self.place / "run", accelerator=counted)
        work = Payload("#!/bin/sh\n" + script.replace("{packets}", str(packets)),
                       (("sender", self.sender),))  # fmt: skip
        run = boot.boot(self.paths, vmlinux, self.image, work, options)
        said = run.output.read_text()
        if run.exit_status or not run.finished:
            raise InfraError(f"the guest failed: {said[-500:]}", where=str(run.console))
        return [int(line) for line in said.split()]


def machine_that_counts(paths: Paths, place: Path) -> Paths:
    """Return paths to a machine description like ours, with instructions as its clock."""
    shutil.copytree(paths.qemu, place / "qemu")
    description = place / "qemu" / "x86_64.toml"
    words = 'arguments = ["-icount", "shift=0,sleep=off"]\n'
    description.write_text(words + description.read_text())
    return replace(paths, repo=place)


def kernels(paths: Paths, tag: str) -> tuple[Path, Path]:
    """Build the tag's kernel as it is, and with the whole series."""
    display, store = Plain(sys.stderr), Store.open(paths)
    kernel = source.obtain(paths, tag, progress=display)
    chosen = extensions.load_extensions(paths)
    names = tuple(each.name for each in chosen)
    series = rebase.rebase(paths, store, kernel, chosen)
    found = []
    for tree in (kernel.tree, series.tree):
        built = build.build(paths, store, build.BuildRequest(kernel, tree, names), display)
        if not isinstance(built, BuiltKernel):
            raise InfraError(f"it does not build: {built.reason}", where=str(built.log))
        found.append(built.vmlinux)
    return found[0], found[1]


def main(arguments: list[str]) -> int:
    """Measure, print, and return 1 when the goal was missed."""
    paths = Paths.default()
    tag = arguments[0] if arguments else str(source.default_tag(paths))
    packets = int(arguments[1]) if len(arguments) > 1 else 4000
    unpatched, patched = kernels(paths, tag)
    with tempfile.TemporaryDirectory(prefix="kpw-bench-") as name:
        place = Path(name)
        (place / "sender.c").write_text(SENDER)
        program = place / "sender"
        process.run(["gcc", "-O2", "-static", "-o", program, place / "sender.c"])
        guest = image.ensure_image(paths, Plain(sys.stderr))
        bench = Bench(machine_that_counts(paths, place), guest, program.read_bytes(), place)
        (before,) = bench.instructions(unpatched, OFF, packets)
        (off,) = bench.instructions(patched, OFF, packets)
        owner, receiver, both = bench.instructions(patched, USED, packets)
    figures = {"unpatched": before, "patched, off": off, "owner": owner}
    figures |= {"receiver stands by": receiver, "both stand by": both}
    for what, count in figures.items():
        print(f"{what:<20}{count:>8} instructions a packet  {count / before:6.3f}")  # noqa: T201
    print(f"patched, off / unpatched: to reach: at most {1 + TO_REACH}")  # noqa: T201
    return int(off > before * (1 + TO_REACH))


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
