# SPDX-License-Identifier: GPL-2.0-only
"""What tests/guest/conftest.py demands of a selftest and tells the host of it."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from workbench import process

if TYPE_CHECKING:
    from collections.abc import Callable

GUEST = Path(__file__).resolve().parents[1] / "guest"
Lines = list[dict[str, Any]]

PLACES = ("fixture", "test", "undoing")
TEST_THAT_HANGS = """
@pytest.fixture
def thing():
    {fixture}
    yield
    {undoing}
@pytest.mark.control
@pytest.mark.deadline(1)
def test_a(thing): {test}
@pytest.mark.control
def test_b(): pass
"""


@pytest.fixture
def run(tmp_path: Path) -> Callable[..., Lines]:
    """Give a function that runs tests as the guest does and returns the lines of its report."""

    def report(tests: str, *words: str) -> Lines:
        for name in ("conftest.py", "pytest.ini", "namespaces.py"):
            shutil.copy(GUEST / name, tmp_path / name)
        folder = tmp_path / "some-extension"
        folder.mkdir()
        (folder / "test_it.py").write_text(f"import time, pytest\n{tests}", encoding="utf-8")
        log = tmp_path / "report"
        pytest_itself = [sys.executable, "-B", "-m", "pytest", "-c", "pytest.ini", "--rootdir=."]
        options = ["-p", "no:xdist", "--continue-on-collection-errors", f"--report-log={log}"]
        process.run([*pytest_itself, *options, *words], cwd=tmp_path, check=False)
        return [json.loads(line) for line in log.read_text(encoding="utf-8").splitlines()]

    return report


def reports(lines: Lines, kind: str, **wanted: object) -> Lines:
    """Return the lines of one kind whose fields are as wanted."""
    return [
        line
        for line in lines
        if kind in (line.get("$report_type"), line.get("kpw"))
        and all(line.get(name) == value for name, value in wanted.items())
    ]


def test_a_proof_and_a_control_are_told_apart(run: Callable[[str], Lines]) -> None:
    lines = run(
        "@pytest.mark.proof(red=r'lives \\d+ s')\n"
        "@pytest.mark.deadline(7)\n"
        "def test_a(): assert 0, 'it lives 30 s'\n"
        "@pytest.mark.control\n"
        "def test_b(): pass\n"
    )
    names = ["some-extension/test_it.py::test_a", "some-extension/test_it.py::test_b"]
    [collected] = reports(lines, "collected")
    assert collected["nodeids"] == names
    assert [(test["kind"], test["red"]) for test in collected["tests"]] == [
        ("proof", r"lives \d+ s"),
        ("control", ""),
    ]
    starts = [(line["nodeid"], line["deadline"]) for line in reports(lines, "start")]
    assert starts == [(names[0], 7), (names[1], 60)]
    [failure] = reports(lines, "TestReport", when="call", nodeid=names[0])
    assert failure["longrepr"]["reprcrash"]["message"] == "AssertionError: it lives 30 s"
    assert dict(failure["user_properties"]) == {
        "kpw.kind": "proof",
        "kpw.red": r"lives \d+ s",
        "kpw.extension": "some-extension",
        "kpw.deadline": 7,
    }


@pytest.mark.parametrize(
    ("marks", "said"),
    [
        ("", "mark it with either proof"),
        ("@pytest.mark.control\n@pytest.mark.proof(red='x')\n", "mark it with either proof"),
        ("@pytest.mark.proof\n", "proof wants red="),
        ("@pytest.mark.proof('x')\n", "proof wants red="),
        ("@pytest.mark.proof(red='(')\n", "red is not a regular expression"),
        ("@pytest.mark.control\n@pytest.mark.boot\n", "boot wants the words"),
        ("@pytest.mark.control\n@pytest.mark.boot(' ')\n", "boot wants the words"),
        ("@pytest.mark.control\n@pytest.mark.flavour\n", "flavour wants one name"),
        ("@pytest.mark.control\n@pytest.mark.flavour('a', 'b')\n", "flavour wants one name"),
    ],
)
def test_a_test_that_declares_nothing_sound_is_refused_alone(
    run: Callable[[str], Lines], marks: str, said: str
) -> None:
    lines = run(f"{marks}def test_a(): pass\n@pytest.mark.control\ndef test_b(): pass\n")
    [refused] = reports(lines, "CollectReport", outcome="failed")
    assert refused["nodeid"].endswith("::test_a")
    assert refused["longrepr"].startswith(said)
    assert [line["nodeid"][-6:] for line in reports(lines, "TestReport", when="call")] == ["test_b"]
    [finish] = reports(lines, "SessionFinish")
    assert finish["exitstatus"] == 1


@pytest.mark.parametrize("where", ["fixture", "test", "undoing"])
def test_a_test_that_overstays_is_ended_and_the_next_one_runs(
    run: Callable[[str], Lines], where: str
) -> None:
    naps = {place: "time.sleep(99)" if place == where else "pass" for place in PLACES}
    body = TEST_THAT_HANGS.format(**naps)
    lines = run(f"import conftest\nconftest.LEAST_SECONDS = 1\n{body}")
    [ended] = reports(lines, "TestReport", outcome="failed")
    assert ended["nodeid"].endswith("::test_a")
    assert ended["longrepr"]["reprcrash"]["message"].endswith("no end after 1 s")
    [after] = reports(lines, "TestReport", when="call", nodeid="some-extension/test_it.py::test_b")
    assert after["outcome"] == "passed"


BOOTED_TWICE = """
@pytest.mark.control
@pytest.mark.parametrize("way", [1, pytest.param(2, marks=pytest.mark.boot("fips=1"))])
def test_a(way): pass
@pytest.mark.control
@pytest.mark.boot("fips=1")
def test_b(): pass
"""


@pytest.mark.parametrize(
    ("words", "here"),
    [("", ["test_a[1]"]), ("fips=1", ["test_a[2]", "test_b"]), ("other", [])],
)
def test_a_guest_runs_the_tests_of_its_boot_and_names_the_others(
    run: Callable[[str], Lines], monkeypatch: pytest.MonkeyPatch, words: str, here: list[str]
) -> None:
    monkeypatch.setenv("KPW_BOOT", words)
    lines = run(BOOTED_TWICE)
    [collected] = reports(lines, "collected")
    assert [nodeid.partition("::")[2] for nodeid in collected["nodeids"]] == here
    ran = [line["nodeid"] for line in reports(lines, "TestReport", when="call")]
    assert ran == collected["nodeids"]
    named = {
        boot: [nodeid.partition("::")[2] for nodeid in nodeids]
        for boot, nodeids in collected["elsewhere"].items()
    }
    everything = {"": ["test_a[1]"], "fips=1": ["test_a[2]", "test_b"]}
    assert named == {boot: tests for boot, tests in everything.items() if boot != words}


def test_what_the_expression_leaves_out_asks_for_no_boot(run: Callable[..., Lines]) -> None:
    [collected] = reports(run(BOOTED_TWICE, "-k", "test_a and 1"), "collected")
    assert collected["elsewhere"] == {}


BOUND = """
OF_SELINUX = pytest.mark.flavour("selinux")
@OF_SELINUX
class TestThere:
    @pytest.mark.control
    def test_a(self): pass
    @pytest.mark.control
    @pytest.mark.flavour("!selinux")
    def test_nowhere(self): pass
    @pytest.mark.control
    @pytest.mark.boot("fips=1")
    def test_b(self): pass
@pytest.mark.control
@pytest.mark.flavour("!modules")
@pytest.mark.parametrize("way", [1, pytest.param(2, marks=OF_SELINUX)])
def test_c(way): pass
"""


@pytest.mark.parametrize(
    ("flavour", "here", "elsewhere"),
    [
        ("plain", ["test_c[1]"], {}),
        ("selinux", ["test_a", "test_c[1]", "test_c[2]"], {"fips=1": ["test_b"]}),
        ("modules", [], {}),
    ],
)
def test_a_guest_runs_the_tests_of_its_flavour_and_knows_no_others(
    run: Callable[[str], Lines],
    monkeypatch: pytest.MonkeyPatch,
    flavour: str,
    here: list[str],
    elsewhere: dict[str, list[str]],
) -> None:
    monkeypatch.setenv("KPW_FLAVOUR", flavour)
    monkeypatch.setenv("KPW_FLAVOURS", "plain modules selinux")
    lines = run(BOUND)
    [collected] = reports(lines, "collected")
    assert [nodeid.rpartition("::")[2] for nodeid in collected["nodeids"]] == here
    ran = [line["nodeid"] for line in reports(lines, "TestReport", when="call")]
    assert ran == collected["nodeids"]
    assert not reports(lines, "TestReport", outcome="skipped")
    named = {
        boot: [nodeid.rpartition("::")[2] for nodeid in nodeids]
        for boot, nodeids in collected["elsewhere"].items()
    }
    assert named == elsewhere


def test_without_a_word_of_the_host_the_flavour_is_plain(run: Callable[[str], Lines]) -> None:
    [collected] = reports(run(BOUND), "collected")
    assert [nodeid[-9:] for nodeid in collected["nodeids"]] == ["test_c[1]"]


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("selinxu", "no flavour 'selinxu' in kconfigs/flavour: did you mean 'selinux'?"),
        ("!module", "no flavour 'module' in kconfigs/flavour: did you mean 'modules'?"),
        ("zzz", "no flavour 'zzz' in kconfigs/flavour: known: plain, modules, selinux"),
    ],
)
def test_a_flavour_that_there_is_not_is_refused_in_every_run(
    run: Callable[[str], Lines], monkeypatch: pytest.MonkeyPatch, name: str, said: str
) -> None:
    monkeypatch.setenv("KPW_FLAVOUR", "plain")
    monkeypatch.setenv("KPW_FLAVOURS", "plain modules selinux")
    lines = run(f"@pytest.mark.control\n@pytest.mark.flavour({name!r})\ndef test_a(): pass\n")
    [refused] = reports(lines, "CollectReport", outcome="failed")
    assert refused["longrepr"] == said
