# SPDX-License-Identifier: GPL-2.0-only
"""A series in the store: the commits git am would make, under a ref that tells what it is."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy_kernel import MAIL, ToyKernels

from workbench import series
from workbench.errors import InfraError
from workbench.gitapply import Entry
from workbench.mailhead import read_mail

if TYPE_CHECKING:
    from workbench.mailhead import Mail


def mail() -> Mail:
    text = MAIL.format(number=1, subject="a: b", diff="").replace("Alice", "Älice")
    return read_mail(Path("0001-x.patch"), text.encode().splitlines(keepends=True))[0]


def blob(toys: ToyKernels, text: bytes) -> Entry:
    return Entry("100644", toys.store.git("hash-object", "-w", "--stdin", input=text))


def test_a_commit_has_the_patch_s_author_and_nobody_s_name_else(tmp_path: Path) -> None:
    toys = ToyKernels(tmp_path)
    kernel = toys.kernel("v6.12.107", {"a/b": b"1\n", "c": b"2\n"})
    changes = {"a": blob(toys, b"3\n"), "a/b": None, 'new/"x" y': blob(toys, b"4\n")}
    (commit,) = series.write(
        toys.store, kernel, "refs/kpw/series/t/e", [series.Addition(mail(), changes)]
    )
    assert toys.store.resolve("refs/kpw/series/t/e") == commit
    said = toys.store.git("log", "-1", "--date=raw", "--format=%P|%an|%ad|%cn|%cd|%s", commit)
    date = "1234564290 +0100"
    assert said == f"{kernel.commit}|Älice Doe|{date}|Kernel Patch Workbench|{date}|a: b"
    listed = toys.store.git("ls-tree", "-r", "-z", "--name-only", commit).split("\0")
    assert listed == ["Makefile", "a", "c", 'new/"x" y', ""]


def test_a_series_of_nothing_is_the_kernel(tmp_path: Path) -> None:
    toys = ToyKernels(tmp_path)
    kernel = toys.kernel("v6.12.107", {"a": b"1\n"})
    assert series.write(toys.store, kernel, "refs/kpw/series/t/none", []) == ()
    assert toys.store.resolve("refs/kpw/series/t/none") == kernel.commit


def test_a_fault_moves_no_ref(tmp_path: Path) -> None:
    toys = ToyKernels(tmp_path)
    kernel = toys.kernel("v6.12.107", {"a": b"1\n"})
    good = series.Addition(mail(), {"a": blob(toys, b"2\n")})
    bad = series.Addition(mail(), {"a": Entry("100644", "1" * 40)})
    with pytest.raises(InfraError):
        series.write(toys.store, kernel, "refs/kpw/series/t/e", [good, bad])
    assert toys.store.resolve("refs/kpw/series/t/e") is None


def test_the_ref_names_kernel_and_extensions(tmp_path: Path) -> None:
    kernel = ToyKernels(tmp_path).kernel("v6.12.107", {"a": b"1\n"})
    assert series.ref_name(kernel, ["a", "b"]) == "refs/kpw/series/v6.12.107/a+b"
    assert series.ref_name(kernel, []) == "refs/kpw/series/v6.12.107/none"
    many = [f"extension-{number}" for number in range(99)]
    assert len(series.ref_name(kernel, many)) < 60
    assert series.ref_name(kernel, many) != series.ref_name(kernel, many[:-1])
