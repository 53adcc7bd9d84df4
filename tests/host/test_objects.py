# SPDX-License-Identifier: GPL-2.0-only
"""What is written without git, objects and indexes, is what git would have written."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from toy_kernel import ToyKernels

from workbench import indexfile, looseobject
from workbench.errors import InfraError
from workbench.gitapply import Entry, SmallIndex
from workbench.treeobject import ChangingTree

if TYPE_CHECKING:
    from pathlib import Path

#: The tree without a file, which git knows in every store.
EMPTY = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"
#: Git sorts "a" as a directory after "a-b" and "a.c", and as a file before them.
PATHS = ["a/x", "a-b", "a.c", "a0", "b", "b/c/d", "b/c/e", "b.d/x", "ä/ö", "z/y/x/w", "z/y/v"]


@pytest.fixture
def toys(tmp_path: Path) -> ToyKernels:
    return ToyKernels(tmp_path)


def test_an_object_is_git_s(toys: ToyKernels) -> None:
    data = b"one\0two\n" * 1000
    oid = toys.store.add("blob", data)
    assert oid == toys.store.git("hash-object", "--stdin", input=data)
    assert toys.store.git_bytes("cat-file", "blob", oid)[1] == data
    assert looseobject.place(toys.store.path, oid).stat().st_mode & 0o777 == 0o444
    assert toys.store.add("blob", data) == oid
    toys.store.git("fsck", "--strict", "--no-dangling")


def test_a_store_that_cannot_be_written_is_told(toys: ToyKernels) -> None:
    (toys.store.path / "objects" / "e6").write_bytes(b"")  # where a folder should be
    with pytest.raises(InfraError, match="cannot be written"):
        toys.store.add("blob", b"")
    assert toys.store.add("blob", b"other")


def test_a_missing_object_is_told(toys: ToyKernels) -> None:
    toys.store.require(toys.store.add("blob", b"x"))
    with pytest.raises(InfraError, match="1111 is missing"):
        toys.store.require("1" * 40)


@pytest.mark.parametrize("seed", range(5))
def test_trees_are_git_s(toys: ToyKernels, seed: int) -> None:
    """Files come, change and go; where a file was a directory may come, and the other way."""
    dice = random.Random(seed)
    files: dict[str, Entry] = {}
    tree = ChangingTree(toys.store, EMPTY)
    for step in range(12):
        changes: dict[str, Entry | None] = {}
        for path in dice.sample(PATHS, 4):
            if path in files and dice.random() < 0.5:
                changes[path] = None
            elif not any(clash(path, other) for other in {**files, **changes}):
                changes[path] = Entry("100644", toys.store.add("blob", f"{path} {step}".encode()))
        files = {path: entry for path, entry in {**files, **changes}.items() if entry}
        oid = tree.write(changes)
        index = SmallIndex(toys.store, toys.root / f"expected-{step}")
        index.put(files)
        assert oid == index.write_tree(), changes
    toys.store.git("fsck", "--strict", "--no-dangling")


def clash(path: str, other: str) -> bool:
    return f"{path}/".startswith(f"{other}/") != (path == other) or other.startswith(f"{path}/")


def test_a_tree_needs_its_blobs(toys: ToyKernels) -> None:
    with pytest.raises(InfraError, match="is missing"):
        ChangingTree(toys.store, EMPTY).write({"a": Entry("100644", "1" * 40)})


def test_an_index_is_git_s(toys: ToyKernels) -> None:
    oid = toys.store.add("blob", b"x\n")
    names = ["b", "a/b", "ä", "x" * 300, "abcdefg", "abcdefgh"]
    records = [(name, "100755", oid, 0) for name in names]
    records += [("clash", "100644", oid, stage) for stage in (1, 2, 3)]
    file = toys.root / "index"
    file.write_bytes(indexfile.pack(records))
    env = {"GIT_INDEX_FILE": str(file)}
    listed = toys.store.git("ls-files", "--stage", "-z", env=env).split("\0")
    said = {f"{mode} {blob} {stage}\t{name}" for name, mode, blob, stage in records}
    assert set(filter(None, listed)) == said
    text = "".join(f"{mode} {blob} {stage}\t{name}\0" for name, mode, blob, stage in records)
    other = {"GIT_INDEX_FILE": str(toys.root / "other")}
    toys.store.git("update-index", "-z", "--index-info", input=text.encode(), env=other)
    read = indexfile.unpack((toys.root / "other").read_bytes(), "other")
    assert sorted(read) == sorted(records)


def test_an_index_of_another_version_is_told(toys: ToyKernels) -> None:
    file = toys.root / "index"
    file.write_bytes(indexfile.pack([("a", "100644", toys.store.add("blob", b""), 0)]))
    env = {"GIT_INDEX_FILE": str(file)}
    toys.store.git("update-index", "--index-version", "4", env=env)
    with pytest.raises(InfraError, match="version 4"):
        SmallIndex(toys.store, file).stages()
