# SPDX-License-Identifier: GPL-2.0-only
"""Completion: what a shell is answered, and the script it reads."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest
from toy_kernel import ToyKernels

from workbench import cli, completion
from workbench.errors import ExitCode, UsageError
from workbench.options import COMPLETE_VARIABLE, SHELLS, Kind
from workbench.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Callable

REPO = Path(cli.__file__).resolve().parents[2]


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    """Give a checkout with two extensions, and a store with two kernels."""
    toys = ToyKernels(tmp_path)
    toys.describe("alpha", '[variants."v6.12"]\nbase = "v6.12.38"\n')
    toys.patch("alpha/0001-x.patch", {}, {"a": b"x\n"})
    toys.patch("alpha/since-v6.12/0002-y.patch", {}, {"b": b"x\n"})
    toys.describe("beta")
    toys.kernel("v6.12.38", {})
    toys.kernel("v6.12.107", {})
    shutil.copy(REPO / "patches" / "kernels.toml", toys.paths.patches)
    shutil.copytree(REPO / "kconfigs", toys.paths.kconfigs)
    return toys.paths


def offered(paths: Paths, *words: str, asking: str = "bash") -> list[str]:
    """Return the answer to a shell whose last word is being typed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COMP_WORDS", " ".join(("kpw", *words)))
        patch.setenv("COMP_CWORD", str(len(words)))
        said = completion.answer(paths, cli.group, f"{asking}_complete")
    return [line.removeprefix("plain,") for line in said.splitlines()]


@pytest.mark.parametrize(
    ("words", "names"),
    [
        (["reb"], ["rebase"]),
        (["run", "--flav"], ["--flavour"]),
        (["run", "v6.12"], ["v6.12.107", "v6.12.38"]),
        (["run", "v6.12.107", "v6.12"], ["v6.12.38"]),
        (["run", "--only", "al"], ["alpha"]),
        (["run", "--only", "alpha,"], ["alpha,beta"]),
        (["run", "--without", "B"], ["BETA"]),
        (["build", "--flavour", "de"], ["debug"]),
        (["build", "--arch", "x"], ["x86_64"]),
        (["diff", "v6.12.38", "v6.12.1"], ["v6.12.107"]),
        (["diff", "v6.12.38", "v6.12.107", "be"], ["beta"]),
        (["status", "v6.12.3"], ["v6.12.38"]),
        (["boot", "v6.12.3"], ["v6.12.38"]),
        (["boot", "v6.12.38", "v6"], []),
        (["run", "--json", "x"], ["file,x"]),
        (["completion", "z"], ["zsh"]),
        (["resolve", "v6.12.38", "al"], ["alpha/0001", "alpha/0002"]),
        (["resolve", "v6.12.38", "alpha/0002"], ["alpha/0002"]),
        (["edit", "al"], ["alpha"]),
        (["edit", "alpha", "--since", "v6.1"], ["v6.12"]),
        (["import", "in.mb"], ["file,in.mb"]),
        (["import", "in.mbox", "--into", "be"], ["beta"]),
        (["import", "in.mbox", "--base", "v6.12.1"], ["v6.12.107"]),
        (["export", "--since", "v6.12.1"], ["v6.12.107"]),
        (["export", "--since", "out/v"], ["dir,out/v"]),
        (["report", "--output", "pa"], ["file,pa"]),
        (["nosuch", "x"], []),
    ],
)
def test_what_may_follow(paths: Paths, words: list[str], names: list[str]) -> None:
    assert offered(paths, *words) == names


def test_supported_kernels_are_offered_though_none_is_here(paths: Paths, tmp_path: Path) -> None:
    fresh = replace(paths, cache=tmp_path / "fresh")
    assert "v7.1.13" in offered(fresh, "rebase", "v7")
    assert not fresh.cache.exists(), "a look makes nothing"


def test_zsh_is_told_what_an_extension_is(paths: Paths) -> None:
    assert offered(paths, "run", "--only", "al", asking="zsh") == ["plain", "alpha", "s"]


def test_a_fault_is_no_answer(paths: Paths) -> None:
    (paths.patches / "alpha" / "extension.toml").write_text("broken")
    assert offered(paths, "run", "--only", "al") == []
    assert completion.answer(paths, cli.group, "tcsh_complete") == ""


#: What nobody can know beforehand: numbers, and words of the user's own.
FREE = {"N", "TEXT", "EXPR", "SECONDS", "MIB", "WORDS"}


def takes_a_word(parameter: click.Parameter) -> bool:
    flag = isinstance(parameter, click.Option) and (parameter.is_flag or parameter.count)
    return not flag and parameter.metavar not in FREE


def test_every_word_that_names_something_is_completed(paths: Paths) -> None:
    """A verb of its own making must not forget it: options.py has what does it."""
    context = click.Context(cli.group, obj=lambda kind, word: completion.names(paths, kind, word))
    seen = set()
    for name in cli.verbs():
        command = cli.group.get_command(context, name)
        assert command is not None
        below = click.Context(command, parent=context)
        for parameter in filter(takes_a_word, command.params):
            assert parameter.shell_complete(below, ""), f"{name} {parameter.name}"
            seen.add(f"{name} {parameter.name}")
    assert {"resolve patch", "import into", "export since", "report output", "run tags"} <= seen


def test_every_kind_of_name_is_known(paths: Paths) -> None:
    assert all(completion.names(paths, kind, "") for kind in Kind)


@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_asks_this_checkouts_launcher(shell: str, tmp_path: Path) -> None:
    paths = Paths(tmp_path / "my checkout", tmp_path, tmp_path)
    text = completion.script(paths, shell)
    assert f"'{tmp_path}/my checkout/tools/kpw')" in text
    assert "$+commands" not in text, "it need not be on the PATH"


def test_there_is_no_script_for_another_shell() -> None:
    with pytest.raises(UsageError, match="for bash, zsh, fish"):
        completion.script(Paths.default(), "tcsh")


@pytest.fixture
def sourced(tmp_path: Path) -> Callable[[str], str]:
    """Give a shell's script over a launcher in a folder with a space."""
    launcher = tmp_path / "my checkout" / "tools" / "kpw"
    launcher.parent.mkdir(parents=True)
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} -P -m workbench "$@"\n')
    launcher.chmod(0o755)
    paths = Paths(tmp_path / "my checkout", tmp_path, tmp_path)
    return lambda shell: completion.script(paths, shell)


def run(tmp_path: Path, *words: str) -> str:
    """Run a shell, which must be silent on stderr; return its stdout."""
    env = os.environ | {
        "PYTHONPATH": str(REPO / "tools"),
        "KPW_CACHE": str(tmp_path / "cache"),
        "HOME": str(tmp_path),
        "TERM": "dumb",
    }
    done = subprocess.run(words, check=True, capture_output=True, text=True, env=env, timeout=120)
    assert done.stderr == ""
    return done.stdout


def test_bash_completes_by_any_path(tmp_path: Path, sourced: Callable[[str], str]) -> None:
    asks = """
        COMP_WORDS=('~/elsewhere/kpw' rebase --only virt); COMP_CWORD=3
        _kpw_completion '~/elsewhere/kpw'; echo "${COMPREPLY[*]}"
        complete -p kpw
    """
    assert run(tmp_path, "bash", "-c", sourced("bash") + asks).splitlines() == [
        "virtual-ipv6",
        "complete -o nosort -F _kpw_completion kpw",
    ]


def test_fish_completes(tmp_path: Path, sourced: Callable[[str], str]) -> None:
    said = run(
        tmp_path,
        "fish",
        "--no-config",
        "--command",
        sourced("fish") + '\ncomplete --do-complete "kpw rebase --only virt"\n',
    )
    assert said.startswith("virtual-ipv6\t"), said
    assert said.count("\n") == 1, said


def test_zsh_completes(tmp_path: Path, sourced: Callable[[str], str]) -> None:
    """Its completion works only in a line that is being typed: in a terminal of zsh's own."""
    (tmp_path / "script").write_text(sourced("zsh"))
    types = f"""
        zmodload zsh/zpty
        zpty -b typed zsh -f -i
        zpty -w typed 'autoload -U compinit; compinit -u -D; source {tmp_path}/script'
        zpty -w typed 'bindkey "^I" complete-word; print rea''dy'
        zpty -r typed seen '*ready*'
        zpty -w -n typed $'kpw rebase --only virt\t'
        zpty -r typed seen '*virtual-ipv6*' && print found
        zpty -d typed
    """
    assert run(tmp_path, "zsh", "-f", "-c", types) == "found\n"


def test_the_verb_prints_the_script(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["completion", "fish"]) == ExitCode.GOOD
    assert capsys.readouterr().out == completion.script(Paths.default(), "fish")


def test_the_command_line_answers_a_shell_instead_of_running(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(COMPLETE_VARIABLE, "bash_complete")
    monkeypatch.setenv("COMP_WORDS", "kpw stat")
    monkeypatch.setenv("COMP_CWORD", "1")
    assert cli.main([]) == ExitCode.GOOD
    assert capsys.readouterr().out == "plain,status\n"


def test_the_launcher_installs_nothing_for_a_shell(tmp_path: Path) -> None:
    env = os.environ | {COMPLETE_VARIABLE: "bash_complete", "KPW_CACHE": str(tmp_path / "cache")}
    launcher = REPO / "tools" / "kpw"
    done = subprocess.run(
        [launcher], check=False, capture_output=True, text=True, env=env, timeout=60
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    assert not (tmp_path / "cache").exists()
