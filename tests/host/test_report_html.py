# SPDX-License-Identifier: GPL-2.0-only
"""The page of ``kpw report``: which cell counts, and what a browser makes of it."""

from __future__ import annotations

import json
import os
import re
import select
import subprocess
import time
from contextlib import contextmanager
from dataclasses import dataclass, replace
from html.parser import HTMLParser
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner
from test_reports import CELLS, FAILED, GOOD, GUEST, NEW, OLD, REPORT, SERIES

from workbench import report_html, report_json, runs
from workbench.commands import report as report_command
from workbench.errors import ExitCode, UsageError
from workbench.explained import (
    Dependent,
    HunkOutcome,
    HunkState,
    UpstreamCommit,
    UpstreamWork,
)
from workbench.model import BuildFailure, Conflict, PatchState
from workbench.paths import Paths
from workbench.verdict import BrokenOff, Cell, CellState, RunReport, Trial

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def document(*trials: Trial, started: str = "2026-11-23T12:00:00+0000") -> dict[str, Any]:
    """Return what a run leaves, read back."""
    data: dict[str, Any] = json.loads(report_json.render(RunReport(trials, started)))
    return data


def trial(*cells: Cell) -> Trial:
    return Trial(NEW, "plain", "x86_64", cells)


def page(*documents: dict[str, Any]) -> str:
    return report_html.render(report_html.columns(documents))


class Links(HTMLParser):
    """Collects ids, links to them, and whatever a browser would load."""

    def __init__(self, text: str) -> None:
        """Read a page."""
        super().__init__()
        self.ids: list[str] = []
        self.targets: list[str] = []
        self.loads: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        named = dict(attrs)
        if "id" in named:
            self.ids.append(named["id"] or "")
        if tag == "a":
            self.targets.append(named.get("href") or "")
        if tag in {"script", "link", "img", "iframe"} or "src" in named:
            self.loads.append(tag)


def test_each_cell_leads_to_its_part_and_nothing_is_loaded() -> None:
    links = Links(page(report_json.as_data(REPORT)))
    assert len(links.ids) == len(set(links.ids))
    assert all(target.startswith("#") and target[1:] in links.ids for target in links.targets)
    cells = [target for target in links.targets if target.endswith(("-ext", "-two", "-three"))]
    assert len(cells) == 4
    assert links.loads == []


def test_what_a_guest_or_a_patch_said_is_text_and_nothing_else() -> None:
    evil = replace(FAILED, message="</td><script>alert(1)</script>\x1b[31m", detail="<b>&")
    text = page(document(trial(Cell("two", CellState.RED, tests=(evil,)))))
    assert "<script" not in text
    assert "\x1b" not in text
    assert "&lt;script&gt;alert(1)" in text


def test_a_crash_a_build_error_and_a_conflict_are_shown_whole(tmp_path: Path) -> None:
    console = tmp_path / "console"
    console.write_text("the last words\n")
    conflict = Conflict("net/a.c", 7, "both", "theirs()", "ours()", "around()", "write it anew")
    patch = replace(SERIES.outcomes[0], state=PatchState.CONFLICT, conflicts=(conflict,))
    broken = BuildFailure(OLD, "tree", "plain", "a.c:3: no such thing", "the log <here>")
    guest = replace(GUEST, console=console)
    series = replace(SERIES, outcomes=(patch,))
    crashed = Trial(NEW, "plain", "x86_64", CELLS, series, None, (guest,))
    unbuilt = Trial(OLD, "plain", "x86_64", (Cell("ext", CellState.BUILD),), build=broken)
    text = page(document(crashed, unbuilt))
    for said in ("theirs()", "ours()", "around()", "write it anew", "net/a.c:7", "Kernel panic",
                 "the last words", "a.c:3: no such thing", "the log &lt;here&gt;",
                 "two/test_y.py::test_q"):  # fmt: skip
        assert said in text, said


def part_of(text: str, anchor: str) -> str:
    """Return what is between a cell's heading and the next one's."""
    after = text.partition(f'<h3 id="{anchor}"')[2]
    assert after, anchor
    return re.split(r"<h[123]", after)[0]


WORK = UpstreamWork("v6.1", (UpstreamCommit("abc123", "net: <move> it"),))
CONFLICT = Conflict(
    "net/a.c", 7, "both", "theirs()", "ours()", "around()", "write it anew", "base()", WORK
)
LEFT_OUT = replace(
    SERIES.outcomes[0],
    extension="three",
    state=PatchState.CONFLICT,
    commit=None,
    conflicts=(CONFLICT, replace(CONFLICT, work=UpstreamWork("v6.1", (), (("v6.2", "v6.3"),)))),
    hunks=(
        HunkOutcome("net/a.c", 9, HunkState.CONFLICTS),
        HunkOutcome("net/b.c", 20, HunkState.THERE),
    ),
    needed_by=(Dependent("two", "0002-y.patch", "stands on its lines", ("net/a.c",)),),
)


def test_a_cell_leads_to_all_that_is_known_of_its_conflict() -> None:
    series = replace(SERIES, outcomes=(*SERIES.outcomes, LEFT_OUT))
    text = page(document(Trial(NEW, "plain", "x86_64", CELLS, series)))
    (target,) = {each[1:] for each in Links(text).targets if each.endswith("-three")}
    part = part_of(text, target)
    for said in (
        "net/a.c:7", "base()", "theirs()", "ours()", "around()", "write it anew",
        "did there since v6.1", "abc123", "net: &lt;move&gt; it", "changed between v6.2 and v6.3",
        "1 of 2 conflicts: net/a.c @9", "1 of 2 already there: net/b.c @20",
        "two/0002-y.patch (stands on its lines)",
    ):  # fmt: skip
        assert said in part, said


def test_a_report_that_is_older_than_a_name_is_shown_all_the_same() -> None:
    series = replace(SERIES, outcomes=(LEFT_OUT,))
    old = document(Trial(NEW, "plain", "x86_64", CELLS, series))
    for trial_data in old["trials"]:
        for name in ("tree", "ref", "red", "expression"):
            trial_data.pop(name)
        for patch in trial_data["patches"]:
            for name in ("hunks", "needed_by", "offsets", "inferred_base"):
                patch.pop(name)
            for conflict in patch["conflicts"]:
                conflict.pop("upstream_work")
    assert report_html.fault(old) == ""
    assert "theirs()" in page(old)


def test_a_cell_of_an_older_tree_says_so() -> None:
    def of(tree: str, cell: Cell, day: int) -> dict[str, Any]:
        series = replace(SERIES, tree=tree * 40)
        tried = Trial(NEW, "plain", "x86_64", (cell,), series)
        return document(tried, started=f"2026-11-0{day}T00:00:00+0000")

    tests_only = replace(GOOD, proofs=())
    proven, later, same = of("a", GOOD, 1), of("b", tests_only, 2), of("a", tests_only, 3)
    assert "older tree</small>" not in page(proven)
    text = page(proven, later)
    assert text.count("older tree</small>") == 1
    assert "The same extensions were tried since in another tree" in text
    assert "older tree</small>" not in page(proven, later, same)


def test_a_run_that_was_broken_off_says_so_with_its_tables() -> None:
    whole = RunReport((trial(GOOD),), "2026-11-23T12:00:00+0000")
    assert "broken off" not in page(report_json.as_data(whole))
    why = BrokenOff("disk <1> is\x1b full", ExitCode.INFRA, ("v6.18.15", "v7.1.13"))
    older = replace(whole, trials=(replace(trial(GOOD), kernel=OLD),))
    text = page(report_json.as_data(older), report_json.as_data(replace(whole, broken_off=why)))
    assert text.count(">broken off<") == 1
    told = "had not come to its end: disk &lt;1&gt; is\ufffd full (exit code 128)."
    part = re.split(r"<h[23]", text.partition(f">{NEW.name}</h2>")[2])[0]
    assert f"{told} Not judged: v6.18.15, v7.1.13." in part
    last = replace(whole, broken_off=BrokenOff("interrupted", ExitCode.INTERRUPTED))
    text = page(report_json.as_data(last))
    assert "had not come to its end: interrupted (exit code 130)." in text
    assert "Not judged" not in text


def test_a_cell_of_a_few_tests_says_so() -> None:
    whole = trial(GOOD)
    few = replace(whole, expression="one <of them>")
    text = page(document(few))
    assert text.count("<small>only -k one &lt;of them&gt;</small>") == 1
    assert "only the selftests that <code>-k one &lt;of them&gt;</code> chose" in text
    later = document(few, started="2026-11-24T12:00:00+0000")
    assert "only -k" not in page(document(whole), later)


def cells_of(documents: Sequence[dict[str, Any]]) -> dict[str, tuple[str, str]]:
    (column,) = report_html.columns(documents)
    return {
        name: (cell.trial.started[:10], str(cell.data["state"]))
        for name, cell in column.cells.items()
    }


def test_the_newest_cell_that_proves_or_refutes_counts() -> None:
    tests_only = replace(GOOD, proofs=())
    red = Cell("ext", CellState.RED, tests=(FAILED,))
    other = replace(GOOD, extension="two")
    first = document(trial(GOOD), started="2026-11-01T00:00:00+0000")
    second = document(trial(tests_only, other), started="2026-11-02T00:00:00+0000")
    third = document(trial(red), started="2026-11-03T00:00:00+0000")
    assert cells_of([second]) == {"ext": ("2026-11-02", "green"), "two": ("2026-11-02", "green")}
    # What was proven is not hidden by tests without their red; a red test does refute it.
    assert cells_of([second, first])["ext"] == ("2026-11-01", "green")
    assert cells_of([third, second, first])["ext"] == ("2026-11-03", "red")
    assert cells_of([third, second, first])["two"] == ("2026-11-02", "green")


def test_kernels_are_by_age_and_extensions_in_the_order_of_the_series() -> None:
    few = document(Trial(OLD, "plain", "x86_64", (replace(GOOD, extension="z"),)))
    links = Links(page(few, document(trial(*CELLS, replace(GOOD, extension="z")))))
    rows = [re.sub(r".*-", "", each) for each in links.ids if "-z" in each or "-ext" in each]
    assert rows == ["z", "ext", "z"]
    text = page(few, document(trial(*CELLS, replace(GOOD, extension="z"))))
    assert text.index(">v5.10.262<") < text.index(">v6.12.107<")
    order = [text.index(f'<th scope="row">{name}<') for name in ("ext", "two", "three", "z")]
    assert order == sorted(order)


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    monkeypatch.setenv("KPW_STATE", str(tmp_path / "state"))
    monkeypatch.chdir(tmp_path)
    return Paths.default()


def keep(paths: Paths, name: str, text: str) -> Path:
    folder = paths.runs / name
    folder.mkdir(parents=True)
    (folder / runs.REPORT).write_text(text)
    return folder


def test_the_command_takes_what_is_kept_or_what_it_is_given(paths: Paths) -> None:
    keep(paths, "20261123-120000-1", report_json.render(REPORT))
    (paths.runs / "20261123-130000-2").mkdir()  # cut short: no report
    told = CliRunner().invoke(report_command.command, [])
    assert told.output == "kpw-report.html: what 1 runs found on 2 kernels\n"
    folder = keep(paths, "elsewhere", report_json.render(replace(REPORT, trials=(trial(GOOD),))))
    told = CliRunner().invoke(report_command.command, [str(folder), "--output", "-"])
    assert told.output.startswith("<!doctype html>")
    assert "on 1 kernels" in told.output


def test_an_odd_report_is_passed_and_told(paths: Paths) -> None:
    keep(paths, "20261123-120000-1", report_json.render(REPORT))
    data = report_json.as_data(REPORT)
    for number, odd in enumerate(
        (
            "[1]",
            '{"started": "x", "trials": 7}',
            json.dumps({**data, "trials": [{**data["trials"][0], "cells": [{}]}]}),
            json.dumps({**data, "trials": [{**data["trials"][0], "tag": "next"}]}),
            json.dumps({**data, "trials": [{**data["trials"][0], "guests": None}]}),
        )
    ):
        folder = keep(paths, f"20261123-13000{number}-2", odd)
        told = CliRunner().invoke(report_command.command, [str(folder)])
        assert isinstance(told.exception, UsageError), odd
    told = CliRunner().invoke(report_command.command, [])
    assert told.stdout == "kpw-report.html: what 1 runs found on 2 kernels\n"
    assert told.stderr.count("passed: ") == 5


def test_without_a_run_it_says_what_to_do(paths: Paths) -> None:
    for words in ([], [str(paths.runs)]):
        told = CliRunner().invoke(report_command.command, words)
        assert isinstance(told.exception, UsageError), words
        assert told.exception.next_step


#: Seconds for one answer of Chromium's; on a machine that is busy elsewhere it takes a few.
PATIENCE = 60.0


@dataclass
class Browser:
    """A headless Chromium, spoken to in the DevTools protocol over its pipe."""

    to: int
    by: int
    count: int = 0
    rest: bytes = b""

    def ask(self, method: str, **params: Any) -> dict[str, Any]:
        """Ask one thing and return its answer; events in between are dropped."""
        self.count += 1
        order: dict[str, Any] = {"id": self.count, "method": method, "params": params}
        if session := params.pop("session", None):
            order["sessionId"] = session
        os.write(self.to, json.dumps(order).encode() + b"\0")
        while True:
            said = self._message()
            if said.get("id") == self.count:
                assert "error" not in said, said
                return dict(said["result"])

    def _message(self) -> dict[str, Any]:
        while b"\0" not in self.rest:
            assert select.select([self.by], [], [], PATIENCE)[0], "Chromium does not answer"
            more = os.read(self.by, 1 << 16)
            assert more, "Chromium has ended"
            self.rest += more
        message, self.rest = self.rest.split(b"\0", 1)
        return dict(json.loads(message))


@contextmanager
def chromium(home: Path) -> Iterator[Browser]:
    """Start Chromium; its ends of the pipes are the descriptors 3 and 4."""
    heard, to = os.pipe()
    by, said = os.pipe()
    words = ("--headless", "--no-sandbox", "--disable-gpu", "--remote-debugging-pipe")
    # Not sh: dash knows descriptors of one digit only.
    shell = f'exec 3<&{heard} 4>&{said}; exec chromium "$@"'
    child = subprocess.Popen(
        ["bash", "-c", shell, "bash", *words, f"--user-data-dir={home}", "about:blank"],
        pass_fds=(heard, said),
        env={**os.environ, "HOME": str(home)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        process_group=0,
    )
    os.close(heard)
    os.close(said)
    try:
        yield Browser(to, by)
    finally:
        os.killpg(child.pid, 9)
        child.wait()
        os.close(to)
        os.close(by)


@dataclass
class Tab:
    """The page, open in a browser."""

    browser: Browser
    session: str

    def value(self, script: str) -> Any:
        """Return what a script comes to."""
        found = self.browser.ask(
            "Runtime.evaluate", session=self.session, expression=script, returnByValue=True
        )
        return found["result"].get("value")

    def press(self, key: str, code: int) -> None:
        """Press and let go of a key."""
        for kind in ("rawKeyDown", "char", "keyUp"):
            text = {"text": "\r"} if key == "Enter" and kind == "char" else {}
            if kind != "char" or text:
                self.browser.ask(
                    "Input.dispatchKeyEvent", session=self.session, type=kind, key=key,
                    windowsVirtualKeyCode=code, **text,
                )  # fmt: skip

    def prefer(self, scheme: str) -> None:
        """Have the user prefer light or dark."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.browser.ask("Emulation.setEmulatedMedia", session=self.session, features=features)


@pytest.fixture
def tab(tmp_path: Path) -> Iterator[Tab]:
    """Open a page with all that there is: a conflict, and a console longer than any screen."""
    console = tmp_path / "console"
    console.write_text("".join(f"[{n}] {'a long line ' * 40}\n" for n in range(2000)))
    crashed = REPORT.trials[1]
    assert crashed.series is not None
    series = replace(crashed.series, outcomes=(*crashed.series.outcomes, LEFT_OUT))
    guests = (replace(GUEST, console=console),)
    shown = replace(
        REPORT, trials=(REPORT.trials[0], replace(crashed, series=series, reports=guests))
    )
    file = tmp_path / "page.html"
    file.write_text(page(report_json.as_data(shown)))
    with chromium(tmp_path / "home") as browser:
        target = browser.ask("Target.createTarget", url=file.as_uri())["targetId"]
        attached = browser.ask("Target.attachToTarget", targetId=target, flatten=True)
        opened = Tab(browser, str(attached["sessionId"]))
        until = time.monotonic() + PATIENCE
        while opened.value("document.readyState + location.protocol") != "completefile:":
            assert time.monotonic() < until, "Chromium does not load the page"
        opened.value("document.querySelectorAll('details').forEach(each => { each.open = true })")
        yield opened


CONTRAST = """
(() => {
  const light = (text) => {
    const parts = text.match(/[\\d.]+/g).slice(0, 3).map((each) => {
      const part = each / 255;
      return part <= 0.04045 ? part / 12.92 : ((part + 0.055) / 1.055) ** 2.4;
    });
    return 0.2126 * parts[0] + 0.7152 * parts[1] + 0.0722 * parts[2];
  };
  const behind = (element) => {
    const colour = getComputedStyle(element).backgroundColor;
    return colour === "rgba(0, 0, 0, 0)" ? behind(element.parentElement) : colour;
  };
  const names = "h1, h4, li, p, a, small, strong, .mark, summary, pre, th";
  const texts = [...document.querySelectorAll(names)];
  return Math.min(...texts.map((element) => {
    const both = [light(getComputedStyle(element).color), light(behind(element))];
    return (Math.max(...both) + 0.05) / (Math.min(...both) + 0.05);
  }));
})()
"""


@pytest.mark.real
def test_a_browser_shows_it_light_and_dark_and_readable(tab: Tab) -> None:
    seen = []
    for scheme in ("light", "dark"):
        tab.prefer(scheme)
        seen.append(tab.value("getComputedStyle(document.body).backgroundColor"))
        contrast = tab.value(CONTRAST)
        assert contrast >= 4.5, f"{scheme}: the least contrast is {contrast:.2f}"
    assert seen == ["rgb(255, 255, 255)", "rgb(15, 19, 24)"]
    assert "a long line" in tab.value("document.body.innerText")
    assert "theirs()" in tab.value("document.body.innerText")
    assert tab.value("performance.getEntriesByType('resource').length") == 0
    assert tab.value("document.documentElement.scrollWidth <= innerWidth")


@pytest.mark.real
def test_the_keyboard_reaches_what_a_cell_rests_on(tab: Tab) -> None:
    """Tab until a cell has the focus, Enter, and its part is what is shown."""
    for _ in range(20):
        tab.press("Tab", 9)
        if str(tab.value("document.activeElement.hash")).endswith("-two"):
            break
    else:
        pytest.fail("no cell got the focus within 20 times Tab")
    assert tab.value("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.press("Enter", 13)
    assert str(tab.value("location.hash")).endswith("-two")
    assert tab.value("document.querySelector(':target').textContent").startswith("two on v6.12")
    top = tab.value("document.querySelector(':target').getBoundingClientRect().top")
    assert 0 <= top < tab.value("innerHeight")
