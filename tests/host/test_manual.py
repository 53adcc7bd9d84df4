# SPDX-License-Identifier: GPL-2.0-only
"""The manual page: all that --help says, in roff that says it as it stands."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import click
import pytest

from workbench import cli, manual
from workbench.errors import ExitCode
from workbench.paths import Paths

REQUESTS = {".TH", ".SH", ".SS", ".TP", ".PP", ".B", ".I", ".nf", ".fi", ".nh", ".hy", '.\\"'}


def plain(page: str) -> str:
    """Undo what roff needs: fonts and escapes."""
    for code, char in ((r"\-", "-"), (r"\(aq", "'"), (r"\(ga", "`"), (r"\(ha", "^")):
        page = page.replace(code, char)
    text = page.replace(r"\(ti", "~").replace(r"\&", "").replace(r"\e", "\\")
    return re.sub(r"\\f[BIR]", "", text)


@pytest.fixture(scope="module")
def page() -> str:
    """Return the page as a process of its own makes it: click remembers what others asked of it."""
    env = os.environ | {"PYTHONPATH": str(Path(cli.__file__).parents[1])}
    argv = [sys.executable, "-P", "-m", "workbench", "man"]
    return subprocess.run(argv, check=True, capture_output=True, text=True, env=env).stdout


def test_every_verb_and_option_is_there_with_its_help(page: str) -> None:
    text = " ".join(plain(page).split())
    context = click.Context(cli.group, info_name="kpw", **cli.group.context_settings)
    for name in cli.verbs():
        command = cli.group.get_command(context, name)
        assert command is not None
        assert f'.SS "kpw {name}"' in text
        below = click.Context(command, info_name=name, parent=context)
        for option in (
            each for each in command.get_params(below) if isinstance(each, click.Option)
        ):
            record = option.get_help_record(below)
            assert record is not None
            assert " ".join(" ".join(record).split()) in text, f"{name} {option.name}"
        first = " ".join((command.help or "").partition("\n\n")[0].split())
        assert first in text


def test_help_is_told_as_the_verbs_take_it(page: str) -> None:
    assert plain(page).count("-h, --help") == len(cli.verbs())


def test_every_exit_code_and_place_is_there(page: str) -> None:
    lines = plain(page).splitlines()
    for code in ExitCode:
        assert (
            lines[lines.index(str(int(code)), lines.index(".SH EXIT STATUS")) + 1] == code.meaning
        )
    files = lines[lines.index(".SH FILES") :]
    assert files[files.index("$KPW_STATE/runs") + 1] == Paths.runs.__doc__
    assert "patches" in files


def test_every_line_is_text_or_a_request_we_mean(page: str) -> None:
    for line in page.splitlines():
        assert not line.startswith("'")
        if line.startswith("."):
            assert line.split()[0] in REQUESTS, line
    assert page.count("\n.nf\n") == page.count("\n.fi\n") > 0
    assert page.isascii()


def test_nothing_in_a_help_text_is_a_request() -> None:
    @click.group("toy", help="A toy.")
    def toy() -> None:
        """Do nothing."""

    @toy.command("verb", help="Take C:\\dir.\n\n.so /etc/passwd\n'br ends \N{EN DASH} so")
    def verb() -> None:
        """Do nothing."""

    page = manual.render(toy)
    assert "\nTake C:\\edir.\n" in page
    assert "\n\\&.so /etc/passwd\n" in page
    assert "\n\\(aqbr ends \\[u2013] so\n" in page


def test_unfilled_paragraphs_keep_their_lines(page: str) -> None:
    lint = page[page.index('.SS "kpw lint"') :]
    block = lint[lint.index("\n.nf\n") : lint.index("\n.fi\n")].splitlines()
    assert re.fullmatch(r"checkpatch +\\-\\-strict of that tree says nothing", block[2])


@pytest.mark.skipif(shutil.which("man") is None, reason="man is not installed")
def test_man_has_nothing_to_say_against_it(page: str, tmp_path: Path) -> None:
    file = tmp_path / "kpw.1"
    file.write_text(page)
    done = subprocess.run(
        ["man", "--warnings", "-l", file], check=True, capture_output=True, text=True
    )
    assert done.stderr == ""
    assert "EXIT STATUS" in done.stdout


def test_the_page_goes_to_a_file_or_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["man"]) == ExitCode.GOOD
    page = capsys.readouterr().out
    assert page.startswith('.\\" Made by')
    assert cli.main(["man", "--output", str(tmp_path / "kpw.1")]) == ExitCode.GOOD
    assert (tmp_path / "kpw.1").read_text() == page
    assert cli.main(["man", "--output", str(tmp_path / "no" / "kpw.1")]) == ExitCode.USAGE
    assert "name a file in a folder that is there" in capsys.readouterr().err
