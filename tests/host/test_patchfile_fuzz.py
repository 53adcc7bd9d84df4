# SPDX-License-Identifier: GPL-2.0-only
"""10,000 damaged and hostile patches: read or refused, and nothing is written where it may not be.

The damage comes from a fixed seed: a failure names the mutant, and it is the
same one the next time.
"""

from __future__ import annotations

import os
import random
import re
import signal
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy_kernel import Files, ToyKernels, numbered

from workbench.errors import UsageError
from workbench.filechange import SYMLINK
from workbench.patchfile import PatchFile, parse_patch
from workbench.treepath import leads_outside, outside

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from workbench.model import Kernel, RebasedSeries

PATCHES = Path(__file__).parents[2] / "patches"
MUTANTS, REBASED = 10_000, 250
#: No patch takes a second; one that takes this long would take for ever.
HANG_SECONDS = 60
BASE: dict[str, bytes] = {
    "net/a.c": b"".join(numbered("a", 60)),
    "net/b.c": b"".join(numbered("b", 30)),
    "net/gone.c": b"".join(numbered("gone", 5)),
    "include/uapi/x.h": b"".join(numbered("x", 20)),
    "tool.sh": b"#!/bin/sh\ntrue\n",
}
NAMES = [
    b"../../etc/passwd",
    b"net/../../x",
    b"/etc/passwd",
    b".git/config",
    b"net/.GIT/hooks/x",
    b".git::$INDEX_ALLOCATION/config",
    b"GIT~1/config",
    b"net//a.c",
    b"./net/a.c",
    b"net/a.c/",
    b"net",
    b"net/a.c/x",
    b"",
    b"x" * 5000,
    b'"\\056\\056/x"',
    b"net\\a.c",
    b"a\tb",
    b"caf\xc3\xa9",
    b"\xff\xfe",
    b"\xe2\x80\xae.c",
]
NUMBERS = [b"0", b"1", b"2", b"-1", b"7", b"999999999", b"4294967296", b"9" * 30, b"", b"0x1"]
MODES = [b"120000", b"160000", b"040000", b"100755", b"100666", b"000000", b"777777", b"x"]
JUNK = [
    b"\0",
    b"\r",
    b"\r\n",
    b"\n",
    b"\x1a",
    b"\xff",
    b"\xe2\x80\xa8",
    b"=?utf-8?q?=FF?=",
    b"=?x?b?!?=",
]
LINES = [
    b"--- /dev/null\n",
    b"+++ /dev/null\n",
    b"@@ -0,0 +1 @@\n",
    b"@@ -1 +0,0 @@\n",
    b"@@ -1,3 +1,3 @@\n",
    b"\\ No newline at end of file\n",
    b"rename from net/a.c\n",
    b"rename to net/../../z\n",
    b"copy to /z\n",
    b"new file mode 120000\n",
    b"deleted file mode 100644\n",
    b"old mode 100644\n",
    b"new mode 120000\n",
    b"similarity index 100%\n",
    b"GIT binary patch\n",
    b"diff --git a/net/a.c b/net/a.c\n",
    b"diff --cc net/a.c\n",
    b"index 0000000..1111111\n",
    b"-- \n",
    b"From 0123456789 Mon Sep 17 00:00:00 2001\n",
    b"Content-Type: text/plain; charset=utf-7\n",
    b"Content-Type: text/plain; charset=idna\n",
    b"Content-Transfer-Encoding: base64\n",
    b"Date: Fri, 99 Xxx 99999 99:99:99 +9999\n",
    b"base-commit: \xff\n",
    b"+../../../etc\n",
    b"+" + b"x" * 70_000 + b"\n",
]
HUNK = re.compile(rb"(@@ -|,| \+)(\d+)(?=[, ])")
PLACE = re.compile(rb"(?: [ab]/|(?:rename|copy) (?:from|to) )(\S+)")
MODE = re.compile(rb"\b(?:100644|100755|120000)\b")


def flip(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << dice.randrange(8)]) + data[at + 1 :]


def insert(data: bytes, dice: random.Random) -> bytes:
    at = dice.randrange(len(data))
    return data[:at] + dice.choice(JUNK) + data[at:]


def cut(data: bytes, dice: random.Random) -> bytes:
    return data[: dice.randrange(len(data))]


def all_cr(data: bytes, _: random.Random) -> bytes:
    return data.replace(b"\n", b"\r\n")


def one_match(pattern: re.Pattern[bytes], choice: list[bytes]) -> Callable[..., bytes]:
    """Replace one place the pattern finds; every one of a name now and then."""

    def mutate(data: bytes, dice: random.Random) -> bytes:
        found = list(pattern.finditer(data))
        if not found:
            return data
        match, new = dice.choice(found), dice.choice(choice)
        if pattern is PLACE and dice.random() < 0.7:
            return data.replace(match[1], new)
        low, high = match.span(match.lastindex or 0)
        return data[:low] + new + data[high:]

    return mutate


def lines_of(change: Callable[[list[bytes], int, random.Random], None]) -> Callable[..., bytes]:
    def mutate(data: bytes, dice: random.Random) -> bytes:
        lines = data.splitlines(keepends=True)
        change(lines, dice.randrange(len(lines)), dice)
        return b"".join(lines)

    return mutate


def drop(lines: list[bytes], at: int, dice: random.Random) -> None:
    del lines[at : at + dice.choice([1, 1, 2, 9])]


def double(lines: list[bytes], at: int, dice: random.Random) -> None:
    lines[at:at] = lines[at : at + dice.choice([1, 1, 2, 9])]


def swap(lines: list[bytes], at: int, dice: random.Random) -> None:
    other = dice.randrange(len(lines))
    lines[at], lines[other] = lines[other], lines[at]


def strange(lines: list[bytes], at: int, dice: random.Random) -> None:
    lines[at:at] = [dice.choice(LINES)]


def resigned(lines: list[bytes], at: int, dice: random.Random) -> None:
    lines[at] = dice.choice([b" ", b"+", b"-", b"\\", b"@", b""]) + lines[at][1:]


MUTATIONS: list[Callable[[bytes, random.Random], bytes]] = [
    flip,
    insert,
    cut,
    all_cr,
    one_match(HUNK, NUMBERS),
    one_match(HUNK, NUMBERS),
    one_match(PLACE, NAMES),
    one_match(PLACE, NAMES),
    one_match(MODE, MODES),
    *map(lines_of, (drop, double, swap, strange, resigned)),
]


def toy_patches(root: Path) -> list[bytes]:
    """Return patches of every kind, made on :data:`BASE`."""
    toys = ToyKernels(root)
    a, b = BASE["net/a.c"], BASE["net/b.c"]
    edited = a.replace(b"0010", b"ten").replace(b"0050", b"fifty")
    afters: list[Files] = [
        {**BASE, "net/a.c": edited, "net/b.c": b + b"more\n"},
        {**BASE, "net/new.c": b"new\n", "net/a.c": edited},
        {name: text for name, text in BASE.items() if name != "net/gone.c"},
        {**{name: text for name, text in BASE.items() if name != "net/b.c"}, "net/c.c": b + b"x\n"},
        {**BASE, "tool.sh": ("100755", b"#!/bin/sh\nfalse\n")},
        {**BASE, "net/link": (SYMLINK, b"a.c"), "net/b.c": b.replace(b"0009", b"9")},
        {**BASE, "net/b.c": b[:-1], "include/uapi/x.h": b"x\n" + BASE["include/uapi/x.h"]},
    ]
    return [toys.patch(f"e/{n:04}-x.patch", {**BASE}, after).read_bytes()
            for n, after in enumerate(afters, 1)]  # fmt: skip


def mutants(sources: list[bytes], count: int, seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield damaged patches, and how each is made again."""
    dice = random.Random(seed)
    for number in range(count):
        data = dice.choice(sources)
        done = []
        for _ in range(dice.choice([1, 1, 1, 2, 3])):
            mutation = dice.choice(MUTATIONS)
            data = mutation(data, dice) or b"x"
            done.append(mutation.__qualname__)
        yield f"mutant {number} of seed {seed}: {', '.join(done)}", data


def read(name: str, data: bytes) -> PatchFile | UsageError:
    """Read a mutant; only UsageError may come out, and it names the file in one line."""
    try:
        return parse_patch(Path("patches/e/0001-x.patch"), data)
    except UsageError as error:
        refusal = error
    except BaseException as error:
        error.add_note(name)
        raise
    assert str(refusal).startswith("patches/e/0001-x.patch:"), name
    assert str(refusal).isprintable(), name
    return refusal


@pytest.fixture(autouse=True)
def _no_hang() -> Iterator[None]:
    """End a reader that does not end."""
    signal.signal(signal.SIGALRM, signal.getsignal(signal.SIGINT))
    yield
    signal.alarm(0)


def test_10000_damaged_patches_are_read_or_refused(tmp_path: Path) -> None:
    real = [path.read_bytes() for path in sorted(PATCHES.rglob("*.patch"))]
    # Twice as many toys: they are short, so that more of the damage hits a header.
    sources = [*real, *toy_patches(tmp_path) * 8]
    assert len(real) > 20
    came = Counter[str]()
    for name, data in mutants(sources, MUTANTS, seed=5):
        signal.alarm(HANG_SECONDS)
        found = read(name, data)
        if isinstance(found, UsageError):
            came["refused"] += 1
            continue
        came["taken"] += 1
        assert found.changes, name
        at = 0
        for change in found.changes:
            # Word for word and in order; notes may stand between two of them.
            assert change.text in data[at:], name
            at = data.index(change.text, at) + len(change.text)
            assert not any(outside(path) for path in change.paths), name
    assert min(came["refused"], came["taken"]) > MUTANTS / 10, came


def everything(root: Path, *but: Path) -> dict[str, tuple[int, int]]:
    """Return all files below a folder with size and time, but for some folders."""
    found = {}
    for folder, folders, names in os.walk(root):
        here = Path(folder)
        folders[:] = [name for name in folders if here / name not in but]
        for name in [*folders, *names]:
            status = (here / name).lstat()
            size = status.st_size if name in names else 0
            found[str(here / name)] = size, status.st_mtime_ns if name in names else 0
    return found


def test_what_the_reader_takes_is_rebased_and_stays_in_the_store(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sources = toy_patches(tmp_path / "sources")
    toys = ToyKernels(tmp_path / "deep" / "toys")
    toys.kernel("v5.10.262", {**BASE})
    edited = b"top\n" + BASE["net/a.c"].replace(b"0011", b"upstream")
    kernel = toys.kernel("v6.12.107", {**BASE, "net/a.c": edited})
    toys.describe("e")
    patch = toys.paths.patches / "e" / "0001-x.patch"
    for name in ("deep/home", "deep/scratch", "deep/work"):
        (tmp_path / name).mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "deep" / "home"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "deep" / "scratch"))
    monkeypatch.chdir(tmp_path / "deep" / "work")
    before = everything(tmp_path, toys.store.path, patch.parent)
    states = Counter[str]()
    for name, data in mutants(sources, MUTANTS, seed=7):
        if sum(states.values()) >= REBASED:
            break
        if isinstance(read(name, data), UsageError):
            continue
        patch.write_bytes(data)
        signal.alarm(HANG_SECONDS)
        states[rebased(toys, kernel, name)] += 1
    assert sum(states.values()) == REBASED
    assert len(states) > 3, states
    assert everything(tmp_path, toys.store.path, patch.parent) == before


def rebased(toys: ToyKernels, kernel: Kernel, name: str) -> str:
    """Port one mutant: a finding or a UsageError, git's own; the result leads nowhere else."""
    series, by_git = (result(port, kernel, name) for port in (toys.rebase, toys.rebase_by_git))
    assert series == by_git, name
    if isinstance(series, str):
        return "refused"
    listed = toys.store.git("ls-tree", "-r", "-z", series.tree)
    for record in filter(None, listed.split("\0")):
        head, path = record.split("\t", 1)
        assert not outside(path), (name, path)
        if head.startswith(SYMLINK):
            target = (toys.content(series.tree, path) or b"").decode(errors="replace")
            assert not leads_outside(path, target), (name, path)
    return str(series.outcomes[0].state)


def result(
    port: Callable[[Kernel], RebasedSeries], kernel: Kernel, name: str
) -> RebasedSeries | str:
    try:
        return port(kernel)
    except UsageError as error:
        return str(error)
    except BaseException as error:
        error.add_note(name)
        raise
