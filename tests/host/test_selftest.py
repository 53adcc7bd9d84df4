# SPDX-License-Identifier: GPL-2.0-only
"""Selftests in a guest: what it is given, how its files are read, and who gets another guest."""

from __future__ import annotations

import ast
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pytest

from workbench import boot, selftest
from workbench.accel import Accelerator
from workbench.boot import GuestRun
from workbench.image import GuestImage
from workbench.model import BuiltKernel, Kernel, KernelTag, SelftestResult, Splat, SplatKind
from workbench.paths import Paths
from workbench.selftest import Lab, Selection
from workbench.suite import Suite

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from workbench.payload import Payload
    from workbench.watch import OnLine

A = "one/test_a.py::test_a"
B = "two/test_b.py::test_b"
C = "two/test_b.py::test_c"


def lines_for(
    collected: list[str],
    passed: list[str],
    *,
    ended: bool,
    running: str = "",
    elsewhere: dict[str, list[str]] | None = None,
) -> bytes:
    """Return what a guest writes that collected and passed these tests."""
    collection: dict[str, object] = {
        "kpw": "collected",
        "nodeids": collected,
        "elsewhere": elsewhere or {},
    }
    said: list[dict[str, object]] = [{"kpw": "boot"}, collection]
    for nodeid in passed:
        said.append({"kpw": "start", "nodeid": nodeid, "deadline": 5})
        said += [
            {
                "$report_type": "TestReport",
                "nodeid": nodeid,
                "when": when,
                "outcome": "passed",
                "user_properties": [["kpw.kind", "control"]],
            }
            for when in ("setup", "call", "teardown")
        ]
    if running:
        said.append({"kpw": "start", "nodeid": running, "deadline": 5})
    if ended:
        said += [{"$report_type": "SessionFinish", "exitstatus": 0}, {"kpw": "exit", "status": 0}]
    return "".join(json.dumps(line) + "\n" for line in said).encode()


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    guest = tmp_path / "repo" / "tests" / "guest"
    for name in ("conftest.py", "one/test_a.py", "two/test_b.py", "bare/readme"):
        (guest / name).parent.mkdir(parents=True, exist_ok=True)
        (guest / name).write_text("")
    return Paths(tmp_path / "repo", tmp_path / "cache", tmp_path / "state")


def suite_of(paths: Paths, *extensions: str) -> Selection:
    return Selection(Suite.read(paths, ("one", "two", "bare")), extensions)


@pytest.fixture
def kernel(tmp_path: Path) -> BuiltKernel:
    upstream = Kernel("v6.12.1", KernelTag(6, 12, 1), "c", "t")
    file = tmp_path / "vmlinux"
    return BuiltKernel(
        "key", upstream, "t", "plain", file, file, file, "6.12.1", seconds=1.0, cached=True
    )


def guest_run(folder: Path, data: bytes, *splats: Splat, finished: bool, console: str) -> GuestRun:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results").write_bytes(data)
    (folder / "console").write_text(console)
    return GuestRun(
        0 if finished else None,
        folder / "results",
        folder / "output",
        folder / "console",
        splats,
        boot_seconds=1.0,
        seconds=3.0,
        finished=finished,
        accelerator=Accelerator("tcg", "max", "TCG: there is no /dev/kvm", 1),
    )


Guest = tuple[bytes, tuple[Splat, ...], bool, str]
Heard = list[tuple[tuple[str, ...], list[float | None]]]


@pytest.fixture
def guests(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Heard]:
    """Let boot() answer with the given guests in turn; tells the payloads and deadlines seen."""

    def install(*answers: Guest) -> Heard:
        seen: Heard = []
        left = list(answers)

        def fake(
            _paths: Paths,
            _kernel: BuiltKernel,
            _image: GuestImage,
            payload: Payload,
            options: boot.BootOptions,
            on_line: OnLine,
        ) -> GuestRun:
            data, splats, finished, console = left.pop(0)
            asked = [on_line(line) for line in data.decode().splitlines()]
            tests = tuple(name for name, _ in payload.files if name != "start.py")
            seen.append((tests, asked))
            assert options.where is not None
            return guest_run(options.where, data, *splats, finished=finished, console=console)

        monkeypatch.setattr(boot, "boot", fake)
        return seen

    return install


def start_of(payload: Payload) -> str:
    """Return what the guest's Python runs."""
    script = dict(payload.files)["start.py"]
    assert isinstance(script, bytes)
    return script.decode()


@pytest.fixture
def lab(paths: Paths, tmp_path: Path) -> tuple[Lab, list[SelftestResult]]:
    heard: list[SelftestResult] = []
    image = GuestImage(tmp_path / "root", tmp_path / "lock", "digest")
    return Lab(paths, image, "x86_64", heard.append), heard


def test_one_guest_that_ends_well(
    lab: tuple[Lab, list[SelftestResult]],
    kernel: BuiltKernel,
    guests: Callable[..., Heard],
    tmp_path: Path,
) -> None:
    seen = guests((lines_for([A, B], [A, B], ended=True), (), True, ""))
    selection = suite_of(lab[0].paths, "one", "two", "bare")
    (report,) = selftest.run_selftests(lab[0], kernel, selection, tmp_path / "run")
    assert report.finished
    assert (report.collected, report.lost, report.splats) == (2, (), ())
    assert [result.nodeid for result in lab[1]] == [A, B]
    # A folder without tests is not given to pytest: it would refuse the whole session.
    assert seen[0][0] == ("tests/conftest.py", "tests/one/test_a.py", "tests/two/test_b.py")
    # While a test runs the host waits for its deadline and a grace.
    assert seen[0][1][2] == 5 + selftest.GRACE
    assert seen[0][1][-1] is None


def test_a_panic_gives_the_others_another_guest(
    lab: tuple[Lab, list[SelftestResult]],
    kernel: BuiltKernel,
    guests: Callable[..., Heard],
    tmp_path: Path,
) -> None:
    panic = Splat(SplatKind.PANIC, "Kernel panic", "", 2.0)
    seen = guests(
        (lines_for([A, B, C], [], ended=False, running=A), (panic,), False, ""),
        (lines_for([B, C], [B, C], ended=True), (), True, ""),
    )
    selection = suite_of(lab[0].paths, "one", "two")
    first, second = selftest.run_selftests(lab[0], kernel, selection, tmp_path / "r")
    assert first.lost == (A, B, C)
    assert first.splats[0].test == A
    assert second.finished
    assert seen[1][0] == ("tests/conftest.py", "tests/two/test_b.py")
    assert selftest.report_for((first, second), "one") is first
    assert selftest.report_for((first, second), "two") is second


def test_a_guest_that_never_came_to_its_tests_is_not_tried_again(
    lab: tuple[Lab, list[SelftestResult]],
    kernel: BuiltKernel,
    guests: Callable[..., Heard],
    tmp_path: Path,
) -> None:
    hang = Splat(SplatKind.HANG, "no sign of life", "", 90.0)
    guests((b"", (hang,), False, ""))
    selection = suite_of(lab[0].paths, "one", "two")
    (report,) = selftest.run_selftests(lab[0], kernel, selection, tmp_path / "r")
    assert report.splats == (hang,)
    assert not report.finished
    assert selftest.report_for((report,), "two") is report


FIPS = "two/test_b.py::test_fips"


@pytest.fixture
def appended(monkeypatch: pytest.MonkeyPatch) -> list[tuple[tuple[str, ...], str]]:
    """Tell the kernel's words and the start.py of each guest; goes around the guests fixture."""
    seen = []
    real = boot.boot

    def spy(*arguments: Any) -> GuestRun:
        payload, options = arguments[3:5]
        seen.append((options.append, start_of(payload)))
        return real(*arguments)

    monkeypatch.setattr(boot, "boot", spy)
    return seen


def test_tests_of_another_boot_get_a_guest_booted_so(
    lab: tuple[Lab, list[SelftestResult]],
    kernel: BuiltKernel,
    guests: Callable[..., Heard],
    request: pytest.FixtureRequest,
    tmp_path: Path,
) -> None:
    seen = guests(
        (lines_for([A, B], [A, B], ended=True, elsewhere={"fips=1 x": [FIPS]}), (), True, ""),
        (lines_for([FIPS], [FIPS], ended=True, elsewhere={"": [B]}), (), True, ""),
    )
    appended = request.getfixturevalue("appended")
    selection = suite_of(lab[0].paths, "one", "two")
    reports = selftest.run_selftests(lab[0], kernel, selection, tmp_path / "r")
    assert [words for words, _ in appended] == [(), ("fips=1", "x")]
    assert "'KPW_BOOT': ''" in appended[0][1]
    assert "'KPW_BOOT': 'fips=1 x'" in appended[1][1]
    assert seen[1][0] == ("tests/conftest.py", "tests/two/test_b.py")
    assert selftest.report_for(reports, "one") is reports[0]
    joined = selftest.report_for(reports, "two")
    assert joined is not None
    assert [result.nodeid for result in joined.results] == [A, B, FIPS]
    assert joined.finished


@pytest.mark.parametrize("snapshot", [False, True], ids=["booted", "restored"])
def test_a_guest_is_told_its_flavour_and_which_there_are(
    lab: tuple[Lab, list[SelftestResult]],
    kernel: BuiltKernel,
    guests: Callable[..., Heard],
    request: pytest.FixtureRequest,
    tmp_path: Path,
    *,
    snapshot: bool,
) -> None:
    folder = lab[0].paths.kconfigs / "flavour"
    folder.mkdir(parents=True)
    for name in ("selinux", "debug"):
        (folder / f"{name}.config").touch()
    guests((lines_for([A], [A], ended=True), (), True, ""))
    appended = request.getfixturevalue("appended")
    there = replace(lab[0], snapshot=snapshot)
    built = replace(kernel, flavour="selinux")
    selftest.run_selftests(there, built, suite_of(lab[0].paths, "one"), tmp_path / "r")
    # In what a restored guest runs, too: its own environment is that of the snapshot's boot.
    assert "'KPW_FLAVOUR': 'selinux'" in appended[0][1]
    assert "'KPW_FLAVOURS': 'plain debug selinux'" in appended[0][1]


def test_a_guest_gets_the_modules_of_its_kernel(
    lab: tuple[Lab, list[SelftestResult]],
    kernel: BuiltKernel,
    guests: Callable[..., Heard],
    tmp_path: Path,
) -> None:
    seen = guests((lines_for([A], [A], ended=True), (), True, ""))
    built = replace(kernel, modules=(tmp_path / "modules" / "cast5_generic.ko",))
    selftest.run_selftests(lab[0], built, suite_of(lab[0].paths, "one"), tmp_path / "r")
    assert seen[0][0][-1] == "modules/cast5_generic.ko"


@pytest.mark.parametrize("said", [b"", lines_for([], [], ended=True)], ids=["died", "silent"])
def test_a_test_of_another_boot_that_nobody_hears_of_is_lost(
    lab: tuple[Lab, list[SelftestResult]],
    kernel: BuiltKernel,
    guests: Callable[..., Heard],
    tmp_path: Path,
    said: bytes,
) -> None:
    guests(
        (lines_for([B], [B], ended=True, elsewhere={"fips=1": [FIPS]}), (), True, ""),
        (said, (), bool(said), ""),
    )
    selection = suite_of(lab[0].paths, "two")
    reports = selftest.run_selftests(lab[0], kernel, selection, tmp_path / "r")
    joined = selftest.report_for(reports, "two")
    assert joined is not None
    assert joined.lost == (FIPS,)
    assert not joined.finished
    assert joined.console == reports[1].console


def test_a_guest_that_ends_without_saying_so_is_not_finished(tmp_path: Path) -> None:
    run = guest_run(tmp_path, lines_for([A], [A], ended=True), finished=False, console="")
    assert not selftest.read_report(run).finished
    run = guest_run(tmp_path, lines_for([A, B], [A], ended=True), finished=True, console="")
    assert not selftest.read_report(run).finished


def test_a_report_says_what_the_guest_ran_under_and_why(tmp_path: Path) -> None:
    run = guest_run(tmp_path, lines_for([A], [A], ended=True), finished=True, console="")
    assert selftest.read_report(run).accelerator == "TCG: there is no /dev/kvm"


def test_no_tests_no_guest(
    lab: tuple[Lab, list[SelftestResult]], kernel: BuiltKernel, tmp_path: Path
) -> None:
    selection = suite_of(lab[0].paths, "bare", "absent")
    assert selftest.run_selftests(lab[0], kernel, selection, tmp_path) == ()


CONSOLE = f"""[    0.5] Linux
[    1.0] kpw: test {A}
[    1.1] WARNING: CPU: 0 PID: 1 at a.c:1
[    1.2] kpw: test {B}
[    1.3] WARNING: CPU: 0 PID: 1 at a.c:1
"""


def test_a_splat_belongs_to_the_test_marked_before_it() -> None:
    line = "WARNING: CPU: 0 PID: 1 at a.c:1"
    splats = tuple(Splat(SplatKind.WARN, line, "", at) for at in (1.1, 1.3))
    told = selftest.attribute(splats, CONSOLE, C)
    assert [splat.test for splat in told] == [A, B]


def test_a_splat_that_is_not_on_the_console_belongs_to_the_test_under_way() -> None:
    hang = Splat(SplatKind.HANG, "no sign of life for 75 s", "", 99.0)
    (told,) = selftest.attribute((hang,), CONSOLE, C)
    assert told.test == C


def test_a_splat_before_any_test_belongs_to_none() -> None:
    (told,) = selftest.attribute((Splat(SplatKind.OOPS, "Linux", "", 0.5),), CONSOLE, "")
    assert told.test == ""


def test_the_expression_reaches_pytest_as_one_word(paths: Paths) -> None:
    expression = "a and not 'b; reboot'"
    script = start_of(selftest.payload(replace(suite_of(paths, "one"), expression=expression)))
    (words,) = [
        ast.literal_eval(statement.value)
        for statement in ast.parse(script).body
        if isinstance(statement, ast.Assign) and ast.unparse(statement.targets[0]) == "sys.argv"
    ]
    assert words[words.index("-k") + 1] == expression
    assert words[-1] == "one"
