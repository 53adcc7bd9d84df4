# SPDX-License-Identifier: GPL-2.0-only
"""Two rebased series beside each other: what is paired, and what is said of each pair."""

from __future__ import annotations

import io
import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy_kernel import ToyKernels, numbered

from workbench import cli, rangediff, report_diff, source
from workbench.errors import ExitCode
from workbench.paths import Paths
from workbench.rangediff import PairState

if TYPE_CHECKING:
    from toy_kernel import Files

    from workbench.model import Kernel
    from workbench.rangediff import Pair

REPO = Path(__file__).resolve().parents[2]
OLD = "v5.10.262"
NEW = "v6.1.187"


def text(*lines: bytes, word: str = "net") -> bytes:
    """Return a file of forty lines with some in the middle."""
    body = numbered(word, 40)
    return b"".join([*body[:20], *lines, *body[20:]])


@pytest.fixture
def toys(tmp_path: Path) -> ToyKernels:
    toys = ToyKernels(tmp_path)
    toys.describe("alpha")
    return toys


def compared(toys: ToyKernels, a: Kernel, b: Kernel, only: str | None = None) -> tuple[Pair, ...]:
    return rangediff.compare(toys.store, toys.rebase(a), toys.rebase(b), only)


def states(pairs: tuple[Pair, ...]) -> list[tuple[str, str]]:
    return [(pair.outcome.patch, str(pair.state)) for pair in pairs]


def shown(toys: ToyKernels, a: Kernel, b: Kernel) -> str:
    stream = io.StringIO()
    series = toys.rebase(a), toys.rebase(b)
    report_diff.show(series, rangediff.compare(toys.store, *series), stream)
    return stream.getvalue()


def test_a_patch_that_only_moved_is_the_same(toys: ToyKernels) -> None:
    toys.patch("alpha/0001-one.patch", {"f": text()}, {"f": text(b"new\n")})
    a = toys.kernel(OLD, {"f": text()})
    b = toys.kernel(NEW, {"f": b"moved\n" * 5 + text()})
    (pair,) = compared(toys, a, b)
    assert (pair.state, pair.text) == (PairState.SAME, "")


def test_a_patch_in_other_surroundings_is_changed_and_the_text_says_where(
    toys: ToyKernels,
) -> None:
    before: Files = {"f": text(), "g": text(word="g")}
    middle: Files = {"f": text(b"new\n"), "g": text(word="g")}
    toys.patch("alpha/0001-one.patch", before, middle)
    toys.patch("alpha/0002-two.patch", middle, middle | {"g": text(b"two\n", word="g")})
    a = toys.kernel(OLD, before)
    b = toys.kernel(NEW, before | {"f": text().replace(b"net net 0019 net", b"net other")})
    pairs = compared(toys, a, b)
    assert states(pairs) == [("0001-one.patch", "changed"), ("0002-two.patch", "same")]
    lines = pairs[0].text.split("\n")
    assert "- net net 0019 net" in lines
    assert "+ net other" in lines
    assert lines[0].startswith("@@ ")


def test_a_variant_with_nothing_in_common_is_still_the_same_patch(toys: ToyKernels) -> None:
    files: Files = {"f": text(), "g": text(word="g")}
    toys.patch("alpha/0001-one.patch", files, files | {"f": text(*numbered("a", 30))})
    other = files | {"g": text(*numbered("b", 30), word="g")}
    toys.patch("alpha/since-v6.1/0001-wholly-other.patch", files, other)
    toys.describe("alpha", f'[variants."v6.1"]\nbase = "{NEW}"\n')
    a, b = toys.kernel(OLD, files), toys.kernel(NEW, files)
    (pair,) = compared(toys, a, b)
    assert pair.state is PairState.CHANGED
    assert pair.a is not None
    assert (pair.a.patch, pair.outcome.patch) == (
        "0001-one.patch",
        "since-v6.1/0001-wholly-other.patch",
    )
    assert "++b b 0030 b" in pair.text.split("\n")
    assert f"changed (0001-one.patch on {OLD})" in shown(toys, a, b)


def test_what_upstream_has_is_only_on_the_other(toys: ToyKernels) -> None:
    done: Files = {"f": text(b"new\n")}
    toys.patch("alpha/0001-one.patch", {"f": text()}, done)
    toys.patch("alpha/0002-two.patch", done, {"f": text(b"new\n", b"newer\n")})
    a, b = toys.kernel(OLD, {"f": text()}), toys.kernel(NEW, done)
    assert states(compared(toys, a, b)) == [
        ("0001-one.patch", "only-a"),
        ("0002-two.patch", "same"),
    ]
    assert states(compared(toys, b, a))[0] == ("0001-one.patch", "only-b")
    assert f"only on {OLD}; already upstream on {NEW}" in shown(toys, a, b)


def test_a_patch_that_only_a_variant_folder_has(toys: ToyKernels) -> None:
    files: Files = {"f": text(), "g": text(word="g")}
    after = files | {"f": text(b"new\n")}
    toys.patch("alpha/0001-one.patch", files, after)
    toys.patch("alpha/since-v6.1/0002-two.patch", after, after | {"g": b"two\n"})
    toys.describe("alpha", f'[variants."v6.1"]\nbase = "{NEW}"\n')
    a, b = toys.kernel(OLD, files), toys.kernel(NEW, files)
    pairs = compared(toys, a, b)
    assert [pair.state for pair in pairs] == [PairState.SAME, PairState.ONLY_B]
    assert pairs[1].a is None
    assert f"only on {NEW}; no patch for {OLD}" in shown(toys, a, b)


def test_the_rest_is_compared_when_one_conflicts(toys: ToyKernels) -> None:
    files: Files = {"f": text(b"here\n"), "g": text(word="g")}
    middle = files | {"f": text(b"there\n")}
    toys.patch("alpha/0001-one.patch", files, middle)
    toys.patch("alpha/0002-two.patch", middle, middle | {"g": text(b"two\n", word="g")})
    a = toys.kernel(OLD, files)
    b = toys.kernel(NEW, files | {"f": text(b"elsewhere\n")})
    pairs = compared(toys, a, b)
    assert [(pair.state, pair.conflicts) for pair in pairs] == [
        (PairState.ONLY_A, True),
        (PairState.SAME, False),
    ]
    said = shown(toys, a, b)
    assert f"only on {OLD}; conflict on {NEW}" in said
    assert f"{NEW}: alpha/0001-one.patch conflicts at f:21" in said
    assert said.splitlines()[-1].endswith("1 only-a, 1 same")


def test_one_extension_alone(toys: ToyKernels) -> None:
    files: Files = {"f": text(), "g": text(word="g")}
    toys.patch("alpha/0001-one.patch", files, files | {"f": text(b"new\n")})
    toys.describe("beta")
    toys.patch("beta/0001-two.patch", files, files | {"g": text(b"two\n", word="g")})
    a, b = toys.kernel(OLD, files), toys.kernel(NEW, files)
    assert [pair.extension for pair in compared(toys, a, b)] == ["alpha", "beta"]
    assert [pair.extension for pair in compared(toys, a, b, "beta")] == ["beta"]


def test_the_document_has_every_pair_with_its_text(toys: ToyKernels) -> None:
    files: Files = {"f": text()}
    toys.patch("alpha/0001-one.patch", files, {"f": text(b"new\n")})
    a = toys.kernel(OLD, files)
    b = toys.kernel(NEW, {"f": text().replace(b"net net 0019 net", b"net other")})
    series = toys.rebase(a), toys.rebase(b)
    pairs = rangediff.compare(toys.store, *series)
    data = report_diff.as_data(series, pairs, 0)
    (pair,) = data["pairs"]
    assert (pair["extension"], pair["patch"], pair["state"]) == (
        "alpha",
        "0001-one.patch",
        "changed",
    )
    assert pair["text"] == pairs[0].text != ""
    assert pair["a"]["commit"] == series[0].outcomes[0].commit
    assert (data["a"]["kernel"], data["b"]["tree"]) == (OLD, series[1].tree)


def test_what_a_patch_holds_does_not_steer_the_terminal(toys: ToyKernels) -> None:
    files: Files = {"f": text()}
    toys.patch("alpha/0001-one.patch", files, {"f": text(b"\x1b[2Jnew\n")})
    a = toys.kernel(OLD, files)
    b = toys.kernel(NEW, {"f": text().replace(b"net net 0019 net", b"net other")})
    assert "\x1b" not in shown(toys, a, b)


def test_the_verbs_exit_codes(
    toys: ToyKernels, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Paths, "default", classmethod(lambda _: toys.paths))
    monkeypatch.setattr(source, "obtain", lambda _, name, **__: toys.store.kernel(name))
    files: Files = {"f": text(b"here\n"), "g": text(word="g")}
    toys.patch("alpha/0001-one.patch", files, files | {"f": text(b"there\n")})
    toys.describe("beta")
    toys.patch("beta/0001-two.patch", files, files | {"g": text(b"two\n", word="g")})
    toys.kernel(OLD, files)
    toys.kernel(NEW, files | {"f": text(b"elsewhere\n")})
    shutil.copy(REPO / "patches" / "kernels.toml", toys.paths.patches)
    assert cli.main(["diff", OLD, NEW, "--json"]) == ExitCode.CONFLICT
    assert json.loads(capsys.readouterr().out)["exit_code"] == ExitCode.CONFLICT
    assert cli.main(["diff", OLD, NEW, "beta"]) == ExitCode.GOOD
    assert cli.main(["diff", OLD, OLD]) == ExitCode.GOOD
    capsys.readouterr()
    assert cli.main(["diff", OLD, "v6.1.i87"]) == ExitCode.USAGE
    assert f"did you mean {NEW!r}" in capsys.readouterr().err
    assert cli.main(["diff", OLD, NEW, "bata"]) == ExitCode.USAGE
    assert "did you mean 'beta'" in capsys.readouterr().err
