# SPDX-License-Identifier: GPL-2.0-only
"""Port 20 patches from v6.12.107 to five kernels: kpw beside ``git rebase --onto``.

Run it as ``PYTHONPATH=tools python tests/bench/bench_rebase.py [ROUNDS]``; it
brings the kernels that are not in the store. The patches change real files
under net/, so that some apply as they stand, some with an offset and some only
by a 3-way merge; the tree of the first kernel must be the one that
``git rebase --onto`` comes to. Every round writes into a store of its own, so
that none finds what another wrote. Prints the medians of the rounds, the
processor time, which is steadier on a busy machine, and the peak of memory;
exits 1 when a goal is missed: 20 times as fast as git, 0.1 s for each
additional kernel, 20 ms a clean patch, 300 MB.
"""

from __future__ import annotations

import gc
import itertools
import random
import resource
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from workbench import process, source
from workbench.carry import rebase_all
from workbench.extensions import load_extensions
from workbench.gitapply import Entry
from workbench.gitstore import Store
from workbench.growing import GrowingTree
from workbench.mailhead import Mail
from workbench.paths import Paths
from workbench.progress import Plain
from workbench.series import Addition, write

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.model import Kernel, RebasedSeries

FROM, TO = "v6.12.107", ("v6.18.15", "v7.1.13", "v7.1.8", "v6.12.38", "v6.12.95")
PATCHES, FILES_EACH = 20, 3
FOLDERS = ("net/xfrm", "net/ipv4", "net/ipv6", "net/core", "net/netfilter")
NEAR, FAR = 2, 3
FASTER, EACH_TAG, CLEAN_MS, MEMORY_MB = 20.0, 0.1, 20.0, 300
SERIES = "refs/kpw/bench/series"
MEMORY_ONLY = "--memory-of"


@dataclass(frozen=True)
class Bench:
    """The kernels, the store that holds the series, and scratch space."""

    store: Store
    old: Kernel
    new: tuple[Kernel, ...]
    paths: Paths


@dataclass(frozen=True)
class Cost:
    """Wall time and processor time in seconds."""

    wall: float
    cpu: float


def window(lines: list[bytes], at: int, reach: int) -> bytes:
    return b"".join(lines[at - reach : at + reach])


def places(old: list[bytes], new: list[bytes], *, merged: bool) -> list[int]:
    """Find where a line can go in: between lines all have, in surroundings ``new[0]`` has not."""
    found = []
    for at in range(10, len(old) - 10):
        near, far = window(old, at, NEAR), window(old, at, FAR)
        everywhere = all(text.count(near) == 1 for text in new)
        if everywhere and (far not in new[0]) == merged and len(set(far.split())) > 8:
            found.append(at)
    return found


def store_beside(paths: Paths, others: Sequence[Store], kernels: Sequence[Kernel]) -> Store:
    """Make an empty store that borrows the objects of others, and knows these kernels."""
    store = Store.open(paths)
    borrowed = "".join(f"{each.path / 'objects'}\n" for each in others)
    (store.path / "objects" / "info").mkdir(exist_ok=True)
    (store.path / "objects" / "info" / "alternates").write_text(borrowed)
    for kernel in kernels:
        store.update_ref(f"refs/tags/{kernel.name}", kernel.commit)
    return store


def make_series(bench: Bench, scratch: Path) -> None:
    """Commit the patches on the old kernel, and write them as an extension."""
    dice = random.Random(12)
    names = bench.store.git("ls-tree", "-r", "--name-only", bench.old.tree, *FOLDERS).split()
    there = [GrowingTree(bench.store, kernel.tree, scratch) for kernel in bench.new]
    files = {name for name in names if name.endswith(".c") and all(t.file(name) for t in there)}
    work: dict[str, list[bytes]] = {}
    additions = []
    for number in range(PATCHES):
        changes: dict[str, Entry | None] = {}
        for turn in range(FILES_EACH):
            merged = number % 3 == 2 and turn == 0
            left = sorted(files - set(work))
            name, lines = edited(bench, there, dice, left, merged=merged, number=number)
            work[name] = lines
            changes[name] = Entry("100644", bench.store.add("blob", b"".join(lines)))
        text = f"net: change {number}\n"
        mail = Mail("A", "a@example.org", f"{1700000000 + number} +0000", text.strip(), text, ())
        additions.append(Addition(mail, changes))
    write(bench.store, bench.old, SERIES, additions)
    folder = bench.paths.patches / "bench"
    folder.mkdir(parents=True)
    (folder / "extension.toml").write_text(f'id = "B"\nsummary = "bench"\nbase = "{FROM}"\n')
    words = ("format-patch", "-q", "--full-index", "-o", folder)
    bench.store.git(*words, f"{bench.old.commit}..{SERIES}")


def edited(
    bench: Bench,
    there: Sequence[GrowingTree],
    dice: random.Random,
    files: list[str],
    *,
    merged: bool,
    number: int,
) -> tuple[str, list[bytes]]:
    """Put a comment into a file that has a fitting place."""
    while True:
        name = dice.choice(files)
        before = (bench.store.read_file(bench.old.tree, name) or b"").splitlines(keepends=True)
        found = places(before, [tree.text(name) for tree in there], merged=merged)
        if found:
            at = dice.choice(found)
            return name, [*before[:at], f"/* change {number} */\n".encode(), *before[at:]]


def used() -> float:
    """Return the processor time of this program and its ended children."""
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in both)


def ours(
    bench: Bench, names: Sequence[str], count: itertools.count[int]
) -> tuple[Cost, list[RebasedSeries]]:
    """Port the series to some kernels, from their names on, in a fresh store."""
    cache = bench.paths.repo / f"round-{next(count)}"
    paths = Paths(bench.paths.repo, cache, cache)
    store = store_beside(paths, [bench.store], (bench.old, *bench.new))
    store.kernel(FROM)  # the reader is started: that is no part of a port
    extensions = load_extensions(paths)
    gc.collect()
    start, cpu = time.perf_counter(), used()
    kernels = [kernel for name in names if (kernel := store.kernel(name))]
    result = rebase_all(paths, store, kernels, extensions)
    return Cost(time.perf_counter() - start, used() - cpu), result


def theirs(bench: Bench, work: Path, kernel: Kernel) -> tuple[float, str]:
    """Rebase in a work tree that stands on the series, as a person's does."""
    env = bench.store.environment()

    def git(*args: str) -> str:
        return process.run(["git", "-C", work, *args], env=env).stdout.strip()

    tip = bench.store.resolve(SERIES) or ""
    git("checkout", "-q", "--detach", tip)
    git("status", "--porcelain")
    start = time.perf_counter()
    git("rebase", "-q", "--onto", kernel.commit, bench.old.commit)
    return time.perf_counter() - start, git("rev-parse", "HEAD^{tree}")


def peak(bench: Bench) -> float:
    """Port to all kernels in a program of its own; its peak in MB and twice its children's.

    Two kernels are worked on at a time, so no more than two children run beside
    the reader, which is a child too and never larger than they.
    """
    argv: list[str | Path] = [
        sys.executable,
        __file__,
        MEMORY_ONLY,
        bench.paths.repo,
        bench.paths.cache,
    ]
    mine, child = map(int, process.run(argv).stdout.split())
    return (mine + 3 * child) / 1024


def memory_only(repo: Path, cache: Path) -> int:
    """Be the program :func:`peak` measures."""
    paths = Paths(repo, cache, cache)
    store = Store.open(paths)
    kernels = [kernel for name in TO if (kernel := store.kernel(name))]
    rebase_all(paths, store, kernels, load_extensions(paths))
    del store
    gc.collect()  # ends the reader, so that it is counted
    both = (resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    say(" ".join(str(each.ru_maxrss) for each in both))
    return 0


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(rounds: int) -> int:
    default = Paths.default()
    old, *new = (source.obtain(default, each, progress=Plain(sys.stderr)) for each in (FROM, *TO))
    shared = Store.open(default)
    with tempfile.TemporaryDirectory(prefix="kpw-bench-", dir=default.cache) as name:
        scratch = Path(name)
        paths = Paths(scratch, scratch / "series", scratch / "series")
        bench = Bench(store_beside(paths, [shared], (old, *new)), old, tuple(new), paths)
        make_series(bench, scratch)
        return measure(bench, scratch / "work", rounds)


def measure(bench: Bench, work: Path, rounds: int) -> int:
    env = bench.store.environment()
    process.run(["git", "clone", "-q", "-s", "-n", bench.store.path, work], env=env)
    count = itertools.count()
    one, all_, clean, other = [], [], [], []
    for turn in range(rounds):
        cost, _ = ours(bench, TO[:1], count)
        one.append(cost)
        cost, result = ours(bench, TO, count)
        all_.append(cost)
        clean.append(ours(bench, (FROM,), count)[0])
        seconds, tree = theirs(bench, work, bench.new[0])
        if tree != result[0].tree:
            sys.exit(f"the two trees of {TO[0]} differ")
        other.append(seconds)
        say(f"round {turn + 1}: {TO[0]} {one[-1].wall:.3f} s, all {all_[-1].wall:.3f} s,"
            f" git rebase --onto {TO[0]} {other[-1]:.2f} s")  # fmt: skip
    for series in result:
        states = Counter(str(outcome.state) for outcome in series.outcomes)
        told = ", ".join(f"{count} {state}" for state, count in states.items())
        say(f"{series.kernel.name}: {told}")
    return report(bench, (one, all_, clean), other)


def report(
    bench: Bench, mine: tuple[list[Cost], list[Cost], list[Cost]], other: list[float]
) -> int:
    """Print the figures, and return 1 when one is worse than its goal."""
    more = len(TO) - 1
    one, all_, clean = mine
    alone = median(cost.wall for cost in one)
    each = median((b.wall - a.wall) / more for a, b in zip(one, all_, strict=True))
    each_cpu = median((b.cpu - a.cpu) / more for a, b in zip(one, all_, strict=True))
    clean_ms = median(cost.wall for cost in clean) * 1000 / PATCHES
    ratio, memory = median(other) / alone, peak(bench)
    say(
        f"{PATCHES} patches to {TO[0]}: kpw {alone:.3f} s ({alone * 1000 / PATCHES:.1f} ms a patch)"
    )
    say(f"git rebase --onto in a work tree {median(other):.2f} s: {ratio:.1f} times as long")
    say(f"each additional kernel {each:.3f} s ({each_cpu:.3f} s of processor time)")
    say(f"a clean patch {clean_ms:.1f} ms; peak memory {memory:.0f} MB, children included")
    missed = [
        ratio < FASTER and f"{FASTER:.0f} times as fast as git rebase --onto",
        each > EACH_TAG and f"{EACH_TAG} s for each additional kernel",
        clean_ms > CLEAN_MS and f"{CLEAN_MS:.0f} ms a clean patch",
        memory > MEMORY_MB and f"{MEMORY_MB} MB",
    ]
    for goal in filter(None, missed):
        say(f"MISSED: {goal}")
    return 1 if any(missed) else 0


if __name__ == "__main__":
    if sys.argv[1:2] == [MEMORY_ONLY]:
        sys.exit(memory_only(Path(sys.argv[2]), Path(sys.argv[3])))
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5))
