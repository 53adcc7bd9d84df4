# SPDX-License-Identifier: GPL-2.0-only
"""The command line: verbs by listing, suggestions, and every way out."""

from __future__ import annotations

import errno
import io
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from _pytest.mark.expression import Expression

from workbench import cli, interrupt, options
from workbench.errors import ExitCode, InfraError, UsageError
from workbench.order import Order, Outputs

if TYPE_CHECKING:
    from collections.abc import Callable

pytest_plugins = ["listening"]

TOOLS = Path(cli.__file__).parents[1]


@pytest.fixture
def verb(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Callable[[object], None]:
    """Put one verb ``toy`` before the command line that does (raises, returns) the thing given."""
    monkeypatch.setenv("KPW_STATE", str(tmp_path / "state"))

    def install(thing: object) -> None:
        @click.command("toy")
        @click.option("--number", type=int)
        def toy(number: int | None) -> object:
            del number
            if isinstance(thing, BaseException):
                raise thing
            return thing() if callable(thing) else thing

        monkeypatch.setattr(cli, "verbs", lambda: ["toy"])
        monkeypatch.setattr(cli.Verbs, "get_command", lambda *_: toy)

    return install


def test_every_file_of_the_folder_is_a_verb_with_a_summary() -> None:
    files = {path.stem for path in (TOOLS / "workbench" / "commands").glob("[a-z]*.py")}
    assert {name.replace("-", "_") for name in cli.verbs()} == files
    context = click.Context(cli.group)
    for name in cli.verbs():
        command = cli.group.get_command(context, name)
        assert command is not None
        assert command.name == name
        assert command.get_short_help_str()


def test_help_names_every_verb(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert all(f"\n  {name} " in said for name in cli.verbs())


def test_no_arguments_is_help(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main([]) == 0
    assert "Commands:" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("argv", "said"),
    [
        (["rnu"], "did you mean 'run'?"),
        (["zzzzzz"], "'kpw --help' lists the commands"),
        (["run", "--jsno", "x"], "--json"),
        (["test"], "Missing argument 'TAG'"),
        (["run", "--json"], "requires an argument"),
        (["--nope"], "--nope"),
    ],
)
def test_usage_is_one_line_and_2(
    argv: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(argv) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert said in err
    assert err.startswith("kpw: ")
    assert err.count("\n") == 1


@pytest.mark.parametrize(
    ("thing", "code", "said"),
    [
        (ExitCode.CRASH, 5, ""),
        (77, 77, ""),
        (None, 0, ""),
        (UsageError("bad tag", where="here", next_step="mend it"), 2, "here: bad tag; mend it"),
        (InfraError("no QEMU"), 128, "no QEMU"),
        (KeyboardInterrupt(), 130, "interrupted; run the same command again to resume"),
        (interrupt.Terminated(), 143, "terminated; run the same command again to resume"),
        (OSError(errno.ENOSPC, "No space", "/x/y"), 128, "no space left on the disk at /x/y"),
        (
            OSError(errno.EACCES, "Permission denied", "/x/y"),
            128,
            "kpw: /x/y: Permission denied; mend that and run the same command again\n",
        ),
        (
            OSError(errno.EROFS, "Read-only", b"/x/\xff"),
            128,
            "Read-only; mend that and run the same command again\n",
        ),
        (click.BadParameter("not so"), 2, "not so"),
    ],
)
def test_ways_out(
    thing: object,
    code: int,
    said: str,
    verb: Callable[[object], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    verb(thing)
    assert cli.main(["toy"]) == code
    err = capsys.readouterr().err
    assert said in err
    assert err.count("\n") == bool(said)


def test_an_unexpected_exception_is_one_line_and_its_traceback_is_kept(
    verb: Callable[[object], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    verb(ZeroDivisionError("all wrong\nsecond line"))
    assert cli.main(["toy"]) == ExitCode.INFRA
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "ZeroDivisionError: all wrong;" in err
    (kept,) = (tmp_path / "state" / "crashes").iterdir()
    assert str(kept) in err
    assert "Traceback" in kept.read_text()


def test_what_may_be_our_own_fault_keeps_its_traceback_too(
    verb: Callable[[object], None], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    verb(FileNotFoundError(errno.ENOENT, "No such file", str(tmp_path / "state" / "x")))
    assert cli.main(["toy"]) == ExitCode.INFRA
    err = capsys.readouterr().err
    assert "error of the workbench" not in err
    assert "mend that, or set KPW_STATE to another place, and run" in err
    (kept,) = (tmp_path / "state" / "crashes").iterdir()
    assert f"; the traceback is in {kept}\n" in err


@pytest.mark.parametrize("thing", [ZeroDivisionError("all wrong"), ValueError("bad \udcff")])
def test_a_traceback_is_kept_elsewhere_when_the_state_cannot_be_written(
    thing: Exception,
    verb: Callable[[object], None],
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    verb(thing)
    (tmp_path / "file").touch()
    monkeypatch.setenv("KPW_STATE", str(tmp_path / "file" / "below"))
    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    assert cli.main(["toy"]) == ExitCode.INFRA
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    (kept,) = (tmp_path / "temporary").iterdir()
    assert str(kept) in err
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "file"))
    assert cli.main(["toy"]) == ExitCode.INFRA
    err = capsys.readouterr().err
    assert "no place takes the traceback" in err
    assert err.count("\n") == 1


def test_a_pipe_that_broke_to_a_child_is_told(
    verb: Callable[[object], None], capsys: pytest.CaptureFixture[str]
) -> None:
    verb(BrokenPipeError(errno.EPIPE, "Broken pipe"))
    assert cli.main(["toy"]) == ExitCode.INFRA
    assert "BrokenPipeError" in capsys.readouterr().err


@pytest.mark.parametrize("name", ["no/such/folder/x.html", "."])
def test_a_page_that_cannot_be_written_is_a_usage_error(
    name: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.setenv("KPW_STATE", str(tmp_path / "state"))
    assert cli.main(["report", "--output", str(tmp_path / name)]) == ExitCode.USAGE
    err = capsys.readouterr().err
    assert f"--output {tmp_path / name}: " in err
    assert not (tmp_path / "state").exists()


@pytest.mark.parametrize(("no_colour", "escapes"), [("", 2), ("1", 0)])
def test_no_color_is_heard(
    no_colour: str,
    escapes: int,
    verb: Callable[[object], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    verb(lambda: click.echo(click.style("ok", fg="green")))
    stream = Terminal()
    monkeypatch.setattr(sys, "stdout", stream)
    monkeypatch.setenv("NO_COLOR", no_colour)
    assert cli.main(["toy"]) == ExitCode.GOOD
    assert stream.getvalue().count("\x1b") == escapes


def test_signals_become_exceptions_and_are_put_back() -> None:
    def terminated() -> None:
        with interrupt.as_exceptions():
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(5)

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(interrupt.Terminated):
        terminated()
    assert signal.getsignal(signal.SIGTERM) is before


@pytest.mark.usefixtures("signals_are_heard")
def test_a_second_signal_does_not_break_off_the_clean_up() -> None:
    cleaned = []

    def interrupted() -> None:
        with interrupt.as_exceptions():
            try:
                os.kill(os.getpid(), signal.SIGINT)
                time.sleep(5)
            finally:
                os.kill(os.getpid(), signal.SIGINT)
                os.kill(os.getpid(), signal.SIGTERM)
                cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert cleaned


def test_an_ignored_hang_up_stays_ignored() -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with interrupt.as_exceptions():
            os.kill(os.getpid(), signal.SIGHUP)
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_reader_that_goes_away_is_not_told_anything() -> None:
    program = f"{sys.executable} -m workbench --help"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {program} | true"],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TOOLS)},
    )
    assert done.stderr == ""


def test_only_the_verb_asked_for_is_imported() -> None:
    script = (
        "import sys; from workbench import cli; cli.main(['run', '--help']);"
        "loaded = [m for m in sys.modules if m.startswith('workbench.commands.')];"
        "print(loaded, 'git' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        check=True,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(TOOLS)},
    )
    assert done.stdout.splitlines()[-1] == "['workbench.commands.run'] False"


def test_trial_options_make_an_order() -> None:
    seen: list[tuple[Order, Outputs]] = []

    @click.command()
    @options.tags_argument
    @options.all_option
    @options.trial_options
    def command(order: Order, outputs: Outputs) -> ExitCode:
        """Say what it does."""
        seen.append((order, outputs))
        return ExitCode.GOOD

    words = ["v6.12", "--only", "a,b", "--only", "b", "--flavour", "debug", "--ktap", "-"]
    command.main(words, standalone_mode=False)
    order, outputs = seen[0]
    assert order == Order(("v6.12",), only=("a", "b"), flavour="debug")
    assert outputs.files == (("ktap", "-"),)
    assert command.help == "Say what it does."


@pytest.mark.parametrize(
    "text",
    [
        "a", "", " ", "a and b", "not (a or b)", "not not a", "test_x[ipv4-gro] or x::y", "-v",
        "lambda", "a b",
        "a and", "(a", "a)", "()", "not", "a(b)", "a, b", "a == b", "a & b", "a # b", "'a'",
    ],
)  # fmt: skip
def test_an_expression_is_refused_where_pytest_refuses_it(text: str) -> None:
    try:
        Expression.compile(text.strip() or "a")
    except SyntaxError:
        with pytest.raises(UsageError, match="-k"):
            Order(expression=text)
    else:
        assert Order(expression=text).expression == text


@pytest.mark.parametrize(
    "named",
    [{"json": "/no/such/folder/x.json"}, {"json": "/tmp"}, {"json": "-", "junit": "-"}],  # noqa: S108
)
def test_a_report_that_cannot_be_written_is_refused_at_once(named: dict[str, str]) -> None:
    with pytest.raises(UsageError):
        Outputs.of(**named)


def test_the_readme_lists_every_exit_code() -> None:
    text = (TOOLS.parent / "README.md").read_text()
    rows = re.findall(r"^\| ([\d, ]+) \|", text, flags=re.MULTILINE)
    listed = [int(code) for row in rows for code in row.split(",")]
    assert listed == [int(code) for code in ExitCode]
