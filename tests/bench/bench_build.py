# SPDX-License-Identifier: GPL-2.0-only
"""What a rebuild costs beside plain make: ``python tests/bench/bench_build.py [ROUNDS [TAG]]``.

In each round the same .c file of net/xfrm gets a new line, once in a source
tree where plain ``make vmlinux`` (gcc, no ccache, no sandbox) is run, once as
a new tree in the store that the workbench builds. Then the same request once
more, which the cache answers. The plain output directory is kept below the
cache, so that only the first bench pays for a whole build of its own.
"""

from __future__ import annotations

import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "tools"))

from workbench import build, fragments, process, recipe, source, sourcetree, toolchain
from workbench.gitstore import Store
from workbench.model import BuiltKernel, Kernel
from workbench.paths import Paths
from workbench.progress import Plain, Silent

TO_REACH = 1.2
EDITED = "net/xfrm/xfrm_state.c"


@dataclass(frozen=True)
class Bench:
    """A kernel, the workbench's rooms, and a directory for plain make."""

    paths: Paths
    store: Store
    kernel: Kernel
    plain: sourcetree.Room

    def edited(self, number: int) -> bytes:
        """Return the file with a line nobody has compiled before."""
        text = self.store.cat_file(f"{self.kernel.tree}:{EDITED}")
        return text + b'const char kpw_bench[] = "%d of %d";\n' % (number, time.time_ns())

    def tree(self, content: bytes) -> str:
        """Return the tree with that file in it."""
        blob = self.store.git("hash-object", "-w", "--stdin", input=content)
        with tempfile.TemporaryDirectory() as name:
            env = {"GIT_INDEX_FILE": f"{name}/index"}
            self.store.git("read-tree", self.kernel.tree, env=env)
            self.store.git("update-index", "--cacheinfo", f"100644,{blob},{EDITED}", env=env)
            return self.store.git("write-tree", env=env)

    def make(self, *goals: str) -> float:
        """Return the seconds plain make takes."""
        words = ("ARCH=x86_64", "CC=gcc", "HOSTCC=gcc", "RUSTC=false", "PAHOLE=false")
        jobs = f"-j{len(os.sched_getaffinity(0))}"
        argv = ("make", "-C", str(self.plain.src), "O=../out", *words, jobs, *goals)
        env = {**toolchain.environment(self.paths, self.plain.root)}
        env["KCONFIG_ALLCONFIG"] = str(self.plain.root / "wanted")
        since = time.monotonic()
        process.run(argv, env=env, log=self.plain.root / "log")
        return time.monotonic() - since

    def build(self, tree: str) -> tuple[float, BuiltKernel]:
        """Return the seconds the workbench takes, and what it built."""
        request = build.BuildRequest(self.kernel, tree)
        since = time.monotonic()
        done = build.build(self.paths, self.store, request, Silent())
        seconds = time.monotonic() - since
        if not isinstance(done, BuiltKernel):
            sys.exit(f"build failed: {done.reason}")
        return seconds, done

    def prepare(self) -> None:
        """Build the kernel once in either way."""
        self.plain.root.mkdir(parents=True, exist_ok=True)
        how = recipe.load(self.paths, "x86_64")
        sourcetree.switch(self.store, self.plain, self.kernel.tree, how.leave_out)
        merged = fragments.load(
            self.paths, self.kernel.tag, arch="x86_64", extensions=(), flavour="plain"
        )
        (self.plain.root / "wanted").write_text(merged.text)
        (self.plain.root / "out").mkdir(exist_ok=True)
        self.make("allnoconfig")
        say(f"plain make, to begin with: {self.make('vmlinux'):.1f} s")
        say(f"the workbench, to begin with: {self.build(self.tree(self.edited(0)))[0]:.1f} s")


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Measure, print, and return 1 when the goal was missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    paths = Paths.default()
    name = sys.argv[2] if len(sys.argv) > 2 else source.default_tag(paths)
    kernel = source.obtain(paths, name, progress=Plain(sys.stderr))
    plain = sourcetree.Room(paths.cache / "bench" / kernel.name)
    bench = Bench(paths, Store.open(paths), kernel, plain)
    bench.prepare()
    make, ours, cached = [], [], []
    for number in range(1, rounds + 1):
        content = bench.edited(number)
        (plain.src / EDITED).write_bytes(content)
        make.append(bench.make("vmlinux"))
        tree = bench.tree(content)
        ours.append(bench.build(tree)[0])
        cached.append(bench.build(tree)[0])
        say(
            f"round {number}: plain make {make[-1]:.2f} s, the workbench {ours[-1]:.2f} s,"
            f" the same once more {cached[-1] * 1000:.1f} ms"
        )
    ratio = statistics.median(ours) / statistics.median(make)
    say(f"rebuild after one .c file: {ratio:.2f} x plain make (to reach: {TO_REACH})")
    return int(ratio > TO_REACH)


if __name__ == "__main__":
    sys.exit(main())
