# SPDX-License-Identifier: GPL-2.0-only
"""The build on a real kernel: minutes, so marked ``real``."""

from __future__ import annotations

import hashlib
import os
import shutil
from typing import TYPE_CHECKING

import msgspec
import pytest

from workbench import build, configure, fragments, recipe, source, sourcetree
from workbench.build import BuildRequest
from workbench.extensions import load_extensions
from workbench.gitstore import Store
from workbench.model import BuildFailure, BuiltKernel, ResolvedConfig
from workbench.paths import Paths
from workbench.progress import Silent

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.real


def request_for(paths: Paths) -> tuple[Store, BuildRequest]:
    """Return the store and what 'kpw run' builds for red: its objects are in ccache then."""
    kernel = source.obtain(paths, source.default_tag(paths))
    names = tuple(each.name for each in load_extensions(paths))
    return Store.open(paths), BuildRequest(kernel, kernel.tree, names)


def another_cache(tmp_path: Path) -> Paths:
    """Return an empty cache with the store and the compiler's cache of the default one."""
    paths = Paths.default()
    cache = tmp_path / "somewhere" / "else"
    cache.mkdir(parents=True)
    for name in ("store.git", "store.lock", "ccache"):
        (cache / name).symlink_to(paths.cache / name)
    return Paths(paths.repo, cache, tmp_path / "state")


def another_repo(tmp_path: Path) -> Path:
    """Return a checkout like ours, but for a copy of kconfigs that may be changed."""
    mine = Paths.default()
    repo = tmp_path / "repo"
    repo.mkdir()
    for name in os.listdir(mine.repo):  # noqa: PTH208 - names, not paths
        if name != "kconfigs":
            (repo / name).symlink_to(mine.repo / name)
    shutil.copytree(mine.kconfigs, repo / "kconfigs")
    return repo


def test_two_workspaces_give_the_same_kernel(tmp_path: Path) -> None:
    """One was switched in place to and fro, the other made elsewhere from the whole tree."""
    first = Paths.default()
    second = Paths(another_repo(tmp_path), another_cache(tmp_path).cache, tmp_path / "state")
    arch = second.kconfigs / "arch/x86_64.toml"
    arch.write_text(arch.read_text().partition("[leave-out]")[0])
    assert recipe.load(second, "x86_64").leave_out == recipe.LeaveOut()
    digests = set()
    for paths in (first, second):
        store, request = request_for(paths)
        done = build.build(paths, store, request, Silent())
        assert isinstance(done, BuiltKernel), done
        digests.add(hashlib.sha256(done.vmlinux.read_bytes()).hexdigest())
    assert len(digests) == 1


def test_a_misspelt_symbol_is_explained_by_the_real_tree(tmp_path: Path) -> None:
    mine = Paths.default()
    paths = Paths(another_repo(tmp_path), mine.cache, mine.state)
    base = paths.kconfigs / "base.config"
    lines = base.read_text().count("\n")
    base.write_text(base.read_text() + "CONFIG_XFRM_USERS=y\nCONFIG_E1000=y\n")
    store, request = request_for(paths)
    done = build.build(paths, store, request, Silent())
    assert isinstance(done, BuildFailure), done
    assert [(item.symbol, item.line) for item in done.unmet] == [
        ("XFRM_USERS", lines + 1),
        ("E1000", lines + 2),
    ]
    assert "did you mean CONFIG_XFRM_USER?" in done.unmet[0].reason
    assert done.unmet[1].reason == "it depends on CONFIG_PCI, which is off"


def test_what_is_left_out_changes_no_configuration(tmp_path: Path) -> None:
    """The configuration of the pruned tree is that of the whole one, to the byte."""
    paths = another_cache(tmp_path)
    store, request = request_for(paths)
    kernel = request.kernel
    merged = fragments.load(paths, kernel.tag, arch="x86_64", extensions=(), flavour="debug")
    pruning = recipe.load(paths, "x86_64")
    whole = msgspec.structs.replace(pruning, leave_out=recipe.LeaveOut())
    texts = set()
    for number, how in enumerate((pruning, whole)):
        room = sourcetree.Room(tmp_path / str(number))
        out = room.out("x86_64", "debug")
        out.mkdir(parents=True)
        tree = sourcetree.switch(store, room, kernel.tree, how.leave_out)
        place = configure.Workplace(paths, room.src, out, room.root / "log", tree, how)
        resolved = configure.configure(store, place, merged)
        assert isinstance(resolved, ResolvedConfig)
        assert resolved.unmet == ()
        texts.add(resolved.text)
    assert len(texts) == 1
