# SPDX-License-Identifier: GPL-2.0-only
"""The source tree: what lies there, what a switch touches, what a dead run left."""

from __future__ import annotations

import os
import shutil
from collections import namedtuple
from typing import TYPE_CHECKING

import pytest
from toy_kernel import ToyKernels

from workbench import process, recipe, sourcetree
from workbench.errors import InfraError
from workbench.paths import Paths
from workbench.progress import Silent
from workbench.recipe import LeaveOut

if TYPE_CHECKING:
    from pathlib import Path

    from toy_kernel import Files

    from workbench.model import Kernel

FILES: Files = {
    "Kconfig": b"config A\n",
    "net/a.c": b"int a;\n",
    "net/b.c": b"int b;\n",
    "arch/Kconfig": b"arch\n",
    "arch/x86/x.c": b"int x;\n",
    "arch/arm/Kconfig": b"arm\n",
    "arch/arm/boot/Makefile": b"all:\n",
    "arch/arm/boot/boot.c": b"int boot;\n",
    "sound/pci/card.c": b"int card;\n",
    "drivers/gpu/drm/drm.c": b"int drm;\n",
    "drivers/net/veth.c": b"int veth;\n",
    "scripts/run.sh": ("100755", b"#!/bin/sh\n"),
}
RULES = LeaveOut(
    folders=("arch/*", "!arch/x86", "sound", "drivers/gpu"), keep=("Kconfig*", "Makefile")
)


class Place:
    """A toy kernel and its source tree."""

    def __init__(self, root: Path) -> None:
        """Import the kernel; nothing is checked out yet."""
        self.toy = ToyKernels(root)
        self.kernel: Kernel = self.toy.kernel("v6.12.1", FILES)
        self.src = self.toy.paths.trees / self.kernel.name / "src"

    def tree(self, **changed: bytes) -> str:
        renamed = {path.replace("__", "/") + ".c": data for path, data in changed.items()}
        return self.toy.tree({**FILES, **renamed})

    def switch(self, tree: str, rules: LeaveOut = RULES) -> str:
        with sourcetree.held(self.toy.paths, self.kernel, Silent()) as room:
            return sourcetree.switch(self.toy.store, room, tree, rules)

    def files(self) -> dict[str, bytes]:
        return {
            str(path.relative_to(self.src)): path.read_bytes()
            for path in self.src.rglob("*")
            if path.is_file()
        }

    def times(self) -> dict[str, int]:
        return {name: (self.src / name).stat().st_mtime_ns for name in self.files()}

    def age(self) -> dict[str, int]:
        """Make every file old and tell git so: what is rewritten then shows."""
        for name in self.files():
            os.utime(self.src / name, (1_500_000_000, 1_500_000_000))
        self.switch(self.kernel_tree)
        return self.times()

    @property
    def kernel_tree(self) -> str:
        return self.tree()


@pytest.fixture
def place(tmp_path: Path) -> Place:
    return Place(tmp_path)


def test_what_is_left_out_keeps_its_kconfig_and_makefiles(place: Place) -> None:
    place.switch(place.tree())
    assert sorted(place.files()) == [
        "Kconfig",
        "arch/Kconfig",
        "arch/arm/Kconfig",
        "arch/arm/boot/Makefile",
        "arch/x86/x.c",
        "drivers/net/veth.c",
        "net/a.c",
        "net/b.c",
        "scripts/run.sh",
    ]
    assert os.access(place.src / "scripts/run.sh", os.X_OK)


def test_a_patch_of_what_is_left_out_changes_nothing_here(place: Place) -> None:
    pruned = place.switch(place.tree())
    before = place.age()
    assert place.switch(place.tree(sound__pci__card=b"int other;\n")) == pruned
    assert place.times() == before


def test_a_new_makefile_in_what_is_left_out_is_there(place: Place) -> None:
    place.switch(place.tree())
    place.switch(place.toy.tree({**FILES, "drivers/gpu/drm/Makefile": b"obj-y += drm.o\n"}))
    assert place.files()["drivers/gpu/drm/Makefile"] == b"obj-y += drm.o\n"
    assert "drivers/gpu/drm/drm.c" not in place.files()


@pytest.mark.parametrize("arch", recipe.known(Paths.default()))
@pytest.mark.parametrize(
    "folder",
    ["block", "certs", "crypto", "include", "init", "kernel", "lib", "mm", "net", "scripts"]
    + ["security", "usr", "arch/x86"]
    + [
        f"tools/{name}"
        for name in ("arch", "build", "docs", "include", "lib", "objtool", "scripts")
    ],
)
def test_what_must_stay_whole_does(arch: str, folder: str) -> None:
    """What is only looked for there would be missed in silence: see the module's docstring."""
    rules = recipe.load(Paths.default(), arch).leave_out
    assert not rules.covers(folder)
    assert not rules.reaches_below(folder)
    assert not rules.covers(folder.partition("/")[0])


def test_without_rules_it_is_the_tree_itself(place: Place) -> None:
    tree = place.tree()
    assert place.switch(tree, LeaveOut()) == tree
    assert place.files() == {
        path: data[1] if isinstance(data, tuple) else data for path, data in FILES.items()
    }


def test_the_pruned_tree_is_a_real_tree(place: Place) -> None:
    pruned = place.switch(place.tree())
    listed = place.toy.store.git("ls-tree", "-r", "--name-only", pruned).splitlines()
    assert sorted(listed) == sorted(place.files())


def test_a_switch_touches_only_what_differs(place: Place) -> None:
    place.switch(place.tree())
    before = place.age()
    place.switch(place.tree(net__a=b"int a2;\n", net__c=b"int c;\n"))
    after = place.times()
    assert {name for name in after if after[name] != before.get(name)} == {"net/a.c", "net/c.c"}
    place.switch(place.tree())
    assert "net/c.c" not in place.files()
    assert place.files()["net/a.c"] == b"int a;\n"


def test_the_same_tree_again_touches_nothing(place: Place) -> None:
    place.switch(place.tree())
    before = place.age()
    place.switch(place.tree())
    assert place.times() == before


def test_a_file_changed_by_hand_is_put_right(place: Place) -> None:
    place.switch(place.tree())
    (place.src / "net/a.c").write_text("int mine;\n")
    (place.src / "net/b.c").unlink()
    place.switch(place.tree())
    assert place.files()["net/a.c"] == b"int a;\n"
    assert place.files()["net/b.c"] == b"int b;\n"


@pytest.mark.parametrize("lost", ["state", "index", "src", "state index"])
def test_a_run_that_died_in_a_switch_is_repaired(place: Place, lost: str) -> None:
    """What it can leave: a lock, half of the new files, an index of the old tree."""
    place.switch(place.tree())
    room = place.src.parent
    (room / "index.lock").write_bytes(b"half")
    (place.src / "net/half.c").write_text("of another series\n")
    (place.src / "net/a.c").write_text("in")
    for name in lost.split():
        path = room / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    if "state" not in lost:
        (room / "state").unlink(missing_ok=True)
    place.switch(place.tree(net__b=b"int b3;\n"))
    assert "net/half.c" not in place.files()
    assert place.files()["net/a.c"] == b"int a;\n"
    assert place.files()["net/b.c"] == b"int b3;\n"


def test_an_index_that_cannot_be_read_is_made_anew(place: Place) -> None:
    place.switch(place.tree())
    (place.src.parent / "index").write_bytes(b"garbage")
    place.switch(place.tree(net__a=b"int a4;\n"))
    assert place.files()["net/a.c"] == b"int a4;\n"


def test_a_store_that_was_made_anew_is_no_trouble(tmp_path: Path) -> None:
    first = Place(tmp_path / "first")
    first.switch(first.tree())
    second = Place(tmp_path / "second")
    first.toy.paths.trees.rename(second.toy.paths.trees)
    second.switch(second.tree())
    assert second.files()["arch/arm/Kconfig"] == b"arm\n"
    assert second.switch(second.tree(net__a=b"int a5;\n"))
    assert second.files()["net/a.c"] == b"int a5;\n"


def test_a_second_run_waits_and_says_so(place: Place) -> None:
    class Heard(Silent):
        def __init__(self) -> None:
            self.notes: list[str] = []

        def note(self, line: str) -> None:
            self.notes.append(line)
            blocker.kill()

    heard = Heard()
    room = place.src.parent
    room.mkdir(parents=True)
    script = f"exec 9>'{room}/lock'; flock 9; echo locked; exec sleep 60"
    with process.spawned(("bash", "-c", script)) as blocker:
        assert blocker.stdout is not None
        blocker.stdout.readline()
        with sourcetree.held(place.toy.paths, place.kernel, heard):
            assert heard.notes == ["waiting for another run that builds v6.12.1"]


def test_a_disk_without_room_is_told_beforehand(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    usage = namedtuple("usage", "total used free")  # noqa: PYI024 - shutil's own shape
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage(10 << 30, 9 << 30, 100 << 20))
    with pytest.raises(InfraError, match=r"only 100 MiB are free, a build needs 1024; free some"):
        place.switch(place.tree())
    assert not place.src.exists()
