# SPDX-License-Identifier: GPL-2.0-only
"""QEMU's command line from a machine description."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from workbench import machine
from workbench.accel import Accelerator
from workbench.errors import UsageError
from workbench.machine import Wiring
from workbench.paths import Paths

REPO = Path(__file__).resolve().parents[2]
PATHS = Paths(REPO, Path("/cache"), Path("/state"))
TCG = Accelerator("tcg", "max", "", 2_300_000)
KVM = Accelerator("kvm", "host", "", 2_300_000)
WIRING = Wiring(
    kernel=Path("/k/vmlinux"),
    root=Path("/i/root.erofs"),
    payload=Path("/r/payload.tar"),
    console=Path("/r/console"),
    results=Path("/r/results"),
    output=Path("/r/output"),
)


def words(wiring: Wiring = WIRING, accelerator: Accelerator = TCG) -> list[str]:
    return list(machine.argv(machine.load(PATHS, "x86_64"), wiring, accelerator))


def after(argv: list[str], option: str) -> str:
    return argv[argv.index(option) + 1]


def test_the_guest_reaches_no_network() -> None:
    argv = words()
    assert "-nodefaults" in argv
    assert not [word for word in argv if word.startswith(("-net", "-nic", "virtio-net", "user,"))]


def test_no_disk_of_ours_is_written() -> None:
    drives = [word for word in words() if word.startswith("id=")]
    assert len(drives) == 2
    assert all("readonly=on" in drive for drive in drives)


def test_the_clock_is_told_not_measured() -> None:
    line = after(words(), "-append").split()
    assert "tsc_early_khz=2300000" in line
    assert "tsc=reliable" in line
    assert "panic=-1" in line
    assert "-no-reboot" in words()


def test_the_users_words_come_last() -> None:
    wiring = replace(WIRING, append=("init=/bin/sh", "quiet"))
    assert after(words(wiring), "-append").split()[-2:] == ["init=/bin/sh", "quiet"]


def test_there_is_one_processor_but_where_the_boot_asks_for_more() -> None:
    assert after(words(), "-smp") == "1"
    assert after(words(replace(WIRING, append=("fips=1", "maxcpus=2"))), "-smp") == "2"
    assert after(words(replace(WIRING, append=("quiet maxcpus=4",))), "-smp") == "4"


def test_a_comma_in_a_path_is_no_option() -> None:
    wiring = replace(WIRING, results=Path("/r,readonly/results"))
    assert "file,id=results,path=/r,,readonly/results" in words(wiring)


def test_a_terminal_is_one_more_console() -> None:
    assert "virtconsole,chardev=terminal" not in words()
    assert "virtconsole,chardev=terminal" in words(replace(WIRING, terminal=True))


def test_memory_can_be_chosen() -> None:
    assert after(words(replace(WIRING, memory_mib=256)), "-m") == "256M"


def test_every_machine_of_the_repository_loads() -> None:
    assert "x86_64" in machine.architectures(PATHS)
    for arch in machine.architectures(PATHS):
        assert machine.load(PATHS, arch).qemu


def test_another_architecture_is_one_more_file(tmp_path: Path) -> None:
    shutil.copytree(REPO / "qemu", tmp_path / "qemu")
    (tmp_path / "qemu" / "arm64.toml").write_text(
        'debian = "arm64"\ncompiler = ["aarch64-linux-gnu-gcc", "-static"]\n'
        'qemu = "qemu-system-aarch64"\nkernel = "Image"\nmemory_mib = 1024\n'
        'machine = "virt"\ncpu_tcg = "max"\ncpu_kvm = ["host"]\nvirtio_suffix = "device"\n'
        'command_line = ["console=ttyAMA0", "root=/dev/vda"]\n'
    )
    paths = Paths(tmp_path, tmp_path, tmp_path)
    assert machine.architectures(paths) == ("arm64", "x86_64")
    argv = machine.argv(machine.load(paths, "arm64"), WIRING, TCG)
    assert argv[0] == "qemu-system-aarch64"
    assert after(list(argv), "-append") == "console=ttyAMA0 root=/dev/vda"


def test_an_unknown_architecture_names_the_known() -> None:
    with pytest.raises(UsageError, match="x86_64"):
        machine.load(PATHS, "pdp11")
    with pytest.raises(UsageError, match="did you mean 'x86_64'"):
        machine.load(PATHS, "x86_46")


def test_the_image_recipe_is_no_machine() -> None:
    assert not {"image", "console"} & set(machine.architectures(PATHS))


def test_a_wrong_description_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "qemu").mkdir()
    (tmp_path / "qemu" / "odd.toml").write_text('debian = "amd64"\n')
    with pytest.raises(UsageError, match=r"odd\.toml"):
        machine.load(Paths(tmp_path, tmp_path, tmp_path), "odd")


def test_the_accelerator_brings_its_cpu() -> None:
    under_kvm = words(accelerator=KVM)
    assert after(under_kvm, "-accel") == "kvm"
    assert after(under_kvm, "-cpu") == "host"
    assert after(words(), "-accel") == "tcg,thread=single"


def test_several_cpus_run_at_once() -> None:
    two = replace(WIRING, append=("maxcpus=2",))
    assert after(words(two), "-accel") == "tcg,thread=multi"
    assert after(words(two, accelerator=KVM), "-accel") == "kvm"
