# SPDX-License-Identifier: GPL-2.0-only
"""Progress: plain lines in a pipe, one moving line on a terminal; old runs are pruned."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from pathlib import Path

import pytest

from workbench import progress, runs
from workbench.live import Live
from workbench.paths import Paths

TOOLS = Path(__file__).resolve().parents[2] / "tools"


class Terminal(io.StringIO):
    """A stream that says it is a terminal."""

    def isatty(self) -> bool:
        return True


def test_plain_says_a_step_once() -> None:
    stream = io.StringIO()
    plain = progress.Plain(stream)
    for done in range(3):
        plain.step("building", done, 3)
    plain.note("a note")
    plain.step("booting")
    assert stream.getvalue() == "building\na note\nbooting\n"


def test_plain_says_each_tenth_of_what_is_counted() -> None:
    stream = io.StringIO()
    plain = progress.Plain(stream)
    for done in range(201):
        plain.step("compiling", done, 200, "files")
    for done in range(0, 30, 3):
        plain.step("downloading", done << 20, 30 << 20, "bytes")
    plain.step("importing", 2000, unit="files")
    plain.step("importing", 4000, unit="files")
    files = [f"compiling: {done} of about 200 files\n" for done in range(20, 200, 20)]
    mib = [f"downloading: {done} of 30 MiB\n" for done in range(3, 30, 3)]
    said = ["compiling\n", *files, "downloading\n", *mib, "importing\n"]
    assert stream.getvalue() == "".join(said)


def test_plain_does_not_count_a_handful() -> None:
    stream = io.StringIO()
    plain = progress.Plain(stream)
    for done in range(6):
        plain.step("compiling", done, 5, "files")
    assert stream.getvalue() == "compiling\n"


@pytest.mark.parametrize(
    ("terminal", "term", "kind"),
    [(False, "xterm", progress.Plain), (True, "dumb", progress.Plain), (True, "xterm", Live)],
)
def test_the_display_fits_stderr(
    monkeypatch: pytest.MonkeyPatch, term: str, kind: type, *, terminal: bool
) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal() if terminal else io.StringIO())
    monkeypatch.setenv("TERM", term)
    with progress.shown() as display:
        assert isinstance(display, kind)


def test_live_keeps_notes_as_they_are_and_leaves_the_terminal_usable(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Live(stream) as live:
        live.step("compile [x]", 3, 10)
        live.note("see [red]/a/b[/red]")
        live.step("boot")
    said = stream.getvalue()
    assert "see [red]/a/b[/red]" in said
    assert "compile [x]" in said
    assert said.rstrip().endswith("\x1b[?25h") or "\x1b[?25h" in said


@pytest.mark.parametrize(
    ("numbers", "shown"),
    [
        ((12, 1420, "files"), "12 of about 1420 files"),
        ((12, None, "files"), "12 files"),
        ((3 << 20, 9 << 20, "bytes"), "3 of 9 MiB"),
        ((3 << 20, None, "bytes"), "m3 MiB, "),
        ((1, 4, ""), "25 %"),
    ],
)
def test_live_counts_in_the_unit_it_is_told(
    monkeypatch: pytest.MonkeyPatch, numbers: tuple[float, float | None, str], shown: str
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with Live(stream) as live:
        live.step("work", *numbers)
    assert shown in stream.getvalue()


def test_live_gives_the_cursor_back_when_interrupted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    stream = Terminal()
    with pytest.raises(KeyboardInterrupt), Live(stream):
        raise KeyboardInterrupt
    assert "\x1b[?25h" in stream.getvalue()


def test_old_runs_go_and_other_files_stay(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "cache", tmp_path / "state")
    paths.runs.mkdir(parents=True)
    (paths.runs / "mine").mkdir()
    for number in range(runs.KEPT + 5):
        (paths.runs / f"20260101-0000{number:02}-7").mkdir()
    made = runs.new_run(paths)
    names = sorted(path.name for path in paths.runs.iterdir())
    assert made.is_dir()
    assert len(names) == runs.KEPT + 1
    assert "mine" in names
    assert "20260101-000000-7" not in names


def test_the_folder_of_a_run_that_lives_stays_until_it_ended(tmp_path: Path) -> None:
    paths = Paths(tmp_path, tmp_path / "cache", tmp_path / "state")
    script = (
        "import sys; from pathlib import Path; from workbench import runs;"
        "from workbench.paths import Paths; root = Path(sys.argv[1]);"
        "print(runs.new_run(Paths(root, root / 'cache', root / 'state')), flush=True);"
        "sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", script, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TOOLS)},
    ) as other:
        assert other.stdout is not None
        its = Path(other.stdout.readline().strip())
        (its / "console").write_text("still written")
        for number in range(runs.KEPT):
            (paths.runs / f"29990101-0000{number:02}-7").mkdir()
        runs.new_run(paths)
        assert (its / "console").exists()
        other.kill()
    runs.new_run(paths)
    assert not its.exists()


def test_a_note_cannot_steer_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    said, terminal = io.StringIO(), Terminal()
    progress.Plain(said).note("from\ta guest: \x1b[2J\x07")
    assert said.getvalue() == "from    a guest: \ufffd[2J\ufffd\n"
    with Live(terminal) as live:
        live.note("from a guest: \x1b[2J\x07")
    assert "from a guest: \ufffd[2J\ufffd" in terminal.getvalue()
