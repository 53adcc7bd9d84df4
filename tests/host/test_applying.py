# SPDX-License-Identifier: GPL-2.0-only
"""What is applied or merged without ``git apply`` is what ``git apply`` makes of it."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy_kernel import MAIL, ToyKernels, numbered

from workbench import applying
from workbench.applying import PlainMerge, Sides
from workbench.errors import InfraError
from workbench.gitapply import Application, Entry, SmallIndex
from workbench.patchfile import parse_patch

if TYPE_CHECKING:
    from workbench.filechange import FileChange

NAME = "net/a.c"
#: So few different lines that many places look alike.
LINES = [b"\n", b"}\n", b"\treturn 0;\n", b"{\n", b"a\n", b"b\n", b"c\n"]
HUNK = re.compile(rb"^@@ -(\d+)(,\d+)? \+(\d+)(,\d+)? @@", re.MULTILINE)
Diff = tuple[bytes | None, bytes | None]


class Bench:
    """A toy store, and both ways to apply a change to one file."""

    def __init__(self, root: Path) -> None:
        """Make the store below ``root``."""
        self.toys = ToyKernels(root)
        self.store = self.toys.store
        self.folder = root / "scratch"
        self.folder.mkdir()
        self._count = 0

    def entry(self, text: bytes | None, mode: str = "100644") -> Entry | None:
        return None if text is None else Entry(mode, self.store.add("blob", text))

    def change(self, before: bytes | None, after: bytes | None, context: int = 3) -> FileChange:
        """Return git's own diff of two texts, read as a patch."""
        trees = [
            self.toys.tree({"x": b"", **({} if text is None else {NAME: text})})
            for text in (before, after)
        ]
        words = ("diff-tree", "-p", "--full-index", f"-U{context}")
        code, diff, said = self.store.git_bytes(*words, *trees)
        assert code == 0, said
        return read(diff)

    def by_git(
        self, change: FileChange, there: Entry | None, *options: str
    ) -> tuple[Application, dict[int, Entry]]:
        self._count += 1
        index = SmallIndex(self.store, self.folder / f"index-{self._count}")
        index.put({NAME: there} if there else {})
        return index.apply(change.text, *options), index.stages().get(NAME, {})

    def here(self, change: FileChange, there: Entry | None) -> applying.Plain | None:
        return applying.apply(self.store, [change], lambda _: there)

    def merged(self, change: FileChange, there: Entry | None) -> dict[str, Entry | None] | None:
        merge = PlainMerge(self.store, Sides(self.store), self.folder)
        return merge.merge([change], {NAME: there} if there else {})


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def some_text(dice: random.Random) -> list[bytes]:
    if dice.random() < 0.3:
        return numbered("a", dice.randint(1, 40))
    return [dice.choice(LINES) for _ in range(dice.randint(1, 60))]


def changed(dice: random.Random, lines: list[bytes], times: int) -> list[bytes]:
    lines = list(lines)
    for _ in range(times):
        at = dice.randint(0, len(lines))
        match dice.randrange(3):
            case 0:
                lines[at:at] = [dice.choice(LINES) for _ in range(dice.randint(1, 4))]
            case 1:
                del lines[at : at + dice.randint(1, 4)]
            case _:
                lines[at : at + 1] = [b"new\n"]
    return lines


def moved(dice: random.Random, change: FileChange) -> FileChange:
    """Let a change name other lines than it was made on."""
    by = dice.choice([0, 0, 1, -1, 7, -9, 400])
    if any(hunk.old_start <= 1 or hunk.old_start + by < 2 for hunk in change.hunks):
        return change

    def shifted(head: re.Match[bytes]) -> bytes:
        old, new = max(int(head[1]) + by, 2), max(int(head[3]) + by, 1)
        return b"@@ -%d%s +%d%s @@" % (old, head[2] or b"", new, head[4] or b"")

    text = HUNK.sub(shifted, change.text)
    return read(text)


def read(diff: bytes) -> FileChange:
    mail = MAIL.format(number=1, subject="s", diff="\0").encode()
    (change,) = parse_patch(Path("0001-s.patch"), mail.replace(b"\0", diff)).changes
    return change


@pytest.mark.parametrize("seed", range(8))
def test_random_hunks_go_where_git_puts_them(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    seen: set[object] = set()
    for _ in range(40):
        base = some_text(dice)
        after = changed(dice, base, dice.randint(1, 3))
        if after == base:
            continue
        change = bench.change(b"".join(base), b"".join(after), dice.choice([1, 2, 3, 3]))
        change = moved(dice, change)
        upstream = b"".join(changed(dice, base, dice.randint(0, 3)))
        there = bench.entry(upstream, dice.choice(["100644", "100755"]))
        found = bench.here(change, there)
        if found is None:
            seen.add(None)
            continue
        said, stages = bench.by_git(change, there)
        told = found.application
        assert (told.applied, told.offsets) == (said.applied, said.offsets), (change.text, upstream)
        if said.applied:
            assert found.after == {NAME: stages.get(0)}, (change.text, upstream)
        seen.add((said.applied, bool(said.offsets)))
    assert seen >= {(True, False), (True, True), (False, False)}


@pytest.mark.parametrize("seed", range(4))
def test_random_merges_are_git_s(bench: Bench, seed: int) -> None:
    dice = random.Random(seed)
    clean = 0
    for _ in range(30):
        base = some_text(dice) + some_text(dice)
        after = changed(dice, base, dice.randint(1, 2))
        if after == base:
            continue
        change = bench.change(b"".join(base), b"".join(after))
        there = bench.entry(b"".join(changed(dice, base, dice.randint(0, 2))))
        merged = bench.merged(change, there)
        said, stages = bench.by_git(change, there, "--3way")
        if merged is None:
            continue
        clean += 1
        assert said.applied, change.text
        assert merged == {NAME: stages.get(0)}, change.text
    assert clean > 5


A = b"".join(numbered("a", 20))
NEW = b"new\n" + A


@pytest.mark.parametrize(
    ("diff", "there"),
    [
        ((None, A), None),
        ((None, A), b"something\n"),
        ((A, None), A),
        ((A, None), NEW),
        ((A, None), None),
        ((A, NEW), None),
        ((A, NEW), NEW),
        ((A, NEW), b"first\n" + A),
        ((A, A + b"last\n"), A),
        ((A, A + b"last\n"), A + b"other\n"),
        ((A, A + b"last\n"), A[:-1]),
        ((A, A.replace(b"0010", b"x")), A[:-1]),
        ((A, A.replace(b"0010", b"x")), A.replace(b"\n", b"\r\n")),
        ((A, A.replace(b"0010", b"x")), b""),
    ],
)
def test_edges_are_git_s(bench: Bench, diff: Diff, there: bytes | None) -> None:
    change, entry = bench.change(*diff), bench.entry(there)
    found = bench.here(change, entry)
    said, stages = bench.by_git(change, entry)
    assert found is not None
    assert found.application == replace(said, failed=())
    if said.applied:
        assert found.after == {NAME: stages.get(0)}


@pytest.mark.parametrize(
    "diff",
    [
        (A, A[:-1]),
        (A[:-1], A),
        (A, A.replace(b"0010", b"0010\r")),
        (None, b"no newline"),
        (None, b""),
    ],
)
def test_what_is_out_of_the_ordinary_is_left_to_git(bench: Bench, diff: Diff) -> None:
    change = bench.change(*diff)
    assert bench.here(change, bench.entry(diff[0])) is None


def test_a_link_or_a_file_changed_twice_is_left_to_git(bench: Bench) -> None:
    change = bench.change(A, NEW)
    assert bench.here(change, bench.entry(A, "120000")) is None
    there = bench.entry(A)
    assert applying.apply(bench.store, [change, change], lambda _: there) is None


LINE = """\
diff --git a/net/a.c b/net/a.c
index 1111111..2222222 100644
--- a/net/a.c
+++ b/net/a.c
@@ -{0},2 +{0},3 @@
 1
+x
 2
"""


@pytest.mark.parametrize(("line", "moved_by"), [(14, -3), (15, 4), (16, 3), (2, 9), (60, -41)])
def test_of_two_places_the_nearer_is_taken_and_of_two_as_near_the_later(
    bench: Bench, line: int, moved_by: int
) -> None:
    lines, block = numbered("a", 30), [b"1\n", b"2\n"]
    there = bench.entry(b"".join([*lines[:10], *block, *lines[10:16], *block, *lines[16:]]))
    change = read(LINE.format(line).encode())
    found, (said, stages) = bench.here(change, there), bench.by_git(change, there)
    assert found is not None
    assert found.application == said
    assert found.application.offsets == (moved_by,)
    assert found.after == {NAME: stages[0]}


def test_a_hunk_does_not_go_into_lines_an_earlier_one_wrote(bench: Bench) -> None:
    """Both hunks fit in one place only, and it is taken once."""
    block = [b"1\n", b"2\n", b"3\n"]
    twice = b"".join([*block, *LINES, *LINES, *block])
    after = b"".join([b"1\n", b"x\n", b"2\n", b"3\n", *LINES, *LINES, *block, b"y\n"])
    change = bench.change(twice, after, 1)
    there = bench.entry(b"".join([*block, *LINES]))
    found, (said, _) = bench.here(change, there), bench.by_git(change, there)
    assert found is not None
    assert found.application.applied is said.applied is False


def test_a_merge_that_clashes_is_left_to_git(bench: Bench) -> None:
    change = bench.change(A, A.replace(b"0010", b"ours"))
    there = bench.entry(A.replace(b"0010", b"upstream"))
    assert bench.merged(change, there) is None


def test_a_merge_without_its_base_is_left_to_git(bench: Bench) -> None:
    change = replace(bench.change(A, NEW), old_oid="1" * 40)
    assert bench.merged(change, bench.entry(A)) is None


def test_a_missing_blob_is_a_fault(bench: Bench) -> None:
    change = bench.change(A, NEW)
    with pytest.raises(InfraError, match="is missing"):
        bench.here(change, Entry("100644", "1" * 40))
