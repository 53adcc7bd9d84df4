# SPDX-License-Identifier: GPL-2.0-only
"""The same report as a matrix, as JSON, as JUnit and as KTAP."""

from __future__ import annotations

import io
import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from workbench import (
    atomic,
    campaign,
    report_json,
    report_junit,
    report_ktap,
    report_terminal,
)
from workbench.checks import CheckResult, checks
from workbench.commands import prove
from workbench.errors import ExitCode
from workbench.image import GuestImage
from workbench.judge import judge_cell
from workbench.model import (
    BuildFailure,
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
from workbench.order import Outputs, Red
from workbench.prove import Evidence, Proof, ProofState
from workbench.verdict import BrokenOff, Cell, CellState, Reason, RunReport, Trial, Verdict

OLD = Kernel("v5.10.262", KernelTag(5, 10, 262), "a" * 40, "b" * 40, origin="store")
NEW = replace(OLD, name="v6.12.107", tag=KernelTag(6, 12, 107))
PROOF = SelftestResult(
    "ext", "ext/test_x.py::test_p[a#b]", TestKind.PROOF, "passed", "old", seconds=0.5
)
FAILED = SelftestResult(
    "two", "two/test_y.py::test_y", TestKind.CONTROL, "failed", message="no\x1b<&", detail="trace"
)
BROKEN = replace(FAILED, nodeid="two/test_y.py::test_z", outcome="error", message="no device")
SKIPPED = replace(FAILED, nodeid="two/test_y.py::test_s", outcome="skipped", message="Skipped: x")
GOOD = Cell(
    "ext", CellState.GREEN, tests=(PROOF,), proofs=(Proof(PROOF.nodeid, ProofState.RED, "m", "o"),)
)
CELLS = (
    replace(GOOD, remembered=True),
    Cell(
        "two",
        CellState.CRASH,
        (Reason("panic in test_q", "console: /c", "look", "before\nKernel panic"),),
        (FAILED, BROKEN, SKIPPED),
        lost=("two/test_y.py::test_q",),
    ),
    Cell("three", CellState.CONFLICT, (Reason("three/0001 conflicts at a.c:3"),)),
)
GUEST = SelftestReport(
    (PROOF,), 2, finished=False, exit_status=None, boot_seconds=1.0, seconds=4.0,
    splats=(Splat(SplatKind.PANIC, "Kernel panic", "around", 3.0, "two/test_y.py::test_q"),),
    accelerator="TCG: no /dev/kvm",
)  # fmt: skip
IMAGE = GuestImage(Path("/root"), Path("/lock"), "e" * 64, ("iproute2 6.1 -> 6.2",))
SERIES = RebasedSeries(
    NEW, ("ext",), (PatchOutcome("ext", "0001-x.patch", "x", PatchState.CLEAN, "c" * 40),),
    "c" * 40, "d" * 40, "refs/kpw/x",
)  # fmt: skip
REPORT = RunReport(
    (
        Trial(OLD, "plain", "x86_64", (replace(GOOD, upstream=True, proofs=()),)),
        Trial(NEW, "debug", "x86_64", CELLS, SERIES, None, (GUEST,), ("a note",), image=IMAGE),
    ),
    "2026-11-23T12:00:00+0000",
    12.3,
    Path("/state/runs/1"),
)


def text_of(report: RunReport) -> str:
    stream = io.StringIO()
    report_terminal.show(report, stream)
    return stream.getvalue()


def test_the_matrix_has_a_row_per_extension_and_a_column_per_kernel() -> None:
    said = text_of(REPORT)
    assert re.search(r"extension\s+v5\.10\.262\s+v6\.12\.107", said)
    assert re.search(r"^\s*ext\s+green 1/1\s+green 1/1", said, re.MULTILINE)
    assert re.search(r"upstream\s+red 1/1 \(remembered\)", said)
    assert re.search(r"^\s*two\s+-\s+crash 0/4", said, re.MULTILINE)
    assert re.search(r"^\s*three\s+-\s+conflict\s*$", said, re.MULTILINE)


def test_every_cell_that_is_not_green_has_its_reason_on_a_line_of_its_own() -> None:
    lines = text_of(REPORT).splitlines()
    assert "two on v6.12.107: panic in test_q; console: /c; look" in lines
    at = lines.index("two on v6.12.107: panic in test_q; console: /c; look")
    assert lines[at + 1 : at + 3] == ["    | before", "    | Kernel panic"]
    assert "three on v6.12.107: three/0001 conflicts at a.c:3" in lines
    assert "note: v6.12.107: a note" in lines
    assert "verdict: BAD (exit code 5), 12.3 s, kept in /state/runs/1" in lines


def test_a_reason_of_several_cells_is_told_once() -> None:
    broken, own = Reason("a.c:1: error", excerpt="gcc said"), Reason("no such symbol")
    cells = [
        Cell("one", CellState.BUILD, (broken,)),
        Cell("two", CellState.BUILD, (broken, own)),
        Cell("three", CellState.BUILD, (broken, own)),
    ]
    said = text_of(RunReport((Trial(NEW, "plain", "x", tuple(cells)),)))
    assert said.count("a.c:1: error") == said.count("gcc said") == 1
    lines = said.splitlines()
    assert f"every extension on {NEW.name}: a.c:1: error" in lines
    assert f"two, three on {NEW.name}: no such symbol" in lines


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize(("no_color", "coloured"), [("", True), ("1", False)])
def test_no_color_is_respected(
    monkeypatch: pytest.MonkeyPatch, no_color: str, *, coloured: bool
) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("NO_COLOR", no_color)
    if not no_color:
        monkeypatch.delenv("NO_COLOR")
    stream = Terminal()
    report_terminal.show(REPORT, stream)
    assert ("\x1b[32m" in stream.getvalue()) is coloured


def test_a_pipe_gets_no_escape_codes() -> None:
    assert "\x1b" not in text_of(REPORT)


def test_every_cell_that_is_not_green_has_a_check_that_did_not_pass() -> None:
    for state in CellState:
        cell = Cell("x", state, (Reason("why"),) if state is not CellState.GREEN else ())
        bad = [each for each in checks(cell) if each.result is not CheckResult.PASS]
        assert bool(bad) is (state is not CellState.GREEN)


def test_what_a_guest_says_cannot_steer_the_terminal() -> None:
    evil = "\x1b]0;owned\x07\x9b2J\r"
    why = Reason(f"panic: {evil}", f"console: {evil}", evil, f"line one {evil}\nline two")
    trial = Trial(
        NEW, "plain", "x", (Cell("two", CellState.CRASH, (why,)),), notes=(f"a note {evil}",)
    )
    broken = BrokenOff(f"QEMU said {evil}", ExitCode.INFRA, ("v7.1",))
    report = RunReport((trial,), broken_off=broken)
    said = text_of(report)
    assert "".join(char for char in said if not char.isprintable() and char != "\n") == ""
    assert "    | line two" in said.splitlines()
    ET.fromstring(report_terminal.render_svg(report))  # noqa: S314 - our own document


def test_a_proofs_message_cannot_steer_the_terminal() -> None:
    proof = Proof(PROOF.nodeid, ProofState.OTHER, "\x1b[2J", "old")
    (line,) = prove.proof_lines(
        RunReport((Trial(NEW, "plain", "x", (replace(GOOD, proofs=(proof,)),)),))
    )
    assert line.isprintable()


def test_json_says_it_all() -> None:
    data = json.loads(report_json.render(REPORT))
    assert (data["kpw"], data["verdict"], data["exit_code"]) == (1, "bad", 5)
    trial = data["trials"][1]
    assert trial["kernel"] == "v6.12.107"
    series = REPORT.trials[1].series
    assert series is not None
    assert (trial["tree"], trial["red"]) == (series.tree, "none")
    assert trial["patches"][0]["state"] == "clean"
    assert trial["guests"][0]["accelerator"] == "TCG: no /dev/kvm"
    assert trial["image"] == {"digest": "e" * 64, "changes": ["iproute2 6.1 -> 6.2"]}
    assert data["trials"][0]["image"] is None
    assert trial["guests"][0]["splats"][0]["test"] == "two/test_y.py::test_q"
    ext, two, three = trial["cells"]
    assert ext["proofs"][0]["state"] == "red for the stated reason"
    assert ext["red_remembered"]
    assert two["reasons"] == [
        {
            "what": "panic in test_q",
            "where": "console: /c",
            "next_step": "look",
            "excerpt": "before\nKernel panic",
        }
    ]
    assert two["lost"] == ["two/test_y.py::test_q"]
    assert three["state"] == "conflict"


def test_json_of_a_failed_build() -> None:
    failure = BuildFailure(NEW, "t", "plain", "a.c:1: error", "excerpt", Path("/log"))
    data = report_json.as_data(RunReport((Trial(NEW, "plain", "x", (), build=failure),)))
    assert data["trials"][0]["build"] == {
        "failed": "a.c:1: error",
        "excerpt": "excerpt",
        "log": "/log",
    }


def test_the_picture_says_what_the_terminal_says_and_loads_nothing() -> None:
    picture = report_terminal.render_svg(REPORT)
    words = " ".join("".join(text.itertext()) for text in ET.fromstring(picture).iter())  # noqa: S314 - our own document
    for trial in REPORT.trials:
        for cell in trial.cells:
            assert cell.extension in words
    assert "url(" not in picture.replace("url(#", "")


@pytest.mark.parametrize(
    ("red", "verb"), [(Red.NONE, "test"), (Red.REMEMBERED, "run"), (Red.ANEW, "prove")]
)
def test_the_picture_names_the_verb_that_ran(red: Red, verb: str) -> None:
    report = replace(REPORT, trials=tuple(replace(trial, red=red) for trial in REPORT.trials))
    assert f">tools/kpw&#160;{verb}</text>" in report_terminal.render_svg(report)


def test_the_picture_of_a_run_without_a_trial_can_be_drawn() -> None:
    assert "tools/kpw&#160;run" in report_terminal.render_svg(replace(REPORT, trials=()))


def test_junit_keeps_error_apart_from_failure() -> None:
    root = ET.fromstring(report_junit.render(REPORT))  # noqa: S314 - our own document
    suites = {suite.get("name"): suite for suite in root.iter("testsuite")}
    assert set(suites) == {"v5.10.262.ext", *(f"v6.12.107.{n}" for n in ("ext", "two", "three"))}
    two = suites["v6.12.107.two"]
    cases = {case.get("name"): [child.tag for child in case] for case in two.iter("testcase")}
    assert cases == {
        "test_y.py::test_y": ["failure"],
        "test_y.py::test_z": ["error"],
        "test_y.py::test_s": ["skipped"],
        "test_y.py::test_q": ["error"],
        "crash": ["error"],
    }
    assert (two.get("failures"), two.get("errors"), two.get("skipped")) == ("1", "3", "1")
    assert suites["v6.12.107.three"].get("errors") == "1"
    assert suites["v6.12.107.ext"].get("tests") == "2"


def test_ktap_plans_count_and_every_parent_says_what_its_children_came_to() -> None:
    lines = report_ktap.render(REPORT).splitlines()
    assert lines[0] == "KTAP version 1"
    assert lines[1] == "1..2"
    for at, line in enumerate(lines):
        plan = re.fullmatch(r"( *)1\.\.(\d+)", line)
        if plan:
            depth = plan[1]
            rest = lines[at + 1 :]
            inside = []
            for other in rest:
                if not other.startswith(depth):
                    break
                if re.match(rf"{depth}(not )?ok \d+ ", other):
                    inside.append(other)
            assert len(inside) == int(plan[2])
    assert "ok 1 v5.10.262" in lines
    assert "not ok 2 v6.12.107" in lines
    assert "  ok 1 ext" in lines
    assert "  not ok 2 two" in lines
    assert r"    ok 1 test_x.py::test_p[a\#b]" in lines
    assert "    ok 2 red: test_x.py::test_p[a\\#b]" in lines
    assert "    not ok 2 test_y.py::test_z # ERROR no device" in lines
    assert "    ok 3 test_y.py::test_s # SKIP Skipped: x" in lines


def judged(*results: SelftestResult, **more: Any) -> Cell:
    """Judge extension "two" by what a guest said, all its tests being controls."""
    report = replace(GUEST, results=results, finished=True, exit_status=0, splats=())
    return judge_cell("two", replace(report, **more), None, upstream=False)


def errors_of(cell: Cell) -> list[tuple[str | None, str, str]]:
    """Return the errors that JUnit has of a cell: (name, message, text)."""
    root = ET.fromstring(report_junit.render(RunReport((Trial(NEW, "plain", "x", (cell,)),))))  # noqa: S314 - our own document
    cases = [(case.get("name"), case.find("error")) for case in root.iter("testcase")]
    return [(name, e.get("message", ""), e.text or "") for name, e in cases if e is not None]


WARN = Splat(
    SplatKind.WARN, "WARNING: a.c:1", "cut here\n\x1b[31mWARNING: a.c:1", 1.0, SKIPPED.nodeid
)


def test_a_warn_is_an_error_of_its_own_beside_a_test_that_failed() -> None:
    again = replace(WARN, line="WARNING: b.c:2")
    ((one, said, text), (two, *_)) = errors_of(judged(FAILED, splats=(WARN, again)))
    assert (one, two) == ("crash", "crash 2")
    assert said == "WARN in test_y.py::test_s: WARNING: a.c:1"
    assert text.endswith("cut here\n\ufffd[31mWARNING: a.c:1")


def test_a_panic_is_told_with_its_kind_and_its_console_beside_the_tests_it_cost() -> None:
    panic = replace(WARN, kind=SplatKind.PANIC, line="Kernel panic - not syncing")
    cell = judged(lost=(SKIPPED.nodeid,), finished=False, splats=(panic,))
    lost, crash = errors_of(cell)
    assert lost[:2] == (
        "test_y.py::test_s",
        "has no result: the guest's session was cut short",
    )
    assert crash[:2] == ("crash", "panic in test_y.py::test_s: Kernel panic - not syncing")
    lines = report_ktap.render(RunReport((Trial(NEW, "plain", "x", (cell,)),))).splitlines()
    at = lines.index(f"    not ok 2 crash # ERROR {crash[1]}")
    assert lines[at - 2 : at] == ["      # cut here", "      # \ufffd[31mWARNING: a.c:1"]


def test_a_skip_that_leaves_nothing_proven_is_an_error_too() -> None:
    assert [name for name, *_ in errors_of(judged(FAILED, SKIPPED))] == ["red"]


def test_what_a_tests_own_check_says_is_not_said_twice() -> None:
    assert [name for name, *_ in errors_of(judged(BROKEN, FAILED))] == ["test_y.py::test_z"]


def test_a_proof_without_red_says_in_its_own_check_what_ended_that_guest() -> None:
    found = Evidence((), splats=(replace(WARN, kind=SplatKind.OOPS, test=PROOF.nodeid),))
    guest = replace(GUEST, finished=True, exit_status=0, splats=())
    cell = judge_cell("ext", guest, found, upstream=False)
    ((name, said, text),) = errors_of(cell)
    assert name == "red: test_x.py::test_p[a#b]"
    assert "no result on the kernel without the patch: oops in test_x.py::test_p[a#b]" in said
    assert "stated pattern: old" in text
    assert "cut here" in text


def test_files_are_written_and_a_dash_takes_stdout(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report = replace(REPORT, folder=tmp_path)
    outputs = Outputs((("json", "-"), ("junit", str(tmp_path / "j.xml"))))
    campaign.deliver(report, outputs)
    out, err = capsys.readouterr()
    assert json.loads(out)["exit_code"] == 5
    assert "verdict: BAD" in err
    assert (tmp_path / "j.xml").read_text().startswith("<?xml")
    assert json.loads((tmp_path / "report.json").read_text()) == json.loads(out)


def test_a_run_that_was_broken_off_is_good_nowhere() -> None:
    green = REPORT.trials[:1]
    why = "disk #1 is full"
    report = RunReport(green, broken_off=BrokenOff(why, ExitCode.INFRA, ("v6.1.187", NEW.name)))
    assert (report.verdict, report.exit_code) == (Verdict.SKIP, ExitCode.INFRA)
    data = report_json.as_data(report)
    assert (data["verdict"], data["exit_code"]) == ("skip", 128)
    assert data["broken_off"] == {"why": why, "not_judged": ["v6.1.187", NEW.name]}
    said = text_of(report)
    assert f"not judged: v6.1.187, {NEW.name}: the run was broken off: {why}" in said
    assert "verdict: SKIP (exit code 128)" in said
    root = ET.fromstring(report_junit.render(report))  # noqa: S314 - our own document
    lost = [suite for suite in root.iter("testsuite") if suite.get("errors") == "1"]
    assert [suite.get("name") for suite in lost] == ["v6.1.187", NEW.name]
    assert lost[0].find("testcase/error[@message]") is not None
    lines = report_ktap.render(report).splitlines()
    assert lines[1] == "1..3"
    assert r"not ok 2 v6.1.187 # ERROR the run was broken off: disk \#1 is full" in lines
    bad = replace(report, trials=REPORT.trials)
    assert (bad.verdict, bad.exit_code) == (Verdict.BAD, ExitCode.INFRA)


def test_a_run_that_was_broken_off_after_its_last_kernel_is_good_nowhere_either() -> None:
    report = RunReport(REPORT.trials[:1], broken_off=BrokenOff("interrupted", ExitCode.INTERRUPTED))
    assert "the run was broken off: interrupted" in text_of(report)
    assert "verdict: SKIP (exit code 130)" in text_of(report)
    assert report_junit.render(report).count("<error") == 1
    assert "not ok 2 run # ERROR" in report_ktap.render(report)


def test_atomic_leaves_old_or_new_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "x"
    atomic.write(file, b"old")

    def full(_self: Path, _target: Path) -> Path:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(OSError, match="No space") as caught:
        atomic.write(file, b"new")
    assert caught.value.filename == str(file)
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


def test_atomic_follows_a_link_and_writes_through_a_device(tmp_path: Path) -> None:
    (tmp_path / "real").write_bytes(b"")
    (tmp_path / "link").symlink_to("real")
    atomic.write(tmp_path / "link", b"data")
    assert (tmp_path / "link").is_symlink()
    assert (tmp_path / "real").read_bytes() == b"data"
    atomic.write(Path("/dev/null"), b"data")
    assert not Path("/dev/null").is_file()
