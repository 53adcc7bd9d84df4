# SPDX-License-Identifier: GPL-2.0-only
"""KVM is trusted only when a guest ran through it; a script stands for QEMU."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from workbench import accel, machine, process
from workbench.paths import Paths

REPO = Path(__file__).resolve().parents[2]


@pytest.fixture
def paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paths:
    """Return a workbench whose QEMU is ``fake-qemu``, on a host with /dev/kvm."""
    shutil.copytree(REPO / "qemu", tmp_path / "repo" / "qemu")
    toml = tmp_path / "repo" / "qemu" / "x86_64.toml"
    fake = tmp_path / "fake-qemu"
    toml.write_text(toml.read_text().replace('qemu = "qemu-system-x86_64"', f'qemu = "{fake}"'))
    kvm = tmp_path / "kvm"
    kvm.touch()
    monkeypatch.setattr(accel, "_KVM", kvm)
    monkeypatch.setattr(accel, "_PROOF_SECONDS", 0.3)
    monkeypatch.setattr("platform.machine", lambda: "x86_64")
    paths = Paths(tmp_path / "repo", tmp_path / "cache", tmp_path / "state")
    play(paths, "exit 1")
    return paths


def play(paths: Paths, script: str) -> None:
    """Let QEMU do this; ``$cpu`` is the CPU model, every call is counted."""
    fake = paths.cache.parent / "fake-qemu"
    count = paths.cache.parent / "calls"
    head = f'#!/bin/sh\nwhile [ "$1" != -cpu ]; do shift; done\ncpu=$2\necho "$cpu" >>{count}\n'
    fake.write_text(head + script + "\n")
    fake.chmod(0o755)


def calls(paths: Paths) -> list[str]:
    count = paths.cache.parent / "calls"
    return count.read_text().split() if count.exists() else []


def test_a_kvm_that_answers_is_taken(paths: Paths) -> None:
    play(paths, "exit 99")
    chosen = accel.choose(paths)
    assert (chosen.name, chosen.cpu) == ("kvm", "host")
    assert "proof guest" in chosen.reason


def test_the_ladder_goes_down(paths: Paths) -> None:
    play(paths, '[ "$cpu" = qemu64 ] && exit 99; echo "abort: msr" >&2; exit 134')
    chosen = accel.choose(paths)
    assert (chosen.name, chosen.cpu) == ("kvm", "qemu64")
    assert calls(paths) == ["host", "max", "qemu64"]


def test_a_kvm_that_hangs_is_not_trusted(paths: Paths) -> None:
    play(paths, "exec sleep 60")
    chosen = accel.choose(paths)
    assert (chosen.name, chosen.cpu) == ("tcg", "max")
    assert "-cpu host, max, qemu64: no answer in 0.3 s" in chosen.reason


def test_a_kvm_that_aborts_is_quoted(paths: Paths) -> None:
    play(paths, "echo 'qemu: kvm_put_msrs failed' >&2; exit 134")
    assert "kvm_put_msrs failed" in accel.choose(paths).reason


def test_a_wrong_answer_is_none(paths: Paths) -> None:
    play(paths, "exit 0")
    assert accel.choose(paths).name == "tcg"


def test_no_kvm_is_said_and_nothing_tried(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(accel, "_KVM", paths.cache / "no-kvm")
    assert "there is no" in accel.choose(paths).reason
    assert calls(paths) == []


def test_a_foreign_guest_has_no_kvm(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("platform.machine", lambda: "aarch64")
    chosen = accel.choose(paths)
    assert chosen.name == "tcg"
    assert "aarch64" in chosen.reason


def test_the_answer_is_remembered(paths: Paths) -> None:
    play(paths, "exit 99")
    first = accel.choose(paths)
    assert accel.choose(paths) == first
    assert calls(paths) == ["host"]


def test_another_boot_of_the_host_asks_again(
    paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    play(paths, "exit 99")
    accel.choose(paths)
    other = tmp_path / "boot_id"
    other.write_text("another\n")
    monkeypatch.setattr(accel, "_BOOT_ID", other)
    accel.choose(paths)
    assert calls(paths) == ["host", "host"]


def test_another_qemu_asks_again(paths: Paths) -> None:
    play(paths, "exit 99")
    accel.choose(paths)
    play(paths, "exit 98 # and longer")
    assert accel.choose(paths).name == "tcg"


def test_a_damaged_memory_is_no_answer(paths: Paths) -> None:
    play(paths, "exit 99")
    accel.choose(paths)
    (paths.cache / "accelerator-x86_64.json").write_text("{")
    assert accel.choose(paths).name == "kvm"


def test_the_counter_is_measured_alike_twice() -> None:
    first, second = accel.host_tsc_khz(), accel.host_tsc_khz()
    assert first == pytest.approx(second, rel=0.01)
    assert first > 100_000


@pytest.mark.real
def test_the_proof_guest_answers_under_tcg(tmp_path: Path) -> None:
    paths = Paths(REPO, tmp_path, tmp_path)
    description = machine.load(paths, "x86_64")
    proof = description.proof
    assert proof is not None
    rom = tmp_path / "proof.rom"
    process.run(["gcc", *proof.build, "-o", rom, paths.qemu / proof.source])
    words = [description.qemu, "-nodefaults", "-display", "none", "-no-reboot", "-m", "16M"]
    words += ["-M", description.machine, "-cpu", "max", "-accel", "tcg", "-bios", str(rom)]
    done = process.run([*words, *proof.arguments], check=False, timeout=60)
    assert done.returncode == proof.answer


@pytest.mark.real
def test_this_host_gets_an_accelerator(tmp_path: Path) -> None:
    chosen = accel.choose(Paths(REPO, tmp_path, tmp_path))
    assert chosen.name in {"kvm", "tcg"}
