# SPDX-License-Identifier: GPL-2.0-only
"""What the doctor says of a host, and that nothing stops it from saying it."""

from __future__ import annotations

import grp
import os
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner

from workbench import accel, doctor
from workbench.accel import Accelerator
from workbench.doctor import Check, State
from workbench.errors import ExitCode, InfraError
from workbench.paths import Paths

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    tcg = Accelerator("tcg", "max", "TCG: there is no /dev/kvm", 1)
    monkeypatch.setattr(accel, "choose", lambda *_: tcg)
    return Paths(REPO, tmp_path / "cache", tmp_path / "state")


def by_name(checks: tuple[Check, ...]) -> dict[str, Check]:
    return {check.name: check for check in checks}


def test_whatever_is_not_ok_says_how_to_mend_it(paths: Paths) -> None:
    for check in doctor.examine(paths):
        assert check.found
        assert check.state is State.OK or check.mend, check


def test_tcg_is_usable(paths: Paths) -> None:
    check = by_name(doctor.examine(paths))["accelerator"]
    assert check.state is State.WARN
    assert check.found == "TCG: there is no /dev/kvm"


def answering(folder: Path, name: str, script: str) -> None:
    """Put a program of this name first in the path."""
    program = folder / name
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("missing", "state", "mend"),
    [
        ("bison", State.FAIL, "apt-get install bison"),
        ("chromium", State.WARN, "tools/kpw check"),
        ("", State.OK, ""),
    ],
)
def test_the_packages_that_are_missing_are_named(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, missing: str, state: State,
    mend: str,
) -> None:  # fmt: skip
    say = f'for name; do [ "$name" = "{missing}" ] || echo installed "$name"; done'
    answering(tmp_path, "dpkg-query", say)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    check = doctor.packages(paths)
    assert (check.state, missing in check.found) == (state, True)
    assert mend in check.mend
    assert "bc" not in check.mend


def test_kvm_that_may_not_be_opened_is_mended_by_its_group(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    node = tmp_path / "kvm"
    node.touch()
    node.chmod(0o660)
    group = 7 if os.geteuid() == 0 else os.getgid()
    os.chown(node, -1, group)
    monkeypatch.setattr(accel, "_KVM", node)
    # Root may open whatever there is.
    monkeypatch.setattr(os, "access", lambda path, _mode: path != node)
    check = by_name(doctor.examine(paths))["accelerator"]
    name = grp.getgrgid(group).gr_name
    assert f"usermod -aG {name} " in check.mend
    assert "log in again" in check.mend
    node.chmod(0o600)
    check = by_name(doctor.examine(paths))["accelerator"]
    assert "usermod" not in check.mend
    assert "a host with working KVM" in check.mend


def test_a_missing_program_is_in_the_way(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda *_args, **_more: None)
    checks = by_name(doctor.examine(paths))
    for name in ("git", "QEMU", "compiler", "guest image"):
        assert checks[name].state is State.FAIL
        assert "not installed" in checks[name].found


def test_an_old_program_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = tmp_path / "git"
    old.write_text("#!/bin/sh\necho git version 2.30.2\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    check = doctor._version("git", "git", "--version", (2, 38))
    assert check.state is State.FAIL
    assert "2.38" in check.mend


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("git version 2.39.5", (2, 39, 5)),
        ("QEMU emulator version 7.2.22 (Debian 1:7.2+dfsg-7)", (7, 2, 22)),
        ("gcc (Debian 12.2.0-14+deb12u1) 12.2.0", (12, 2, 0)),
        ("GNU Make 4.3", (4, 3)),
        ("nothing", ()),
    ],
)
def test_versions_are_found_in_words(text: str, version: tuple[int, ...]) -> None:
    assert doctor.version_in(text) == version


@pytest.mark.parametrize(
    ("kib", "state"), [(8 << 20, State.OK), (3 << 20, State.WARN), (1 << 20, State.FAIL)]
)
def test_memory_is_judged_by_what_is_available(kib: int, state: State) -> None:
    text = f"MemTotal: 99999999 kB\nMemAvailable:   {kib} kB\n"
    assert doctor.memory(text).state is state


def test_a_small_disk_is_in_the_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(tmp_path)._replace(free=1 << 30)
    monkeypatch.setattr(shutil, "disk_usage", lambda _path: usage)
    check = doctor.disk(tmp_path / "not" / "there" / "yet")
    assert check.state is State.FAIL
    assert "KPW_CACHE" in check.mend


def test_a_fault_is_a_finding_here() -> None:
    def broken() -> Check:
        raise InfraError("no sandbox", next_step="be root")

    check = doctor._guarded("sandbox", broken)
    assert (check.state, check.mend) == (State.FAIL, "be root")


@pytest.mark.parametrize(
    ("state", "code"),
    [(State.OK, ExitCode.GOOD), (State.WARN, ExitCode.GOOD), (State.FAIL, ExitCode.INFRA)],
)
def test_the_exit_code_is_that_of_the_worst(
    monkeypatch: pytest.MonkeyPatch, state: State, code: ExitCode
) -> None:
    from workbench.commands.doctor import command

    checks = (Check("a", State.OK, "fine"), Check("b", state, "so so", "mend it"))
    monkeypatch.setattr(doctor, "examine", lambda *_: checks)
    result = CliRunner().invoke(command, standalone_mode=False)
    assert result.return_value is code
    assert "-> mend it" in result.output
