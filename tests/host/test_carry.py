# SPDX-License-Identifier: GPL-2.0-only
"""Several kernels at once come out as each by itself."""

from __future__ import annotations

import os
import signal
import threading
from typing import TYPE_CHECKING

import pytest
from toy_kernel import ToyKernels, numbered, offline

from workbench.carry import rebase_all
from workbench.errors import InfraError, UsageError
from workbench.extensions import load_extensions
from workbench.model import PatchState

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.model import Kernel, KernelTag, RebasedSeries

pytest_plugins = ["listening"]

LINES = numbered("a", 40)
BASE = b"".join(LINES)


def carried(toys: ToyKernels, kernels: list[Kernel]) -> list[RebasedSeries]:
    extensions = load_extensions(toys.paths)
    return rebase_all(toys.paths, toys.store, kernels, extensions, obtain_base=offline)


@pytest.fixture
def toys(tmp_path: Path) -> ToyKernels:
    """Give two patches; the second is made on what the first makes."""
    found = ToyKernels(tmp_path)
    found.describe("e")
    once = BASE.replace(b"0020", b"twenty")
    twice = once.replace(b"0022", b"twenty-two")
    found.kernel("v5.10.262", {"net/a.c": BASE})
    found.patch("e/0001-x.patch", {"net/a.c": BASE}, {"net/a.c": once})
    found.patch("e/0002-y.patch", {"net/a.c": once}, {"net/a.c": twice})
    return found


def kernels(toys: ToyKernels) -> list[Kernel]:
    return [
        toys.kernel("v5.15.1", {"net/a.c": BASE}),
        toys.kernel("v6.1.187", {"net/a.c": b"top\n" + BASE}),
        toys.kernel("v6.12.107", {"net/a.c": BASE.replace(b"0018", b"near")}),
        toys.kernel("v6.18.15", {"net/b/a.c": BASE.replace(b"0018", b"near")}),
        toys.kernel("v7.1.13", {"net/a.c": BASE.replace(b"0020", b"upstream")}),
    ]


def test_each_is_as_by_itself_and_in_the_order_asked(toys: ToyKernels) -> None:
    asked = kernels(toys)[::-1]
    done = carried(toys, asked)
    assert done == [toys.rebase(kernel) for kernel in asked]
    assert [series.outcomes[0].state for series in done] == [
        PatchState.CONFLICT,
        PatchState.THREE_WAY,
        PatchState.THREE_WAY,
        PatchState.OFFSET,
        PatchState.CLEAN,
    ]


def unknown_blobs(toys: ToyKernels) -> None:
    """Let the patches name blobs that are nowhere."""
    for patch in (toys.paths.patches / "e").glob("*.patch"):
        patch.write_text(patch.read_text().replace("\nindex ", "\nindex dead"))


def test_patches_of_unknown_blobs_are_as_by_themselves(toys: ToyKernels) -> None:
    unknown_blobs(toys)
    asked = kernels(toys)
    done = carried(toys, asked)
    assert done == [toys.rebase(kernel) for kernel in asked]
    assert {each.inferred_base for series in done for each in series.outcomes} == {"", "v5.10.262"}


def test_none_is_nothing(toys: ToyKernels) -> None:
    assert carried(toys, []) == []


def test_a_malformed_patch_is_told_before_anything_is_tried(toys: ToyKernels) -> None:
    asked = kernels(toys)
    toys.describe("e", '[variants."v7.1"]\nbase = "v7.1.13"\n')
    bad = toys.paths.patches / "e" / "since-v7.1" / "0002-y.patch"
    bad.parent.mkdir()
    bad.write_text("no patch\n")
    with pytest.raises(UsageError, match="since-v7"):
        carried(toys, asked)
    assert toys.store.git("for-each-ref", "refs/kpw/series") == ""


def test_a_fault_on_one_kernel_is_a_fault(toys: ToyKernels) -> None:
    toys.store.git("update-ref", "-d", "refs/tags/v5.10.262")
    asked = kernels(toys)[1:]
    unknown_blobs(toys)
    for name in ("v5.15.1", "v6.1.187"):
        toys.store.git("update-ref", "-d", f"refs/tags/{name}")
    with pytest.raises(InfraError, match="not in the toy store"):
        carried(toys, asked)


@pytest.mark.usefixtures("signals_are_heard")
def test_an_interrupt_does_not_wait_for_a_base_to_come(toys: ToyKernels) -> None:
    asked = kernels(toys)
    toys.store.git("update-ref", "-d", "refs/tags/v5.10.262")
    unknown_blobs(toys)
    waited_out = []

    def obtain(_: KernelTag) -> Kernel:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Event().wait(5)
        waited_out.append(True)
        raise InfraError("too late")

    extensions = load_extensions(toys.paths)
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt):
        rebase_all(toys.paths, toys.store, asked, extensions, obtain_base=obtain)
    assert not waited_out
    assert threading.active_count() == before
