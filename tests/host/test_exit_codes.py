# SPDX-License-Identifier: GPL-2.0-only
"""Every exit code, by provoking it on the real pipeline."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import workshop
from workshop import TAG, Workshop

from workbench.errors import ExitCode

if TYPE_CHECKING:
    import subprocess

real = pytest.mark.real


@pytest.fixture
def shop(tmp_path: Path) -> Workshop:
    return Workshop.make(tmp_path)


def line_of(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line that says why."""
    said = [line for line in done.stderr.splitlines() if line.startswith("kpw: ")]
    assert len(said) == 1, done.stderr
    assert "Traceback" not in done.stderr
    return said[0]


def cell_of(shop: Workshop) -> dict[str, str]:
    (trial,) = shop.report()["trials"]
    (cell,) = trial["cells"]
    return {"state": cell["state"], "why": " ".join(each["what"] for each in cell["reasons"])}


@real
def test_0_all_good_and_the_second_run_remembers_the_red(shop: Workshop) -> None:
    shop.toy(workshop.SAYS_TOY)
    done = shop.kpw("run", TAG)
    assert done.returncode == ExitCode.GOOD, done.stderr + done.stdout
    assert cell_of(shop)["state"] == "green"
    done = shop.kpw("run", TAG)
    assert done.returncode == ExitCode.GOOD
    assert "red 1/1 (remembered)" in done.stdout
    assert "without patches" not in done.stderr


@real
def test_1_a_test_that_fails(shop: Workshop) -> None:
    shop.toy(workshop.SAYS_TOY, workshop.TEST.format(word="something else"))
    done = shop.kpw("test", TAG)
    assert done.returncode == ExitCode.RED, done.stderr
    assert (
        "test_version_says_toy failed: AssertionError: nothing of the toy" in cell_of(shop)["why"]
    )


@real
def test_1_a_proof_that_passes_without_its_patch(shop: Workshop) -> None:
    shop.toy(workshop.SAYS_TOY, workshop.TEST.format(word="Linux"))
    done = shop.kpw("prove", TAG)
    assert done.returncode == ExitCode.RED, done.stderr
    assert "passes without its patch: an error of the series" in cell_of(shop)["why"]


@real
def test_2_usage(shop: Workshop) -> None:
    assert shop.kpw("run", "v9.99.99").returncode == ExitCode.USAGE
    assert shop.kpw("run", "not-a-tag").returncode == ExitCode.USAGE
    assert shop.kpw("run", TAG, "--only", "nothing").returncode == ExitCode.USAGE


@real
@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("@@ -", "@@ ?", ""),
        (workshop.SOURCE, "../../etc/passwd", "passwd"),
    ],
    ids=["malformed", "escaping"],
)
def test_2_a_patch_that_cannot_be_taken(shop: Workshop, old: str, new: str, said: str) -> None:
    shop.toy(workshop.SAYS_TOY)
    patch = shop.root / "patches" / "toy" / "0001-proc-a-toy.patch"
    patch.write_text(patch.read_text().replace(old, new))
    done = shop.kpw("run", TAG)
    assert done.returncode == ExitCode.USAGE, done.stderr
    assert "0001-proc-a-toy.patch" in line_of(done)
    assert said in line_of(done)


@real
def test_3_a_conflict_and_the_other_extension_is_judged(shop: Workshop) -> None:
    shop.toy(workshop.SAYS_TOY)
    shop.toy(workshop.SAYS_TOY, name="rival")
    rival = shop.root / "patches" / "rival"
    (rival / "extension.toml").write_text(
        (rival / "extension.toml").read_text().replace("T1", "T2")
    )
    patch = rival / "0001-proc-a-toy.patch"
    patch.write_text(patch.read_text().replace("kpw-toy", "kpw-rival"))
    done = shop.kpw("run", TAG)
    assert done.returncode == ExitCode.CONFLICT, done.stderr + done.stdout
    cells = {cell["extension"]: cell for cell in shop.report()["trials"][0]["cells"]}
    assert cells["toy"]["state"] == "green"
    assert cells["rival"]["state"] == "conflict"
    assert workshop.SOURCE in cells["rival"]["reasons"][0]["what"]


@real
def test_4_a_build_that_fails(shop: Workshop) -> None:
    shop.toy(workshop.BREAKS_BUILD)
    done = shop.kpw("test", TAG)
    assert done.returncode == ExitCode.BUILD, done.stderr
    assert workshop.SOURCE in cell_of(shop)["why"]
    assert "no_such_thing" in cell_of(shop)["why"]


@real
def test_5_a_panic_at_boot(shop: Workshop) -> None:
    shop.toy(workshop.PANICS)
    done = shop.kpw("test", TAG)
    assert done.returncode == ExitCode.CRASH, done.stderr
    assert "panic" in cell_of(shop)["why"]
    assert "kpw toy" in cell_of(shop)["why"]


@real
def test_5_a_selftest_that_hangs(shop: Workshop) -> None:
    shop.toy(workshop.SAYS_TOY, workshop.HANGING_TEST)
    done = shop.kpw("test", TAG)
    assert done.returncode == ExitCode.CRASH, done.stderr
    assert "silent hang in test_toy.py::test_hangs" in cell_of(shop)["why"]


@real
def test_128_no_qemu(shop: Workshop, tmp_path: Path) -> None:
    shop.toy(workshop.SAYS_TOY)
    programs = tmp_path / "bin"
    programs.mkdir()
    for folder in ("/bin", "/usr/bin"):
        for program in Path(folder).iterdir():
            if "qemu" not in program.name and not (programs / program.name).exists():
                (programs / program.name).symlink_to(program)
    assert shutil.which("qemu-system-x86_64", path=programs) is None
    shop.env["PATH"] = str(programs)
    done = shop.kpw("test", TAG)
    assert done.returncode == ExitCode.INFRA, done.stderr
    assert "qemu-system-x86_64 is not installed" in line_of(done)


@real
def test_128_a_full_disk_for_the_report_and_the_verdict_is_shown_all_the_same(
    shop: Workshop,
) -> None:
    shop.toy(workshop.SAYS_TOY)
    done = shop.kpw("run", TAG, "--json", "/dev/full")
    assert done.returncode == ExitCode.INFRA, done.stderr
    assert "no space left on the disk" in line_of(done)
    assert "verdict: GOOD" in done.stdout
