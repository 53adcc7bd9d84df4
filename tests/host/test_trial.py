# SPDX-License-Identifier: GPL-2.0-only
"""The steps of a trial with everything real replaced: what flows on, and what stops."""

from __future__ import annotations

import itertools
import json
import os
import re
import signal
import threading
import time
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from workbench import (
    accel,
    atomic,
    build,
    campaign,
    history,
    image,
    interrupt,
    rebase,
    report_html,
    report_json,
    selftest,
    source,
    trial,
)
from workbench.declared import Extension
from workbench.errors import InfraError, UsageError
from workbench.image import GuestImage
from workbench.model import (
    BuildFailure,
    BuiltKernel,
    Conflict,
    Kernel,
    KernelTag,
    PatchOutcome,
    PatchState,
    RebasedSeries,
    SelftestReport,
    SelftestResult,
    Splat,
    SplatKind,
    TestKind,
)
from workbench.order import Order, Outputs, Red
from workbench.paths import Paths
from workbench.progress import Silent
from workbench.suite import Suite
from workbench.trial import Bench, Plan
from workbench.verdict import CellState, RunReport, Trial

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.gitstore import Store

TAG = KernelTag(6, 12, 1)
IMAGE = GuestImage(Path("root"), Path("lock"), "digest")
KERNEL = Kernel("v6.12.1", TAG, "commit", "plain-tree")


def extension(name: str, tmp: Path, *requires: str, upstream: bool = False) -> Extension:
    return Extension(
        name,
        name,
        "",
        TAG,
        () if upstream else (tmp / f"{name}.patch",),
        upstream_since=(TAG,) if upstream else (),
        requires=requires,
    )


@dataclass
class World:
    """What the steps find, and what they were asked for."""

    conflicts: set[str] = field(default_factory=set)
    remembered: set[str] = field(default_factory=set)
    broken: set[str] = field(default_factory=set)
    passes_unpatched: set[str] = field(default_factory=set)
    asked: list[str] = field(default_factory=list)
    image: GuestImage = IMAGE
    ends: dict[str, BaseException] = field(default_factory=dict)
    repo: Path | None = None

    def rebase(
        self, _p: Paths, _s: Store, kernel: Kernel, kept: Sequence[Extension], _pr: object,
        *, repo: Path | None,
    ) -> RebasedSeries:  # fmt: skip
        self.repo = repo
        names = tuple(each.name for each in kept)
        self.asked.append(f"rebase {'+'.join(names)}")
        outcomes = tuple(
            PatchOutcome(
                each.name,
                "p",
                "s",
                self.state(each.name),
                detail="boo",
            )
            for each in kept
            if each.patches
        )
        return RebasedSeries(kernel, names, outcomes, "c", "+".join(names), "ref")

    def state(self, name: str) -> PatchState:
        if name in self.conflicts:
            return PatchState.CONFLICT
        return PatchState.REMEMBERED if name in self.remembered else PatchState.CLEAN

    def build(
        self, _p: Paths, _s: Store, request: build.BuildRequest, _pr: object
    ) -> BuiltKernel | BuildFailure:
        self.asked.append(f"build {request.tree}")
        if request.kernel.name in self.ends:
            raise self.ends[request.kernel.name]
        if request.tree in self.broken:
            return BuildFailure(request.kernel, request.tree, "plain", "a.c:1: error: x")
        file = _p.cache
        key = f"key-{request.tree}"
        return BuiltKernel(
            key, request.kernel, request.tree, "plain", file, file, file, "r", 1.0, cached=False
        )

    def run(
        self, _lab: object, kernel: BuiltKernel, selection: selftest.Selection, _f: Path
    ) -> tuple[SelftestReport, ...]:
        self.asked.append(f"test {kernel.tree}: {'+'.join(selection.extensions)}")
        patched = kernel.tree != KERNEL.tree
        results = tuple(self.result(name, patched=patched) for name in selection.extensions)
        return (
            SelftestReport(
                results, len(results), finished=True, exit_status=0, splats=(),
                boot_seconds=1.0, seconds=2.0,
            ),
        )  # fmt: skip

    def result(self, name: str, *, patched: bool) -> SelftestResult:
        good = patched or name in self.passes_unpatched
        return SelftestResult(
            name,
            f"{name}/test_x.py::test_p",
            TestKind.PROOF,
            "passed" if good else "failed",
            red="old",
            message="" if good else "old",
        )


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    made = World()
    monkeypatch.setattr(rebase, "rebase", made.rebase)
    monkeypatch.setattr(build, "build", made.build)
    monkeypatch.setattr(build, "kernel_key", lambda _p, request: f"key-{request.tree}")
    monkeypatch.setattr(selftest, "run_selftests", made.run)
    monkeypatch.setattr(image, "ensure_image", lambda *_: made.image)
    under = accel.Accelerator("tcg", "max", "TCG: there is no /dev/kvm", 1)
    monkeypatch.setattr(accel, "choose", lambda _paths, _arch: under)
    return made


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    made = Paths(tmp_path / "repo", tmp_path / "cache", tmp_path / "state")
    for name in ("qemu/x86_64.toml", "tests/guest/conftest.py"):
        (made.repo / name).parent.mkdir(parents=True, exist_ok=True)
        (made.repo / name).write_text("")
    return made


def try_it(
    paths: Paths,
    extensions: Sequence[Extension],
    red: Red = Red.REMEMBERED,
    expression: str = "",
    loaded: Sequence[Extension] = (),
) -> Trial:
    # No fake touches the store.
    store: Any = None
    bench = Bench(paths, store, tuple(loaded or extensions), Silent(), paths.state, lambda _: None)
    suite = Suite.read(paths, (each.name for each in extensions))
    plan = Plan(KERNEL, tuple(extensions), suite, "plain", "x86_64", red, expression)
    return trial.run_trial(bench, plan)


def states(made: Trial) -> dict[str, CellState]:
    return {cell.extension: cell.state for cell in made.cells}


def test_red_comes_before_green_and_upstream_has_none(
    world: World, paths: Paths, tmp_path: Path
) -> None:
    made = try_it(paths, [extension("a", tmp_path), extension("u", tmp_path, upstream=True)])
    assert states(made) == {"a": CellState.GREEN, "u": CellState.GREEN}
    assert [cell.upstream for cell in made.cells] == [False, True]
    beside = "test plain-tree: a"
    assert beside in world.asked
    assert [each for each in world.asked if each != beside] == [
        "rebase a+u",
        "build plain-tree",
        "build a+u",
        "test a+u: a+u",
    ]


def test_the_unpatched_guest_runs_beside_the_patched_build_and_guest(
    world: World, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    green = threading.Event()

    def run(
        lab: object, kernel: BuiltKernel, selection: selftest.Selection, folder: Path
    ) -> tuple[SelftestReport, ...]:
        if kernel.tree == KERNEL.tree:
            assert green.wait(30)
        found = world.run(lab, kernel, selection, folder)
        green.set()
        return found

    monkeypatch.setattr(selftest, "run_selftests", run)
    made = try_it(paths, [extension("a", tmp_path)])
    assert states(made) == {"a": CellState.GREEN}
    assert world.asked[-2:] == ["test a: a", "test plain-tree: a"]


@pytest.fixture
def endless_red(world: World, monkeypatch: pytest.MonkeyPatch) -> threading.Event:
    """Let the unpatched guest run until it is given up; return what is set then."""
    ended = threading.Event()

    def run(
        lab: selftest.Lab, kernel: BuiltKernel, selection: selftest.Selection, folder: Path
    ) -> tuple[SelftestReport, ...]:
        if kernel.tree != KERNEL.tree:
            return world.run(lab, kernel, selection, folder)
        assert lab.go_on is not None
        try:
            while True:
                lab.go_on()
                time.sleep(0.001)
        finally:
            ended.set()

    monkeypatch.setattr(selftest, "run_selftests", run)
    return ended


def test_a_patched_build_that_fails_is_told_without_the_red(
    world: World, paths: Paths, tmp_path: Path, endless_red: threading.Event
) -> None:
    world.broken = {"a"}
    made = try_it(paths, [extension("a", tmp_path)])
    assert states(made) == {"a": CellState.BUILD}
    assert endless_red.is_set()


def test_what_ends_the_trial_ends_the_unpatched_guest(
    world: World, paths: Paths, tmp_path: Path, endless_red: threading.Event,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    def interrupted(*given: Any) -> BuiltKernel | BuildFailure:
        if given[2].tree != KERNEL.tree:
            raise KeyboardInterrupt
        return world.build(*given)

    monkeypatch.setattr(build, "build", interrupted)
    with pytest.raises(KeyboardInterrupt):
        try_it(paths, [extension("a", tmp_path)])
    assert endless_red.is_set()


def test_a_fault_of_the_unpatched_guest_is_a_fault_of_the_trial(
    world: World, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run(
        lab: object, kernel: BuiltKernel, selection: selftest.Selection, folder: Path
    ) -> tuple[SelftestReport, ...]:
        if kernel.tree == KERNEL.tree:
            raise InfraError("no QEMU")
        return world.run(lab, kernel, selection, folder)

    monkeypatch.setattr(selftest, "run_selftests", run)
    with pytest.raises(InfraError, match="no QEMU"):
        try_it(paths, [extension("a", tmp_path)])


def test_red_is_remembered_and_prove_asks_anew(world: World, paths: Paths, tmp_path: Path) -> None:
    one = [extension("a", tmp_path)]
    try_it(paths, one)
    world.asked.clear()
    made = try_it(paths, one)
    assert made.cells[0].state is CellState.GREEN
    assert made.cells[0].remembered
    assert "build plain-tree" not in world.asked
    world.asked.clear()
    made = try_it(paths, one, Red.ANEW)
    assert made.red is Red.ANEW
    assert not made.cells[0].remembered
    assert "test plain-tree: a" in world.asked


def test_an_edited_test_makes_the_red_anew(world: World, paths: Paths, tmp_path: Path) -> None:
    one = [extension("a", tmp_path)]
    try_it(paths, one)
    (paths.guest_tests / "conftest.py").write_text("# edited\n")
    world.asked.clear()
    try_it(paths, one)
    assert "test plain-tree: a" in world.asked


def test_a_red_that_is_missing_is_made_for_that_extension_alone(
    world: World, paths: Paths, tmp_path: Path
) -> None:
    both = [extension("a", tmp_path), extension("b", tmp_path)]
    try_it(paths, both[:1])
    world.asked.clear()
    try_it(paths, both)
    assert "test plain-tree: b" in world.asked


def test_a_proof_that_passes_unpatched_is_told_again_from_memory(
    world: World, paths: Paths, tmp_path: Path
) -> None:
    world.passes_unpatched = {"a"}
    for _ in range(2):
        made = try_it(paths, [extension("a", tmp_path)])
        assert states(made) == {"a": CellState.UNPROVEN}
        assert made.exit_code == 1


def test_a_conflict_takes_out_its_extension_and_those_that_require_it(
    world: World, paths: Paths, tmp_path: Path
) -> None:
    world.conflicts = {"a"}
    given = [
        extension("a", tmp_path),
        extension("b", tmp_path, "a"),
        extension("c", tmp_path, "b"),
        extension("d", tmp_path),
    ]
    made = try_it(paths, given)
    assert states(made) == {
        "a": CellState.CONFLICT,
        "b": CellState.CONFLICT,
        "c": CellState.CONFLICT,
        "d": CellState.GREEN,
    }
    assert "requires b" in str(made.cells[2].reasons[0])
    assert made.exit_code == 3
    assert made.series is not None
    assert {each.extension for each in made.series.outcomes} == {"a", "b", "c", "d"}
    assert "build d" in world.asked


def test_a_conflict_of_a_selection_of_extensions_only_is_told_as_that(
    world: World, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ported(*words: Any, **named: Any) -> RebasedSeries:
        series = world.rebase(*words, **named)
        state = PatchState.CONFLICT if series.extensions == ("a", "e") else PatchState.CLEAN
        conflict = Conflict("net/x.c", 1, "content", "", "", "", "run 'kpw resolve'")
        outcomes = (
            replace(each, patch="0001-p.patch", state=state, conflicts=(conflict,))
            if each.extension == "e"
            else each
            for each in series.outcomes
        )
        return replace(series, outcomes=tuple(outcomes))

    monkeypatch.setattr(rebase, "rebase", ported)
    loaded = [extension(name, tmp_path) for name in "ace"]
    made = try_it(paths, (loaded[0], loaded[2]), loaded=loaded)
    assert states(made) == {"a": CellState.GREEN, "e": CellState.CONFLICT}
    (reason,) = made.cells[1].reasons
    assert "kpw resolve" not in str(reason)
    assert "a conflict of this selection of extensions only" in reason.next_step


def test_a_resolution_that_was_remembered_is_judged_like_a_patch_and_told(
    world: World, paths: Paths, tmp_path: Path
) -> None:
    world.remembered = {"a"}
    made = try_it(paths, [extension("a", tmp_path), extension("b", tmp_path)])
    assert states(made) == {"a": CellState.GREEN, "b": CellState.GREEN}
    assert made.notes == ("a/p is in boo",)


def test_nothing_is_built_when_everything_conflicts(
    world: World, paths: Paths, tmp_path: Path
) -> None:
    world.conflicts = {"a"}
    made = try_it(paths, [extension("a", tmp_path)])
    assert states(made) == {"a": CellState.CONFLICT}
    assert world.asked == ["rebase a", "rebase "]


@pytest.mark.parametrize("tree", ["plain-tree", "a+u"])
def test_a_build_that_fails_fails_every_cell(
    world: World, paths: Paths, tmp_path: Path, tree: str
) -> None:
    world.broken = {tree}
    made = try_it(paths, [extension("a", tmp_path), extension("u", tmp_path, upstream=True)])
    assert set(states(made).values()) == {CellState.BUILD}
    assert "a.c:1: error: x" in str(made.cells[0].reasons[0])
    assert made.exit_code == 4
    assert bool(made.notes) is (tree == "plain-tree")


def test_test_asks_for_no_red(world: World, paths: Paths, tmp_path: Path) -> None:
    made = try_it(paths, [extension("a", tmp_path)], Red.NONE)
    assert states(made) == {"a": CellState.GREEN}
    assert "build plain-tree" not in world.asked


def test_a_panic_of_the_unpatched_kernel_between_tests_is_named(
    world: World, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    panic = Splat(SplatKind.PANIC, "Kernel panic - not syncing", "…", 1.0)

    def dies(
        lab: object, kernel: BuiltKernel, selection: selftest.Selection, folder: Path
    ) -> tuple[SelftestReport, ...]:
        (report,) = world.run(lab, kernel, selection, folder)
        if kernel.tree != KERNEL.tree:
            return (report,)
        lost = tuple(result.nodeid for result in report.results)
        return (replace(report, results=(), lost=lost, finished=False, splats=(panic,)),)

    monkeypatch.setattr(selftest, "run_selftests", dies)
    (cell,) = try_it(paths, [extension("a", tmp_path)]).cells
    assert cell.state is CellState.UNPROVEN
    assert "panic outside any test: Kernel panic - not syncing" in str(cell.reasons[0])


def test_an_extension_that_k_left_out_has_no_cell(
    world: World, paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def only_a(
        lab: object, kernel: BuiltKernel, selection: selftest.Selection, folder: Path
    ) -> tuple[SelftestReport, ...]:
        assert selection.expression == "a"
        return world.run(lab, kernel, replace(selection, extensions=wanted), folder)

    monkeypatch.setattr(selftest, "run_selftests", only_a)
    both = [extension("a", tmp_path), extension("b", tmp_path)]
    wanted: tuple[str, ...] = ("a",)
    made = try_it(paths, both, Red.NONE, "a")
    assert states(made) == {"a": CellState.GREEN}
    assert report_json.as_data(RunReport((made,)))["trials"][0]["expression"] == "a"
    wanted = ()
    with pytest.raises(UsageError, match="no selftest matches -k 'a'"):
        try_it(paths, both, Red.NONE, "a")


@pytest.mark.parametrize(
    ("changes", "note"),
    [
        ((), []),
        (("a 1 -> 2",), ["the guest image is not of its lock: a 1 -> 2"]),
        (tuple("abcde"), ["the guest image is not of its lock: a, b, c and 2 more"]),
    ],
)
def test_an_image_that_is_not_of_its_lock_is_told_in_one_note(
    world: World, paths: Paths, tmp_path: Path, changes: tuple[str, ...], note: list[str]
) -> None:
    world.image = replace(world.image, changes=changes)
    made = try_it(paths, [extension("a", tmp_path)])
    assert [each.partition(";")[0] for each in made.notes] == note
    assert made.image == world.image


@pytest.fixture
def kernels(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Let every tag but v9.9 be had; return what was asked for."""
    asked: list[str] = []

    def obtain(_paths: Paths, name: str, *, repo: Path | None, progress: object) -> Kernel:
        del repo, progress
        asked.append(name)
        if name == "v9.9":
            raise UsageError("no such kernel", where=name)
        tag = KernelTag.parse(name)
        return replace(KERNEL, name=str(tag), tag=tag)

    monkeypatch.setattr(source, "obtain", obtain)
    monkeypatch.setattr(source, "default_tag", lambda _paths: "v6.12.1")
    return asked


@pytest.fixture
def one_extension(paths: Paths) -> None:
    folder = paths.patches / "a"
    folder.mkdir(parents=True)
    (folder / "extension.toml").write_text('id = "A"\nsummary = "s"\nbase = "v6.12.1"\n')
    (folder / "0001-x.patch").write_text("")
    for name in ("base", "arch/x86_64", "flavour/debug"):
        file = paths.kconfigs / f"{name}.config"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("")


@pytest.mark.usefixtures("one_extension", "kernels")
def test_the_users_repository_is_asked_for_bases_too(
    paths: Paths, world: World, tmp_path: Path
) -> None:
    campaign.run(paths, Order(("v7.1",), repo=tmp_path / "linux"), Outputs())
    assert world.repo == tmp_path / "linux"


@pytest.mark.usefixtures("world", "one_extension")
def test_a_campaign_goes_over_the_kernels_oldest_first(
    paths: Paths, kernels: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    report = campaign.run(paths, Order(("v7.1", "v5.10", "v7.1")), Outputs())
    assert kernels == ["v7.1", "v5.10"]
    assert [made.kernel.name for made in report.trials] == ["v5.10", "v7.1"]
    assert report.exit_code == 0
    said = capsys.readouterr()
    assert "verdict: GOOD" in said.out
    assert said.err.count("accelerator: TCG: there is no /dev/kvm\n") == 1
    assert report.folder is not None
    assert (report.folder / "report.json").is_file()


@pytest.mark.usefixtures("world", "one_extension")
def test_the_default_tag_is_meant_when_none_is_named(paths: Paths, kernels: list[str]) -> None:
    campaign.run(paths, Order(), Outputs())
    assert kernels == ["v6.12.1"]


@pytest.mark.usefixtures("kernels", "one_extension")
def test_an_unknown_tag_costs_no_trial_and_is_no_run(
    world: World, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError):
        campaign.run(paths, Order(("v5.10", "v9.9")), Outputs())
    assert world.asked == []
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("world", "one_extension")
@pytest.mark.parametrize(
    ("order", "said"),
    [
        (Order(("v5.10", "nonsense")), "nonsense"),
        (Order(("v5.10",), flavour="debgu"), "did you mean 'debug'"),
        (Order(("v5.10",), all_tags=True), "not both"),
    ],
    ids=["tag", "flavour", "all"],
)
def test_a_word_that_means_nothing_is_refused_before_a_download(
    paths: Paths, kernels: list[str], order: Order, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UsageError, match=said):
        campaign.run(paths, order, Outputs())
    assert kernels == []
    assert capsys.readouterr() == ("", "")


@pytest.mark.usefixtures("world", "kernels", "one_extension")
def test_a_kernel_named_twice_in_two_ways_is_tried_once(paths: Paths) -> None:
    report = campaign.run(paths, Order(("v6.12.1", "6.12.1")), Outputs())
    assert [made.kernel.name for made in report.trials] == ["v6.12.1"]


@pytest.mark.usefixtures("kernels", "one_extension")
@pytest.mark.parametrize(
    ("end", "code", "why"),
    [
        (InfraError("the archive is down"), 128, "the archive is down"),
        (UsageError("malformed", where="a.patch"), 2, "a.patch: malformed"),
        (OSError(28, "No space left on device"), 128, "no space left on the disk"),
        (ZeroDivisionError("all wrong"), 128, "an error of the workbench itself: ZeroDivision"),
        (KeyboardInterrupt(), 130, "interrupted"),
        (interrupt.Terminated(15), 143, "terminated"),
    ],
    ids=lambda each: type(each).__name__ if isinstance(each, BaseException) else "",
)
def test_whatever_ends_a_run_what_was_found_is_shown_and_the_rest_is_no_pass(
    world: World, paths: Paths, capsys: pytest.CaptureFixture[str], end: BaseException, code: int,
    why: str,
) -> None:  # fmt: skip
    world.ends["v7.1"] = end
    junit = paths.cache / "junit.xml"
    paths.cache.mkdir(exist_ok=True)
    with pytest.raises(type(end)) as caught:
        campaign.run(paths, Order(("v5.10", "v7.1", "v7.2")), Outputs((("junit", str(junit)),)))
    assert caught.value is end
    said = capsys.readouterr().out
    assert "green 1/1" in said
    assert f"not judged: v7.1, v7.2: the run was broken off: {why}" in said
    assert f"(exit code {code})" in said
    assert "GOOD" not in said
    assert junit.read_text().count("<error") == 2
    (kept,) = paths.runs.glob("*/report.json")
    report = json.loads(kept.read_text())
    assert (report["verdict"], report["exit_code"]) == ("skip", code)
    assert report["broken_off"]["not_judged"] == ["v7.1", "v7.2"]


@pytest.mark.usefixtures("world", "kernels", "one_extension")
def test_a_run_killed_between_trials_leaves_those_it_had_finished(paths: Paths) -> None:
    child = os.fork()
    if child == 0:
        whole, count = trial.run_trial, itertools.count(1)

        def run_trial(bench: Bench, plan: Plan) -> Trial:
            if next(count) == 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return whole(bench, plan)

        try:
            trial.run_trial = run_trial
            campaign.run(paths, Order(("v5.10", "v7.1", "v7.2")), Outputs())
        finally:
            os._exit(1)
    _, status = os.waitpid(child, 0)
    assert os.WTERMSIG(status) == signal.SIGKILL
    (kept,) = paths.runs.glob("*/report.json")
    report = json.loads(kept.read_text())
    assert (report["verdict"], report["exit_code"]) == ("skip", 143)
    assert report["broken_off"] == {
        "why": "it was killed, or is still at work: its end is not on record",
        "not_judged": ["v7.1", "v7.2"],
    }
    assert [(each.kernel, each.proves) for each in history.read(paths)] == [("v5.10", True)]
    page = report_html.render(report_html.columns([report]))
    told = "had not come to its end: it was killed, or is still at work"
    assert told in page
    assert "Not judged: v7.1, v7.2." in page


@pytest.mark.usefixtures("world", "kernels", "one_extension")
def test_the_report_of_a_whole_run_replaces_what_was_kept_between_trials(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    write, kept = atomic.write, []

    def noted(path: Path, data: bytes) -> None:
        write(path, data)
        if path.name == "report.json":
            kept.append(json.loads(path.read_text()))

    monkeypatch.setattr(atomic, "write", noted)
    campaign.run(paths, Order(("v5.10", "v7.1")), Outputs())
    assert [each["verdict"] for each in kept] == ["skip", "skip", "good"]
    assert [len(each["trials"]) for each in kept] == [1, 2, 2]
    assert [bool(each["broken_off"]) for each in kept] == [True, True, False]


@pytest.mark.usefixtures("kernels", "one_extension")
def test_a_run_broken_off_before_its_first_verdict_says_so_in_its_files(
    world: World, paths: Paths
) -> None:
    world.ends["v5.10"] = InfraError("no QEMU")
    ktap = paths.state / "x.ktap"
    ktap.parent.mkdir()
    with pytest.raises(InfraError):
        campaign.run(paths, Order(("v5.10", "v7.1")), Outputs((("ktap", str(ktap)),)))
    assert re.findall("^not ok .*", ktap.read_text(), re.MULTILINE) == [
        "not ok 1 v5.10 # ERROR the run was broken off: no QEMU",
        "not ok 2 v7.1 # ERROR the run was broken off: no QEMU",
    ]


@pytest.mark.usefixtures("kernels", "one_extension")
def test_the_first_ending_goes_on_when_the_reports_cannot_be_written_either(
    world: World, paths: Paths, capsys: pytest.CaptureFixture[str]
) -> None:
    world.ends["v7.1"] = KeyboardInterrupt()
    outputs = Outputs((("json", "/dev/full"),))
    with pytest.raises(KeyboardInterrupt):
        campaign.run(paths, Order(("v5.10", "v7.1")), outputs)
    said = capsys.readouterr()
    assert "green 1/1" in said.out
    assert "not every report could be written: [Errno 28]" in said.err


@pytest.mark.usefixtures("world", "kernels", "one_extension")
def test_a_full_state_disk_keeps_neither_verdict_nor_reports_back(
    paths: Paths, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    write = atomic.write
    junit = paths.state / "junit.xml"

    def full(path: Path, data: bytes) -> None:
        if path.name == "report.json":
            raise OSError(28, "No space left on device", str(path))
        write(path, data)

    monkeypatch.setattr(atomic, "write", full)
    with pytest.raises(OSError, match="No space"):
        campaign.run(paths, Order(("v5.10",)), Outputs((("junit", str(junit)),)))
    assert "verdict: GOOD" in capsys.readouterr().out
    assert junit.exists()
