# SPDX-License-Identifier: GPL-2.0-only
"""From a kernel in the store to a source tree that can be built: ours beside the whole one.

Run it as ``python tests/bench/bench_tree.py [ROUNDS [TAG]]``. In each round
the tree is made twice from nothing, in a directory and with an object store
of its own, so that nothing of an earlier round is there: once as
kconfigs/arch says, once with nothing left out. Prints seconds, CPU seconds
(ours and git's), files and MiB, and the load of the machine; exits 1 when the
median of ours is over the goal.
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

from workbench import recipe, source, sourcetree
from workbench.gitstore import Store
from workbench.paths import Paths
from workbench.progress import Plain

TO_REACH = 10.0


@dataclass(frozen=True)
class Made:
    """One tree: what it cost in seconds, and how much it is."""

    seconds: float
    cpu: float
    files: int
    size: int

    def __str__(self) -> str:
        """Tell it in one line."""
        return (
            f"{self.seconds:.1f} s, {self.cpu:.1f} s of CPU,"
            f" {self.files} files of {self.size >> 20} MiB"
        )


def make(paths: Paths, scratch: Path, tree: str, rules: recipe.LeaveOut) -> Made:
    """Make a source tree from nothing in ``scratch``, which is new."""
    own = Paths(paths.repo, scratch, paths.state)
    store = Store.open(own)
    known = store.path / "objects/info/alternates"
    known.parent.mkdir(exist_ok=True)
    known.write_text(f"{(paths.store / 'objects').resolve()}\n")
    room = sourcetree.Room(own.cache / "room")
    room.root.mkdir()
    since, before = time.monotonic(), cpu()
    sourcetree.switch(store, room, tree, rules)
    seconds, used = time.monotonic() - since, cpu() - before
    sizes = [file.lstat().st_size for file in room.src.rglob("*") if not file.is_dir()]
    return Made(seconds, used, len(sizes), sum(sizes))


def cpu() -> float:
    """Return the CPU seconds used by this process and the children it waited for."""
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def say(line: str) -> None:
    """Print a line at once."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def main() -> int:
    """Measure, print, and return 1 when the goal was missed."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 3
    paths = Paths.default()
    name = sys.argv[2] if len(sys.argv) > 2 else source.default_tag(paths)
    kernel = source.obtain(paths, name, progress=Plain(sys.stderr))
    rules = recipe.load(paths, "x86_64").leave_out
    ours, whole = [], []
    scratch = paths.cache / "bench"
    scratch.mkdir(parents=True, exist_ok=True)
    # All of them stay to the end: for minutes after files were removed, ext4 passes over
    # their inodes one by one, and makes new files at a seventh of its speed (measured).
    with tempfile.TemporaryDirectory(prefix="tree-", dir=scratch) as name:
        for number in range(1, rounds + 1):
            ours.append(make(paths, Path(name, f"ours-{number}"), kernel.tree, rules))
            leave_out = recipe.LeaveOut()
            whole.append(make(paths, Path(name, f"whole-{number}"), kernel.tree, leave_out))
            load = os.getloadavg()[0]
            say(f"round {number}, load {load:.1f}: ours {ours[-1]}; whole {whole[-1]}")
    seconds = statistics.median(each.seconds for each in ours)
    spared = [old.cpu / new.cpu for old, new in zip(whole, ours, strict=True)]
    say(
        f"{kernel.name}: {seconds:.1f} s to a source tree (to reach: {TO_REACH:.0f}),"
        f" {statistics.median(spared):.1f} times less CPU than for the whole one"
    )
    return int(seconds > TO_REACH)


if __name__ == "__main__":
    sys.exit(main())
