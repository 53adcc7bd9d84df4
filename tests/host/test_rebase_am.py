# SPDX-License-Identifier: GPL-2.0-only
"""The result of a rebase is the tree ``git am -3`` makes, patch by patch."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import pytest
from toy_kernel import Files, ToyKernels, WorkTree, numbered

from workbench import process, source
from workbench.declared import Restore
from workbench.extensions import load_extensions, patches_for, restores_for
from workbench.gitstore import Store
from workbench.model import PatchState
from workbench.patchfile import read_patch
from workbench.paths import Paths
from workbench.progress import Silent
from workbench.rebase import rebase

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.model import Kernel, KernelTag

WORDS = ("net/xfrm/state.c", "net/ipv6/addr.c", "include/uapi/xfrm.h", "doc/xfrm.rst")


def edited(lines: list[bytes], dice: random.Random, label: str, times: int) -> list[bytes]:
    """Change, insert and delete some lines."""
    lines = list(lines)
    for turn in range(times):
        at = dice.randrange(len(lines))
        new = [f"{label} {turn} {step}\n".encode() for step in range(dice.randint(1, 3))]
        match dice.randrange(4):
            case 0:
                lines[at : at + 1] = new
            case 1:
                lines[at:at] = new
            case 2 if len(lines) > 20:
                del lines[at : at + dice.randint(1, 4)]
            case _:
                lines[at] = lines[at].replace(b"\n", b" changed\n")
    return lines


def drifted(files: dict[str, list[bytes]], dice: random.Random) -> dict[str, list[bytes]]:
    """Do what upstream does between two releases: edit, rename, delete."""
    after = {}
    for path, lines in files.items():
        fate = dice.random()
        name = path.replace("/", "/moved-") if fate < 0.15 else path
        if fate < 0.95:
            after[name] = edited(lines, dice, "upstream", dice.randint(0, 4))
    return after


def patched(
    files: dict[str, list[bytes]], dice: random.Random, label: str
) -> dict[str, list[bytes]]:
    """Do what a patch does: edit one to three files, and now and then add, rename, delete."""
    after = dict(files)
    for path in dice.sample(sorted(after), min(len(after), dice.randint(1, 3))):
        fate = dice.random()
        if fate < 0.07:
            del after[path]
        elif fate < 0.14:
            after[f"{path}-{label}"] = edited(after.pop(path), dice, label, 1)
        else:
            after[path] = edited(after[path], dice, label, dice.randint(1, 2))
    if dice.random() < 0.2:
        after[f"net/new-{label}.c"] = numbered(label, 5)
    return after


def joined(files: dict[str, list[bytes]]) -> Files:
    return {path: b"".join(lines) for path, lines in files.items()}


def compare(root: Path, seed: int, *, hidden: bool = False) -> list[PatchState]:
    """Port a random series both ways; return what became of its patches.

    With ``hidden`` ours does not get to know the blobs the patches were made on.
    """
    dice = random.Random(seed)
    toys = ToyKernels(root)
    base = {path: numbered(path, dice.randint(20, 90)) for path in WORDS}
    toys.kernel("v5.10.262", joined(base))
    kernel = toys.kernel("v6.12.107", joined(drifted(base, dice)))
    toys.describe("e")
    series = []
    for number in range(1, 5):
        after = patched(base, dice, f"patch{number}")
        if after != base:
            series.append(toys.patch(f"e/{number:04}-x.patch", joined(base), joined(after)))
        base = after
    texts = [patch.read_text() for patch in series]
    for patch, said in zip(series, texts, strict=True):
        patch.write_text(said.replace("\nindex ", "\nindex dead") if hidden else said)
    result = toys.rebase(kernel)
    assert result == toys.rebase_by_git(kernel), seed
    for patch, said in zip(series, texts, strict=True):
        patch.write_text(said)
    work = toys.work_tree(kernel)
    ours = kernel.commit
    for outcome, patch in zip(result.outcomes, series, strict=True):
        taken = work.am(patch)
        ours = outcome.commit or ours
        tree = toys.store.git("rev-parse", f"{ours}^{{tree}}")
        assert work.tree == tree, (seed, patch.name, outcome)
        assert taken or outcome.state in {
            PatchState.CONFLICT,
            PatchState.OBSOLETE,
            PatchState.UPSTREAM,
        }, (seed, outcome)
    assert work.tree == result.tree
    return [outcome.state for outcome in result.outcomes]


@pytest.mark.parametrize("seed", range(12))
def test_a_random_series_becomes_the_tree_git_am_makes(tmp_path: Path, seed: int) -> None:
    compare(tmp_path, seed)


@pytest.mark.parametrize("seed", range(4))
def test_a_random_series_with_unknown_blobs_becomes_the_same_tree(
    tmp_path: Path, seed: int
) -> None:
    compare(tmp_path, seed, hidden=True)


@pytest.mark.parametrize("seed", range(100, 125))
def test_a_series_of_lines_that_look_alike_comes_out_as_with_git_alone(
    tmp_path: Path, seed: int
) -> None:
    """States, offsets, conflicts, commits and tree are the same."""
    dice = random.Random(seed)
    toys = ToyKernels(tmp_path)
    words = [b"\n", b"}\n", b"\treturn 0;\n", b"a\n", b"b\n", b"c\n", b"d\n", b"e\n"]
    base = {path: dice.choices(words, k=dice.randint(20, 90)) for path in WORDS}
    toys.kernel("v5.10.262", joined(base))
    kernel = toys.kernel("v6.12.107", joined(drifted(base, dice)))
    toys.describe("e")
    for number in range(1, 9):
        after = patched(base, dice, f"patch{number}")
        if after != base:
            toys.patch(f"e/{number:04}-x.patch", joined(base), joined(after))
        base = after
    result = toys.rebase(kernel)
    assert result.outcomes
    assert result == toys.rebase_by_git(kernel)


def supported() -> list[str]:
    return [str(each.tag) for each in source.supported(Paths.default())]


def left_out(tag: str, paths: Paths, stage: str) -> str:
    """Say why a kernel is not compared on; empty for the default one and for those at hand.

    The soak ('kpw check --stage soak') compares on all, and brings them.
    """
    here = Store.open(paths).tags() if paths.store.exists() else {}
    if stage == "soak" or tag in here or tag == str(source.default_tag(paths)):
        return ""
    return f"{tag} is not imported: 'kpw check --stage soak' or 'kpw fetch {tag}' brings it"


def test_a_kernel_that_is_not_compared_on_is_named(tmp_path: Path) -> None:
    fresh = Paths(Paths.default().repo, tmp_path / "cache", tmp_path / "state")
    default = str(source.default_tag(fresh))
    reasons = [left_out(tag, fresh, "real") for tag in supported() if tag != default]
    assert reasons
    assert all("is not imported" in each for each in reasons)
    compared = [(default, "real"), *((tag, "soak") for tag in supported())]
    assert not any(left_out(tag, fresh, stage) for tag, stage in compared)


def names_of(step: Path | Restore) -> tuple[str, ...]:
    return step.paths if isinstance(step, Restore) else read_patch(step).touched


@pytest.mark.real
@pytest.mark.soak
@pytest.mark.parametrize("tag", supported())
def test_the_real_series_on_a_real_kernel_is_the_tree_git_am_makes_patch_by_patch(
    tmp_path: Path, tag: str, request: pytest.FixtureRequest
) -> None:
    """The index is the whole kernel's; what git am -3 may touch is checked out."""
    paths = Paths.default()
    store = Store.open(paths)
    if reason := left_out(tag, paths, str(request.config.getoption("markexpr"))):
        pytest.skip(reason)
    kernel = source.obtain(paths, tag, repo=None, progress=Silent())
    extensions = load_extensions(paths)
    result = rebase(paths, store, kernel, extensions)
    assert result.applies
    work = WorkTree(tmp_path / "linux", store.environment())
    process.run(["git", "clone", "-q", "-s", "-n", store.path, work.folder], env=work.env)
    steps: list[Path | Restore] = []
    for each in extensions:
        steps += restores_for(each, kernel.tag)
        steps += (path for path, _ in patches_for(each, kernel.tag))
    names = {name for step in steps for name in names_of(step)}
    # A folder and what is in it, or a file of the top level.
    touched = {f"/{name.rpartition('/')[0] or name}" for name in names}
    work.git("sparse-checkout", "set", "--no-cone", *sorted(touched))
    work.git("checkout", "-q", "--detach", kernel.commit)
    ours = kernel.commit
    for step, outcome in zip(steps, result.outcomes, strict=True):
        if isinstance(step, Restore):
            work.restore(str(step.origin), step.paths)
        else:
            assert work.am(step), step
        ours = outcome.commit or ours
        assert work.tree == store.tree_of(ours), step
    assert work.tree == result.tree


@pytest.mark.real
def test_what_a_first_run_brings_is_enough(tmp_path: Path) -> None:
    """A store has the default kernel, and gets what the rebase asks for: it comes to the same."""
    paths = Paths.default()
    whole = Store.open(paths)
    extensions = load_extensions(paths)
    kernel = source.obtain(paths, str(source.default_tag(paths)), repo=None, progress=Silent())
    expected = rebase(paths, whole, kernel, extensions)
    changed = whole.git("diff-tree", "--name-only", kernel.tree, expected.tree).splitlines()
    # Of each kernel only what the series touches: the rest takes a minute and a half to copy.
    tops = ("Makefile", *changed)
    few = Paths(paths.repo, tmp_path / "cache", tmp_path / "state")
    store = Store.open(few)

    def brought(tag: KernelTag) -> Kernel:
        origin = source.obtain(paths, str(tag), repo=None, progress=Silent())
        tree = whole.git("mktree", input=whole.git("ls-tree", origin.tree, *tops).encode())
        commit = whole.git("commit-tree", "-m", str(tag), tree)
        store.git("fetch", "--quiet", whole.path, f"{commit}:refs/tags/{tag}")
        there = store.kernel(str(tag))
        assert there is not None
        return there

    done = rebase(few, store, brought(kernel.tag), extensions, obtain_base=brought)
    assert done.applies
    assert store.git("ls-tree", done.tree) == whole.git("ls-tree", expected.tree, *tops)
