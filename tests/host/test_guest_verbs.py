# SPDX-License-Identifier: GPL-2.0-only
"""``kpw boot``, ``kpw image`` and ``kpw check`` as users type them; a script stands for QEMU."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from toy_kernel import Files, ToyKernels, numbered, text

from workbench import accel, cli, image, userland
from workbench.commands import check
from workbench.errors import ExitCode
from workbench.image import GuestImage
from workbench.paths import Paths

REPO = Path(__file__).resolve().parents[2]
TCG = accel.Accelerator("tcg", "max", "for the test", 1_000_000)
LINES = numbered("state", 40)

# Plays a guest whose command ends with 7, and keeps the words it was started with.
FAKE = """\
#!/bin/sh
echo "$*" >{words}
for word; do
    case $word in
        file,id=results,path=*) results=${{word#*path=}} ;;
        file,id=output,path=*) output=${{word#*path=}} ;;
    esac
done
echo '{{"kpw":"boot","uptime":0.5,"release":"6.12.107"}}' >>"$results"
echo 'said in the guest' >>"$output"
echo '{{"kpw":"exit","status":7}}' >>"$results"
"""


@pytest.fixture
def toys(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ToyKernels:
    """Give a repository with a machine, whose QEMU is the script, and a series that conflicts."""
    found = ToyKernels(tmp_path)
    shutil.copytree(REPO / "qemu", found.paths.qemu)
    shutil.copytree(REPO / "kconfigs", found.paths.kconfigs)
    shutil.copy(REPO / "patches" / "kernels.toml", found.paths.patches)
    machine = found.paths.qemu / "x86_64.toml"
    fake = tmp_path / "fake-qemu"
    fake.write_text(FAKE.format(words=tmp_path / "words"))
    fake.chmod(0o755)
    machine.write_text(
        machine.read_text().replace('qemu = "qemu-system-x86_64"', f'qemu = "{fake}"')
    )
    before: Files = {"net/a.c": text(LINES)}
    found.kernel("v5.10.262", {**before})
    found.describe("e")
    found.patch("e/0001-x.patch", before, {"net/a.c": text(LINES, at20=b"patched\n")})
    found.kernel("v6.12.38", {"net/a.c": text(LINES, at20=b"upstream\n")})
    monkeypatch.setattr(Paths, "default", classmethod(lambda _: found.paths))
    monkeypatch.setattr(accel, "choose", lambda *_: TCG)
    return found


def test_boot_gives_the_guest_what_its_options_say_and_returns_the_commands_status(
    toys: ToyKernels,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    guest = GuestImage(tmp_path / "root", tmp_path / "lock", "")
    monkeypatch.setattr(image, "ensure_image", lambda *_: guest)
    vmlinux = tmp_path / "vmlinux"
    vmlinux.touch()
    options = ["--vmlinux", str(vmlinux), "--memory", "300", "--append", "one=1 two"]
    assert cli.main(["boot", *options, "--", "anything", "--help"]) == 7
    out, err = capfd.readouterr()
    assert out == "said in the guest\n"
    assert "for the test" in err
    words = (tmp_path / "words").read_text()
    assert " -m 300M " in words
    assert f" -kernel {vmlinux} " in words
    assert " one=1 two " in words
    assert toys.paths.runs.is_dir()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "no TAG to boot"),
        (["--vmlinux", "/no/such/file"], "/no/such/file"),
        (["--memory", "much", "v6.12.38"], "much"),
        (["--timeout", "long", "v6.12.38"], "long"),
        (["--arch", "pdp11", "v6.12.38"], "pdp11"),
        (["--flavour", "debgu", "v6.12.38"], "did you mean 'debug'?"),
        (["--only", "nothing", "v6.12.38"], "nothing"),
        (["nonsense"], "'nonsense' is not a kernel tag"),
    ],
)
@pytest.mark.usefixtures("toys")
def test_boot_refuses_words_it_cannot_take(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["boot", *words]) == ExitCode.USAGE
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("toys")
def test_boot_tells_the_patch_that_keeps_it_from_booting(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["boot", "v6.12.38", "--", "true"]) == ExitCode.CONFLICT
    err = capsys.readouterr().err
    assert "kpw: e/0001-x.patch: conflict" in err
    assert "'kpw rebase v6.12.38' tells more" in err


@pytest.fixture
def packed(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let userlands be made of nothing."""

    def make(_: userland.Plan, root: Path) -> dict[str, str]:
        root.mkdir()
        return {"bash": "5.2"}

    def pack(root: Path, into: Path, log: Path) -> None:
        into.write_bytes(root.name.encode())
        log.touch()

    monkeypatch.setattr(userland, "make", make)
    monkeypatch.setattr(image, "_pack", pack)


@pytest.mark.usefixtures("packed")
def test_image_says_where_it_is_and_relocks_when_asked(
    toys: ToyKernels, capsys: pytest.CaptureFixture[str]
) -> None:
    lock = toys.paths.qemu / "x86_64.lock"
    before = lock.read_text()
    assert cli.main(["image"]) == ExitCode.GOOD
    out = capsys.readouterr().out
    where = re.fullmatch(r"(\S+)  sha256 [0-9a-f]{64}\n", out)
    assert where is not None
    assert Path(where[1]).is_file()
    assert lock.read_text() == before
    assert cli.main(["image", "--relock"]) == ExitCode.GOOD
    assert f"wrote {lock}" in capsys.readouterr().err
    assert "bash" in lock.read_text()
    assert lock.read_text() != before


@pytest.mark.usefixtures("toys")
def test_image_refuses_an_architecture_there_is_no_machine_for(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["image", "--arch", "pdp11"]) == ExitCode.USAGE
    assert "pdp11" in capsys.readouterr().err


def test_check_runs_every_stage_and_names_those_that_failed(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def stage(name: str, code: int, *, on_request: bool = False) -> check.Stage:
        program = f"open({str(tmp_path / name)!r}, 'w'); raise SystemExit({code})"
        return check.Stage(name, ("-c", program), on_request)

    stages = (stage("lint", 1), stage("types", 0), stage("soak", 0, on_request=True))
    monkeypatch.setattr(check, "STAGES", stages)
    assert cli.main(["check"]) == ExitCode.RED
    assert sorted(each.name for each in tmp_path.iterdir()) == ["lint", "types"]
    err = capsys.readouterr().err
    assert "failed: lint; run 'tools/kpw check --stage lint'" in err
    assert "== types: ok" in err
    assert cli.main(["check", "--stage", "types", "--stage", "soak"]) == ExitCode.GOOD
    assert (tmp_path / "soak").exists()
    assert cli.main(["check", "--stage", "nothing"]) == ExitCode.USAGE
