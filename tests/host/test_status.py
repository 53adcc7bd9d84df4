# SPDX-License-Identifier: GPL-2.0-only
"""Where the series stands: only what store, cache and past runs say, and no more."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from toy_kernel import ToyKernels, numbered

from workbench import (
    build,
    cli,
    fragments,
    kernelcache,
    process,
    report_json,
    report_status,
    runs,
    status,
)
from workbench.errors import ExitCode, UsageError
from workbench.extensions import load_extensions, select
from workbench.model import BuildFailure, BuiltKernel, SelftestResult, TestKind
from workbench.order import Red
from workbench.paths import Paths
from workbench.progress import Silent
from workbench.prove import Proof, ProofState
from workbench.rebase import rebase
from workbench.resolving import Desk as ResolveDesk
from workbench.status import Applies, Builds, Proven, Question
from workbench.verdict import Cell, CellState, RunReport, Trial

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.model import Kernel, RebasedSeries
    from workbench.status import KernelStatus, Standing

OLD = "v6.12.38"
FILES: dict[str, bytes | tuple[str, bytes]] = {
    "f": b"".join(numbered("f", 40)),
    "g": b"".join(numbered("g", 40)),
}


def with_line(name: str, line: bytes = b"new\n") -> dict[str, bytes | tuple[str, bytes]]:
    lines = numbered(name, 40)
    return FILES | {name: b"".join([*lines[:20], line, *lines[20:]])}


class Desk:
    """A toy series of two extensions, and what runs left of it."""

    def __init__(self, root: Path) -> None:
        """Lay the series out, and all a build's key is made of."""
        self.toys = ToyKernels(root)
        self.paths = self.toys.paths
        ours = Paths.default()
        shutil.copytree(ours.kconfigs, self.paths.kconfigs)
        shutil.copy(ours.patches / "kernels.toml", self.paths.patches)
        for name, file in (("alpha", "f"), ("beta", "g")):
            self.toys.describe(name, base=OLD)
            self.toys.patch(f"{name}/0001-it.patch", FILES, with_line(file))
        self._runs = 0

    def question(self, *only: str) -> Question:
        chosen = select(load_extensions(self.paths), only)
        return Question(chosen, fragments.PLAIN, "x86_64")

    def look(self, *names: str, only: tuple[str, ...] = ()) -> tuple[KernelStatus, ...]:
        return status.look(self.paths, names or (OLD,), self.question(*only), Silent())

    def cells(self, *only: str) -> dict[str, Standing]:
        (kernel,) = self.look(only=only)
        return {each.extension: each for each in kernel.standings}

    def words(self, *only: str) -> dict[str, str]:
        return {name: str(each.proven) for name, each in self.cells(*only).items()}

    def run(self, trial: Trial, *, forget: tuple[str, ...] = ()) -> Path:
        """Leave a run's report; ``forget`` names of its trial, as old reports lack them."""
        self._runs += 1
        folder = self.paths.runs / f"20260101-0000{self._runs:02}-7"
        folder.mkdir(parents=True)
        started = f"2026-01-01T00:00:{self._runs:02}+0000"
        data = report_json.as_data(RunReport((trial,), started, 1.0, folder))
        for name in forget:
            del data["trials"][0][name]
        (folder / "report.json").write_text(json.dumps(data))
        return folder

    def trial(self, kernel: Kernel, *cells: Cell, series: RebasedSeries | None = None) -> Trial:
        found = series or self.toys.rebase(kernel)
        made = cells or (Cell("alpha", CellState.GREEN), Cell("beta", CellState.GREEN))
        return Trial(kernel, "plain", "x86_64", made, series=found, red=Red.REMEMBERED)

    def key(self, kernel: Kernel) -> str:
        series = self.toys.rebase(kernel)
        request = build.BuildRequest(kernel, series.tree, series.extensions)
        return build.kernel_key(self.paths, request)

    def keep(self, kernel: Kernel) -> BuiltKernel:
        """Put a finished kernel of the present tree into the cache."""
        file = self.toys.root / "made"
        file.write_text("made")
        record = kernelcache.Record(self.key(kernel), "t", "plain", "6.12.38", 1.0, 1, "gcc")
        return kernelcache.keep(
            self.paths, kernel, record, dict.fromkeys(("vmlinux", "config", "build.log"), file)
        )


@pytest.fixture
def desk(tmp_path: Path) -> Desk:
    return Desk(tmp_path)


@pytest.fixture
def kernel(desk: Desk) -> Kernel:
    return desk.toys.kernel(OLD, FILES)


def said(kernels: tuple[KernelStatus, ...]) -> list[str]:
    stream = io.StringIO()
    report_status.show(kernels, stream)
    return stream.getvalue().splitlines()


@pytest.mark.usefixtures("kernel")
def test_nothing_is_claimed_that_is_not_recorded(desk: Desk) -> None:
    (found,) = desk.look()
    assert found.build.state is Builds.NOT_BUILT
    assert {each.applies for each in found.standings} == {Applies.APPLIES}
    assert {each.proven for each in found.standings} == {Proven.NEVER}
    assert not found.is_proven
    assert said((found,))[-1] == "0 of 2 proven on the present trees"


def test_a_run_of_this_tree_proves_it(desk: Desk, kernel: Kernel) -> None:
    folder = desk.run(desk.trial(kernel))
    (found,) = desk.look()
    assert found.is_proven
    judged = found.standings[0].judged
    assert judged is not None
    assert (judged.when, judged.folder) == ("2026-01-01T00:00:01+0000", folder)
    assert any("alpha | applies | proven" in line for line in said((found,)))


def test_a_changed_patch_makes_it_an_older_tree(desk: Desk, kernel: Kernel) -> None:
    before = desk.toys.rebase(kernel)
    desk.run(desk.trial(kernel))
    desk.toys.patch("alpha/0001-it.patch", FILES, with_line("f", b"newer\n"))
    assert desk.words() == {"alpha": "older tree", "beta": "older tree"}
    assert any(
        f"older tree 2026-01-01T00:00:01+0000 | tree {before.tree}" in line
        for line in said(desk.look())
    )
    desk.run(desk.trial(kernel))
    assert desk.words() == {"alpha": "proven", "beta": "proven"}
    desk.toys.patch("alpha/0001-it.patch", FILES, with_line("f"))
    assert desk.words() == {"alpha": "proven", "beta": "proven"}, "the first run was of this tree"


def test_a_newer_red_run_of_this_tree_takes_the_proof_back(desk: Desk, kernel: Kernel) -> None:
    desk.run(desk.trial(kernel))
    red = desk.trial(kernel, Cell("alpha", CellState.CRASH), Cell("beta", CellState.GREEN))
    desk.run(replace(red, red=Red.NONE))
    assert desk.words() == {"alpha": "not green", "beta": "proven"}
    assert any("alpha | applies | crash 2026-01-01T00:00:02" in line for line in said(desk.look()))
    desk.run(desk.trial(kernel))
    assert desk.words() == {"alpha": "proven", "beta": "proven"}


def test_green_alone_proves_nothing(desk: Desk, kernel: Kernel) -> None:
    desk.run(replace(desk.trial(kernel), red=Red.NONE))
    assert desk.words() == {"alpha": "not proven", "beta": "not proven"}


def test_a_few_tests_chosen_by_k_prove_nothing_and_refute_all_the_same(
    desk: Desk, kernel: Kernel
) -> None:
    desk.run(replace(desk.trial(kernel), expression="one"))
    assert desk.words() == {"alpha": "not proven", "beta": "not proven"}
    desk.run(desk.trial(kernel))
    desk.run(replace(desk.trial(kernel), expression="one"))
    assert desk.words() == {"alpha": "proven", "beta": "proven"}
    red = desk.trial(kernel, Cell("alpha", CellState.RED), Cell("beta", CellState.GREEN))
    desk.run(replace(red, expression="one"))
    assert desk.words() == {"alpha": "not green", "beta": "proven"}


@pytest.mark.parametrize("other", [{"flavour": "debug"}, {"arch": "arm64"}])
def test_another_configuration_proves_nothing_here(
    desk: Desk, kernel: Kernel, other: dict[str, str]
) -> None:
    desk.run(replace(desk.trial(kernel), **other))  # type: ignore[arg-type]
    assert desk.words() == {"alpha": "not proven", "beta": "not proven"}


def test_a_part_of_the_series_is_told_as_such(desk: Desk, kernel: Kernel) -> None:
    alone = select(load_extensions(desk.paths), ("alpha",))
    series = rebase(desk.paths, desk.toys.store, kernel, alone)
    desk.run(desk.trial(kernel, Cell("alpha", CellState.GREEN), series=series))
    assert desk.words() == {"alpha": "other extensions", "beta": "not proven"}
    assert desk.words("alpha") == {"alpha": "proven"}


def test_reports_that_name_no_tree_are_known_by_the_build(desk: Desk, kernel: Kernel) -> None:
    built = desk.keep(kernel)
    result = SelftestResult("alpha", "alpha/t.py::t", TestKind.PROOF, "passed")
    proof = Proof(result.nodeid, ProofState.RED, "", "x")
    alpha = Cell("alpha", CellState.GREEN, tests=(result,), proofs=(proof,))
    trial = desk.trial(kernel, alpha, Cell("beta", CellState.GREEN))
    desk.run(replace(trial, build=built), forget=("tree", "red"))
    assert desk.words() == {"alpha": "proven", "beta": "proven"}
    desk.toys.patch("alpha/0001-it.patch", FILES, with_line("f", b"newer\n"))
    assert desk.words() == {"alpha": "older tree", "beta": "older tree"}


def test_another_configuration_of_this_tree_is_told(desk: Desk, kernel: Kernel) -> None:
    built = desk.keep(kernel)
    desk.run(replace(desk.trial(kernel), build=built))
    assert any("| proven 2026" in line for line in said(desk.look()))
    base = desk.paths.kconfigs / "base.config"
    base.write_text(base.read_text() + "CONFIG_TOY=y\n")
    found = desk.look()
    assert any("| proven (other configuration) 2026" in line for line in said(found))
    assert found[0].build.state is Builds.NOT_BUILT


def test_the_cache_says_what_is_built_and_what_failed(desk: Desk, kernel: Kernel) -> None:
    failure = BuildFailure(kernel, "t", "plain", "f.c:1: error: no", "quoted")
    kernelcache.remember_failure(desk.paths, desk.key(kernel), failure)
    (failed,) = desk.look()
    assert (failed.build.state, failed.build.reason) == (Builds.FAILED, "f.c:1: error: no")
    made = desk.keep(kernel)
    os.utime(made.vmlinux.with_name("build.json"), (1000000000, 1000000000))
    (built,) = desk.look()
    assert built.build.state is Builds.BUILT
    assert built.build.when.startswith("2001-09-")
    shutil.rmtree(made.vmlinux.parent)
    assert desk.look()[0].build.state is Builds.NOT_BUILT, "an old failure was mended since"


def test_a_conflict_takes_only_its_extension_out(desk: Desk) -> None:
    clashing = FILES | {"f": b"".join(numbered("f", 20)) + b"other\n"}
    kernel = desk.toys.kernel(OLD, clashing)
    (found,) = desk.look()
    alpha, beta = found.standings
    assert (alpha.applies, beta.applies) == (Applies.CONFLICT, Applies.APPLIES)
    assert "alpha/0001-it.patch conflicts at f:" in alpha.detail
    assert found.series is not None
    alone = select(load_extensions(desk.paths), ("beta",))
    series = rebase(desk.paths, desk.toys.store, kernel, alone)
    assert found.series.tree == series.tree
    cells = Cell("alpha", CellState.CONFLICT), Cell("beta", CellState.GREEN)
    desk.run(desk.trial(kernel, *cells, series=series))
    assert desk.words() == {"alpha": "not proven", "beta": "proven"}


def test_a_kernel_that_is_not_here_is_told_and_not_brought(desk: Desk) -> None:
    (found,) = desk.look("v6.99")
    assert found.series is None
    assert found.note == "not here; 'kpw fetch v6.99' brings it"
    assert {each.applies for each in found.standings} == {Applies.UNKNOWN}
    assert not found.is_proven


@pytest.mark.usefixtures("kernel")
def test_a_mistyped_kernel_is_a_usage_error_with_the_nearest(desk: Desk) -> None:
    with pytest.raises(UsageError, match=r"did you mean 'v6\.12\.38'"):
        desk.look("v6.12.e38")


def test_a_merge_that_needs_a_kernel_elsewhere_is_told(desk: Desk) -> None:
    """The patch's base is not in the store: a rebase would bring it, this does not."""
    desk.toys.describe("alpha", base="v6.1.1")
    desk.toys.kernel(OLD, FILES | {"f": b"".join(numbered("f", 40)).replace(b"f f 0019", b"x")})
    desk.toys.write("alpha/0001-it.patch", _UNKNOWN_BLOBS)
    (found,) = desk.look()
    assert found.series is None
    assert found.note == f"the rebase needs v6.1.1, which is not here; 'kpw rebase {OLD}' brings it"


_UNKNOWN_BLOBS = f"""\
diff --git a/f b/f
index {"1" * 40}..{"2" * 40} 100644
--- a/f
+++ b/f
@@ -18,4 +18,5 @@
 f f 0018 f
 f f 0019 f
 f f 0020 f
+new
 f f 0021 f
"""


def test_a_restore_from_a_kernel_elsewhere_is_told_too(desk: Desk) -> None:
    desk.toys.kernel(OLD, FILES)
    restore = '[[restore]]\nsince = "v6.3"\nfrom = "v6.1.1"\npaths = ["gone.c"]\n'
    desk.toys.describe("alpha", restore, base=OLD)
    (found,) = desk.look()
    assert found.note.startswith("the rebase needs v6.1.1, which is not here")


@pytest.mark.usefixtures("kernel")
def test_a_report_that_cannot_be_read_says_nothing(desk: Desk) -> None:
    folder = desk.paths.runs / "20260101-000001-7"
    folder.mkdir(parents=True)
    (folder / "report.json").write_text('{"started": 3')
    assert desk.words() == {"alpha": "not proven", "beta": "not proven"}


def test_a_proof_outlives_the_logs_of_its_run(desk: Desk, kernel: Kernel) -> None:
    folder = desk.run(desk.trial(kernel))
    (folder / OLD).mkdir()
    (folder / OLD / "console").write_text("much")
    (folder / "more").write_text("more")
    for number in range(runs.KEPT + 1):
        (desk.paths.runs / f"20260102-0000{number:02}-7").mkdir()
    runs.new_run(desk.paths)
    assert [entry.name for entry in folder.iterdir()] == ["report.json"]
    assert desk.words() == {"alpha": "proven", "beta": "proven"}


def test_not_every_report_is_kept_for_ever(
    desk: Desk, kernel: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(runs, "KEPT", 1)
    monkeypatch.setattr(runs, "REPORTS_KEPT", 2)
    folders = [desk.run(desk.trial(kernel)) for _ in range(4)]
    runs.new_run(desk.paths)
    assert [folder.exists() for folder in folders] == [False, False, True, True]


def test_the_document_has_it_all(desk: Desk, kernel: Kernel) -> None:
    series = desk.toys.rebase(kernel)
    desk.run(desk.trial(kernel))
    data = report_status.as_data(desk.look(OLD, "v6.99"), int(ExitCode.GOOD))
    here, away = data["kernels"]
    assert (here["here"], here["tree"], here["proven"]) == (True, series.tree, True)
    assert here["build"]["state"] == "not built"
    alpha = here["extensions"][0]
    assert (alpha["extension"], alpha["applies"], alpha["proven"]) == (
        "alpha",
        "applies",
        "proven",
    )
    assert alpha["run"]["when"] == "2026-01-01T00:00:01+0000"
    assert (away["here"], away["proven"], away["extensions"][0]["applies"]) == (
        False,
        False,
        "unknown",
    )


def test_a_terminal_gets_a_matrix(desk: Desk, kernel: Kernel) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    desk.run(replace(desk.trial(kernel), build=desk.keep(kernel)))
    stream = Terminal()
    report_status.show(desk.look(OLD, "v6.99"), stream)
    text = re.sub(r"\x1b\[[\d;]*m", "", stream.getvalue())
    assert re.search(r"^ alpha +applies +unknown", text, flags=re.MULTILINE)
    assert "proven 01-01 00:00" in text
    assert "v6.99: not here; 'kpw fetch v6.99' brings it" in text


def test_check_is_1_until_all_is_proven(
    desk: Desk, kernel: Kernel, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Paths, "default", classmethod(lambda _: desk.paths))
    assert cli.main(["status", OLD, "--json"]) == ExitCode.GOOD
    assert cli.main(["status", OLD, "--check"]) == ExitCode.RED
    desk.run(desk.trial(kernel))
    assert cli.main(["status", OLD, "--check"]) == ExitCode.GOOD
    assert cli.main(["status", "--check"]) == ExitCode.RED, "all supported ones are not here"
    capsys.readouterr()
    assert cli.main(["status", OLD, "--flavour", "debgu"]) == ExitCode.USAGE
    assert "did you mean 'debug'" in capsys.readouterr().err


@pytest.mark.usefixtures("kernel")
def test_a_patch_by_a_resolution_that_nothing_confirmed_is_not_told_as_one_that_applies(
    desk: Desk,
) -> None:
    young = desk.toys.kernel("v6.12.40", with_line("f", b"upstream\n"))
    bench = ResolveDesk(desk.paths, desk.toys.store, load_extensions(desk.paths))
    found = bench.open(young, *bench.find("alpha/0001", young), Silent())
    (found.tree.folder / "f").write_bytes(b"".join(numbered("f", 40)) + b"resolved\n")
    process.run(["git", "-C", found.tree.folder, "add", "f"])
    assert bench.settle(found, young, Silent()).missing == ()
    (told,) = desk.look(young.name)
    assert [each.applies for each in told.standings] == [Applies.REMEMBERED, Applies.APPLIES]
    assert any("alpha | applies (remembered) | not proven" in line for line in said((told,)))
    red = (Proof("t", ProofState.RED, "", "x"),)
    series = desk.toys.rebase(young)
    desk.run(desk.trial(young, Cell("alpha", CellState.GREEN, proofs=red), series=series))
    (told,) = desk.look(young.name)
    assert [each.applies for each in told.standings] == [Applies.APPLIES, Applies.APPLIES]
