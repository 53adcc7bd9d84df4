# SPDX-License-Identifier: GPL-2.0-only
"""What the series costs an ESP packet: ``python tests/bench/bench_esp.py [TAG [PACKETS]]``.

Counts instructions, not time: QEMU runs with ``-icount shift=0``, where the
guest's clock advances by one nanosecond per instruction. So the figures are
the same on a busy machine. Two gateways in two network namespaces of one
guest exchange UDP datagrams through an ESP tunnel (AES-GCM), over IPv4 and
over IPv6, and what the sender's loop takes from its first to its last
datagram, both namespaces' work included, is divided by the number of
datagrams:

- unpatched: the kernel of that tag as it is;
- patched, off: the whole series, none of it in use;
- owner: both sides own all segments, by CLUSTERIP's rule or by xt_cluster's;
- receiver stands by: what is received is another node's: every 16th packet is
  verified;
- both stand by: what is sent is another node's, too: it takes a number, and
  that is all.

The exit code says whether "patched, off" is within 1 % of "unpatched", in
both families.
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
OFF_ROW = "patched, off"

SENDER = """\
#include <arpa/inet.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
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
	struct sockaddr_in6 to6 = {.sin6_family = AF_INET6, .sin6_port = htons(9)};
	struct sockaddr_in to = {.sin_family = AF_INET, .sin_port = htons(9)};
	int i, count = atoi(argv[2]), six = !!strchr(argv[1], ':');
	int fd = socket(six ? AF_INET6 : AF_INET, SOCK_DGRAM, 0);
	static char data[1024];
	long long since;
	if (six) {
		inet_pton(AF_INET6, argv[1], &to6.sin6_addr);
		connect(fd, (void *)&to6, sizeof(to6));
	} else {
		inet_pton(AF_INET, argv[1], &to.sin_addr);
		connect(fd, (void *)&to, sizeof(to));
	}
	for (i = 0; i < 200; i++)
		send(fd, data, sizeof(data), 0);
	since = now();
	for (i = 0; i < count; i++)
		send(fd, data, sizeof(data), 0);
	printf("%lld\\n", (now() - since) / count);
}
"""

#: Of a and of b, which both know where the other is: what is multicast is no matter here.
ADDRESSES = {"IPv4": ("10.9.0.1", "10.9.0.2"), "IPv6": ("fd09::1", "fd09::2")}
TWO_GATEWAYS = """\
set -e
A={a} B={b}
exec 3>&1 >/dev/null
ip netns add a; ip netns add b
ip link add va netns a address 02:00:00:00:00:0a type veth \\
    peer name vb netns b address 02:00:00:00:00:0b
node() {{ # NAMESPACE ADDRESS OTHER-ADDRESS OTHER-MAC
    ip -n $1 addr add $2/{network} dev v$1 {nodad}
    ip -n $1 link set v$1 up
    ip -n $1 neigh add $3 lladdr $4 dev v$1 nud permanent
    for words in "$A $B 0x1000" "$B $A 0x2000"; do
        set -- $1 $2 $3 $4 $words
        ip -n $1 xfrm state add src $5 dst $6 proto esp spi $7 reqid 1 mode tunnel \\
            replay-window 32 aead 'rfc4106(gcm(aes))' 0x$(printf %040d 7) 128
    done
    ip -n $1 xfrm policy add src $2/{bits} dst $3/{bits} dir out \\
        tmpl src $2 dst $3 proto esp reqid 1 mode tunnel
    ip -n $1 xfrm policy add src $3/{bits} dst $2/{bits} dir in \\
        tmpl src $3 dst $2 proto esp reqid 1 mode tunnel
}}
node a $A $B 02:00:00:00:00:0b
node b $B $A 02:00:00:00:00:0a
python3 -c 'import shutil; shutil.copy("/payload/sender", "/root/sender")'; chmod +x /root/sender
measure() {{ ip netns exec a /root/sender $B {packets} >&3; }}
clusterip() {{ # NAMESPACE ADDRESS OWNER-OR-OTHER
    ip netns exec $1 iptables-legacy -F INPUT
    ip netns exec $1 iptables-legacy -A INPUT -i v$1 -d $2 -j CLUSTERIP --new \\
        --hashmode sourceip --clustermac 01:00:5e:00:01:01 --total-nodes 1 --local-node 0
    [ $3 = owner ] && ip netns exec $1 sh -c "echo +1 >/proc/net/ipt_CLUSTERIP/$2" || true
}}
xt_cluster() {{ # NAMESPACE ADDRESS OWNER-OR-OTHER
    rules="ip netns exec $1 python3 /payload/guest/xt_cluster_rules.py"
    $rules leave
    $rules join --address $2 --total 1 $([ $3 = owner ] && echo "--own 1")
}}
"""
OFF = TWO_GATEWAYS + "measure\n"
USED = (
    TWO_GATEWAYS
    + """\
{how} a $A owner; {how} b $B owner; measure
{how} b $B other; measure
{how} a $A other; measure
"""
)
USES = {"IPv4": ("clusterip", "xt_cluster"), "IPv6": ("xt_cluster",)}


@dataclass(frozen=True)
class Bench:
    """Where guests are run, what they measure with (``sender``) and what they call (``tools``)."""

    paths: Paths
    image: image.GuestImage
    sender: bytes
    tools: tuple[tuple[str, bytes], ...]
    packets: int
    place: Path

    def instructions(self, vmlinux: Path, script: str, family: str, how: str = "") -> list[int]:
        """Run a guest; return the figures its script printed."""
        counted = accel.Accelerator("tcg", "max", "instructions count", ONE_PER_NANOSECOND_KHZ)
        options = BootOptions(where=self.place / "run", accelerator=counted)
        a, b = ADDRESSES[family]
        six = family == "IPv6"
        text = script.format(
            a=a, b=b, bits=128 if six else 32, network=64 if six else 24,
            nodad="nodad" if six else "", packets=self.packets, how=how,
        )  # fmt: skip
        work = Payload("#!/bin/sh\n" + text, (("sender", self.sender), *self.tools))
        run = boot.boot(self.paths, vmlinux, self.image, work, options)
        said = run.output.read_text()
        if run.exit_status or not run.finished:
            raise InfraError(f"the guest failed: {said[-500:]}", where=str(run.console))
        return [int(line) for line in said.split()]

    def figures(self, unpatched: Path, patched: Path, family: str) -> dict[str, int]:
        """Return instructions a packet by what was measured, the unpatched kernel's first."""
        (before,) = self.instructions(unpatched, OFF, family)
        (off,) = self.instructions(patched, OFF, family)
        found = {"unpatched": before, OFF_ROW: off}
        for how in USES[family]:
            counts = self.instructions(patched, USED, family, how)
            rows = (f"{how}, {what}" for what in ("owner", "receiver stands by", "both stand by"))
            found |= dict(zip(rows, counts, strict=True))
        return found


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
        tools = tuple(
            (f"guest/{each.name}", each.read_bytes())
            for each in sorted(paths.guest_tests.glob("*.py"))
        )
        counting = machine_that_counts(paths, place)
        bench = Bench(counting, guest, program.read_bytes(), tools, packets, place)
        missed = False
        for family in ADDRESSES:
            figures = bench.figures(unpatched, patched, family)
            before = figures["unpatched"]
            for what, count in figures.items():
                share = f"{count / before:6.3f}"
                print(f"{family}  {what:<32}{count:>8} instructions a packet  {share}")  # noqa: T201
            missed = missed or figures[OFF_ROW] > before * (1 + TO_REACH)
    print(f"patched, off / unpatched: to reach: at most {1 + TO_REACH}")  # noqa: T201
    return int(missed)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
