# SPDX-License-Identifier: GPL-2.0-only
"""Port 12 patches from v6.12.107 to v6.18.15: kpw beside ``git rebase --onto``.

Run it as ``PYTHONPATH=tools python tests/bench/bench_rebase.py [ROUNDS]``;
both kernels must be in the store (``kpw fetch v6.12.107 v6.18.15``). The
patches change real files under net/, so that some apply as they stand, some
with an offset and some only by a 3-way merge; both sides must come to the
same tree. Prints seconds (best of the rounds), milliseconds a patch and the
ratio; exits 1 when the goal (8 times faster, 20 ms a clean patch) is missed.
"""

from __future__ import annotations

import random
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import process
from workbench.extensions import load_extensions
from workbench.gitapply import Entry
from workbench.gitstore import Store
from workbench.growing import GrowingTree
from workbench.mailhead import Mail
from workbench.paths import Paths
from workbench.rebase import rebase
from workbench.series import Addition, write

if TYPE_CHECKING:
    from workbench.model import Kernel, RebasedSeries

FROM, TO = "v6.12.107", "v6.18.15"
PATCHES, FILES_EACH = 12, 3
FOLDERS = ("net/xfrm", "net/ipv4", "net/ipv6", "net/core", "net/netfilter")
NEAR, FAR = 2, 3
FASTER, CLEAN_MS = 8.0, 20.0
SERIES = "refs/kpw/bench/series"


@dataclass(frozen=True)
class Bench:
    """The two kernels, and scratch space."""

    store: Store
    old: Kernel
    new: Kernel
    paths: Paths


def window(lines: list[bytes], at: int, reach: int) -> bytes:
    return b"".join(lines[at - reach : at + reach])


def places(old: list[bytes], new: list[bytes], *, merged: bool) -> list[int]:
    """Find where a line can go in: between lines both have, in surroundings one has not."""
    text = b"".join(new)
    found = []
    for at in range(10, len(old) - 10):
        near, far = window(old, at, NEAR), window(old, at, FAR)
        if text.count(near) == 1 and (far not in text) == merged and len(set(far.split())) > 8:
            found.append(at)
    return found


def make_series(bench: Bench, scratch: Path) -> None:
    """Commit 12 patches on the old kernel, and write them as an extension."""
    dice = random.Random(12)
    names = bench.store.git("ls-tree", "-r", "--name-only", bench.old.tree, *FOLDERS).split()
    there = GrowingTree(bench.store, bench.new.tree, scratch)
    files = {name for name in names if name.endswith(".c") and there.file(name)}
    work: dict[str, list[bytes]] = {}
    additions = []
    for number in range(PATCHES):
        changes: dict[str, Entry | None] = {}
        for turn in range(FILES_EACH):
            merged = number % 3 == 2 and turn == 0
            name, lines = edited(bench, there, dice, files, work, merged=merged, number=number)
            work[name] = lines
            oid = bench.store.git("hash-object", "-w", "--stdin", input=b"".join(lines))
            changes[name] = Entry("100644", oid)
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
    there: GrowingTree,
    dice: random.Random,
    files: set[str],
    work: dict[str, list[bytes]],
    *,
    merged: bool,
    number: int,
) -> tuple[str, list[bytes]]:
    """Put a comment into a file that has a fitting place."""
    while True:
        name = dice.choice(sorted(files - set(work)))
        before = (bench.store.read_file(bench.old.tree, name) or b"").splitlines(keepends=True)
        found = places(before, there.text(name).splitlines(keepends=True), merged=merged)
        if found:
            at = dice.choice(found)
            return name, [*before[:at], f"/* change {number} */\n".encode(), *before[at:]]


def ours(bench: Bench) -> tuple[float, RebasedSeries]:
    extensions = load_extensions(bench.paths)
    start = time.perf_counter()
    result = rebase(bench.paths, bench.store, bench.new, extensions)
    return time.perf_counter() - start, result


def theirs(bench: Bench, work: Path) -> tuple[float, str]:
    """Rebase in a work tree that stands on the series, as a person's does."""
    env = bench.store.environment()

    def git(*args: str) -> str:
        return process.run(["git", "-C", work, *args], env=env).stdout.strip()

    tip = bench.store.resolve(SERIES) or ""
    git("checkout", "-q", "--detach", tip)
    git("status", "--porcelain")
    start = time.perf_counter()
    git("rebase", "-q", "--onto", bench.new.commit, bench.old.commit)
    return time.perf_counter() - start, git("rev-parse", "HEAD^{tree}")


def say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def main(rounds: int) -> int:
    default = Paths.default()
    store = Store.open(default)
    old, new = store.kernel(FROM), store.kernel(TO)
    if old is None or new is None:
        sys.exit(f"run 'tools/kpw fetch {FROM} {TO}' first")
    with tempfile.TemporaryDirectory(prefix="kpw-bench-", dir=default.cache) as name:
        scratch = Path(name)
        bench = Bench(store, old, new, Paths(scratch, default.cache, scratch))
        make_series(bench, scratch)
        work = scratch / "work"
        process.run(["git", "clone", "-q", "-s", "-n", store.path, work], env=store.environment())
        mine, other = [], []
        for turn in range(rounds):
            seconds, result = ours(bench)
            mine.append(seconds)
            seconds, tree = theirs(bench, work)
            other.append(seconds)
            if tree != result.tree:
                sys.exit("the two trees differ")
            say(f"round {turn + 1}: kpw {mine[-1]:.3f} s, git rebase --onto {other[-1]:.2f} s")
        return report(bench, result, min(mine), min(other))


def report(bench: Bench, result: RebasedSeries, mine: float, other: float) -> int:
    """Print the figures; a series of clean patches is ported to its own base for them."""
    states = Counter(str(outcome.state) for outcome in result.outcomes)
    clean = Bench(bench.store, bench.old, bench.old, bench.paths)
    each = min(ours(clean)[0] for _ in range(3)) * 1000 / PATCHES
    say("patches: " + ", ".join(f"{count} {state}" for state, count in states.items()))
    say(f"kpw {mine:.3f} s ({mine * 1000 / PATCHES:.1f} ms a patch), a clean patch {each:.1f} ms")
    say(f"git rebase --onto in a work tree {other:.2f} s: {other / mine:.1f} times as long")
    bench.store.git("update-ref", "-d", SERIES)
    return 0 if other / mine >= FASTER and each <= CLEAN_MS else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 3))
