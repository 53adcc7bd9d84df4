# SPDX-License-Identifier: GPL-2.0-only
"""A guest's life as the host sees it: a script stands for QEMU, and real guests if asked for."""

from __future__ import annotations

import os
import textwrap
import time
from concurrent.futures import CancelledError
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from workbench import accel, boot, image
from workbench.boot import BootOptions, GuestRun
from workbench.errors import InfraError
from workbench.image import GuestImage
from workbench.model import BuiltKernel, SplatKind
from workbench.paths import Paths
from workbench.payload import Payload
from workbench.progress import Silent

REPO = Path(__file__).resolve().parents[2]
TCG = accel.Accelerator("tcg", "max", "for the test", 1_000_000)

# Plays a guest: finds the files QEMU would write in its arguments.
FAKE = """\
#!/bin/sh
for word; do
    case $word in
        file,id=console,path=*) console=${word#*path=} ;;
        file,id=results,path=*) results=${word#*path=} ;;
        file,id=output,path=*) output=${word#*path=} ;;
    esac
done
started() { echo '{"kpw":"boot","uptime":0.5,"release":"6.12.107"}' >>"$results"; }
ended() { echo "{\\"kpw\\":\\"exit\\",\\"status\\":$1}" >>"$results"; }
"""


@pytest.fixture
def paths(tmp_path: Path) -> Paths:
    (tmp_path / "repo" / "qemu").mkdir(parents=True)
    qemu = (REPO / "qemu" / "x86_64.toml").read_text()
    fake = tmp_path / "fake-qemu"
    text = qemu.replace('qemu = "qemu-system-x86_64"', f'qemu = "{fake}"')
    (tmp_path / "repo" / "qemu" / "x86_64.toml").write_text(text)
    patterns = (REPO / "qemu" / "console.toml").read_text()
    (tmp_path / "repo" / "qemu" / "console.toml").write_text(patterns)
    return Paths(tmp_path / "repo", tmp_path / "cache", tmp_path / "state")


def play(paths: Paths, script: str, options: BootOptions | None = None, **more: object) -> GuestRun:
    fake = paths.cache.parent / "fake-qemu"
    fake.write_text(FAKE + textwrap.dedent(script))
    fake.chmod(0o755)
    settings = options or BootOptions(boot_deadline=60, step_deadline=60, total_deadline=90)
    settings = replace(settings, where=paths.state / "run", accelerator=TCG)
    guest = GuestImage(paths.cache / "root", paths.cache / "lock", "")
    return boot.boot(paths, Path("vmlinux"), guest, Payload("true"), settings, **more)  # type: ignore[arg-type]


def kinds(run: GuestRun) -> list[SplatKind]:
    return [splat.kind for splat in run.splats]


def test_a_good_run(paths: Paths) -> None:
    lines: list[str] = []
    run = play(paths, "started; echo result >>$results; ended 0", on_line=lines.append)
    assert run.finished
    assert run.exit_status == 0
    assert run.splats == ()
    assert run.boot_seconds is not None
    assert [line for line in lines if not line.startswith("{")] == ["result"]
    assert not (paths.state / "run" / "payload.tar").exists()


def test_a_snapshot_that_cannot_be_taken_costs_a_boot_and_no_more(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(paths.repo)
    Path("vmlinux").touch()
    script = """\
        case "$*" in
            --version) echo 1.0 ;;
            *" -qmp "*) started; echo '{"kpw":"ready"}' >>"$results"; exec sleep 60 ;;
            *) started; ended 3 ;;
        esac"""
    lines: list[str] = []
    run = play(paths, script, BootOptions(snapshot=True), on_line=lines.append)
    assert (run.exit_status, run.finished, run.splats) == (3, True, ())
    assert lines[-1] == '{"kpw":"exit","status":3}'
    assert run.results.read_text().count("boot") == 1, "nothing is left of the first guest"
    assert list((paths.cache / "snapshots").iterdir()) == []


def test_the_exit_status_is_the_commands(paths: Paths) -> None:
    run = play(paths, "started; ended 7")
    assert (run.exit_status, run.finished) == (7, True)


def test_output_is_passed_on_as_it_comes(paths: Paths) -> None:
    seen: list[bytes] = []
    heard = paths.cache.parent / "heard"

    def hear(data: bytes) -> None:
        seen.append(data)
        heard.touch()

    script = f"""\
        started; printf one >>$output
        until [ -e {heard} ]; do sleep 0.01; done
        printf two >>$output; ended 0"""
    play(paths, script, BootOptions(on_output=hear))
    assert seen == [b"one", b"two"]


def test_a_guest_that_nobody_waits_for_any_more_is_ended(paths: Paths) -> None:
    guest = paths.cache.parent / "guest"
    patience = time.monotonic() + 60

    def go_on() -> None:
        assert time.monotonic() < patience
        if guest.exists() and guest.read_text():
            raise CancelledError

    script = f"started; echo $$ >{guest}; sleep 600"
    with pytest.raises(CancelledError):
        play(paths, script, BootOptions(go_on=go_on))
    assert not Path("/proc", guest.read_text().strip()).exists()
    assert not (paths.state / "run" / "payload.tar").exists()


def test_what_a_test_prints_is_no_splat(paths: Paths) -> None:
    run = play(paths, "started; echo 'Kernel panic - not syncing: no' >>$output; ended 0")
    assert run.splats == ()


def test_a_warning_is_told_and_the_run_goes_on(paths: Paths) -> None:
    run = play(
        paths,
        "started; echo '[ 1.0] WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2' >>$console; ended 0",
    )
    assert run.finished
    assert kinds(run) == [SplatKind.WARN]


def test_a_panic_ends_the_run_at_once(paths: Paths) -> None:
    run = play(
        paths,
        "started; echo 'Kernel panic - not syncing: x' >>$console; exec sleep 60",
        BootOptions(step_deadline=50),
    )
    assert kinds(run) == [SplatKind.PANIC]
    assert run.exit_status is None
    assert not run.finished


def test_a_panic_before_the_first_line(paths: Paths) -> None:
    run = play(paths, "echo 'Kernel panic - not syncing: VFS: no root' >>$console; exit 0")
    assert kinds(run) == [SplatKind.PANIC]
    assert run.boot_seconds is None


def test_silence_after_the_start_is_a_hang(paths: Paths) -> None:
    options = BootOptions(step_deadline=0.3)
    run = play(paths, "echo '[ 1.0] the last words' >>$console; started; exec sleep 60", options)
    assert kinds(run) == [SplatKind.HANG]
    assert "the last words" in run.splats[0].excerpt
    assert not run.finished


def test_silence_from_the_start_is_a_hang(paths: Paths) -> None:
    run = play(paths, "exec sleep 60", BootOptions(boot_deadline=0.3))
    assert kinds(run) == [SplatKind.HANG]


def test_a_guest_that_never_gets_done_is_a_hang(paths: Paths) -> None:
    options = BootOptions(step_deadline=60, total_deadline=0.5)
    run = play(paths, "started; while sleep 0.05; do echo x >>$results; done", options)
    assert kinds(run) == [SplatKind.HANG]
    assert "not done after" in run.splats[0].line


def test_a_guest_that_lives_may_take_as_long_as_it_takes(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A clock in which every wait of the script below is a day.
    fast = SimpleNamespace(monotonic=lambda: time.monotonic() * 1_000_000)
    monkeypatch.setattr("workbench.watch.time", fast)
    monkeypatch.setattr("workbench.watch._POWER_OFF", 1e12)
    options = BootOptions(boot_deadline=1e12, step_deadline=1e12)
    script = "started; for n in 1 2 3; do sleep 0.1; echo $n >>$results; done; ended 0"
    run = play(paths, script, options)
    assert run.seconds > 86_400
    assert kinds(run) == []
    assert run.finished


def test_the_listener_sets_the_next_deadline(paths: Paths) -> None:
    run = play(
        paths,
        "started; sleep 0.7; ended 0",
        BootOptions(step_deadline=0.2),
        on_line=lambda _line: 60.0,
    )
    assert run.finished


def test_a_guest_that_says_goodbye_but_stays_is_not_finished(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.watch._POWER_OFF", 0.2)
    run = play(paths, "started; ended 0; exec sleep 60")
    assert kinds(run) == [SplatKind.HANG]
    assert not run.finished


def test_a_qemu_that_dies_is_told_with_its_last_words(paths: Paths) -> None:
    run = play(paths, "started; echo 'qemu: out of luck' >&2; exit 3")
    assert kinds(run) == [SplatKind.QEMU_DEATH]
    assert "code 3" in run.splats[0].line
    assert "out of luck" in run.splats[0].line


def test_a_killed_qemu_is_told_by_its_signal(paths: Paths) -> None:
    run = play(paths, "started; kill -9 $$")
    assert "signal 9" in run.splats[0].line


def test_a_guest_that_resets_without_a_word_never_passes(paths: Paths) -> None:
    run = play(paths, "started; echo passed >>$results; exit 0")
    assert kinds(run) == [SplatKind.QEMU_DEATH]
    assert (run.exit_status, run.finished) == (None, False)


def test_a_qemu_that_cannot_start_is_a_fault(paths: Paths) -> None:
    with pytest.raises(InfraError, match="no such machine"):
        play(paths, "echo 'qemu: no such machine' >&2; exit 1")


def test_a_missing_qemu_is_a_fault(paths: Paths) -> None:
    toml = paths.qemu / "x86_64.toml"
    toml.write_text(toml.read_text().replace("fake-qemu", "no-such-qemu"))
    with pytest.raises(InfraError, match="not installed"):
        play(paths, "")


def test_a_full_disk_is_a_fault_not_a_death(paths: Paths, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.watch._LEAST_FREE", 1 << 62)
    with pytest.raises(InfraError, match="no space left"):
        play(paths, "started; exit 0")


def test_a_guest_that_writes_without_end_is_stopped(
    paths: Paths, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.watch._MOST_BYTES", 10_000)
    run = play(paths, "started; while :; do echo xxxxxxxxxxxxxxxxxxxxxxxx >>$output; done")
    assert kinds(run) == [SplatKind.HANG]


def test_a_broken_result_line_is_no_end(paths: Paths) -> None:
    run = play(paths, """started; echo '{"kpw":"exit","sta' >>$results; exit 0""")
    assert run.exit_status is None


def test_an_interruption_leaves_no_child(paths: Paths) -> None:
    pid_file = paths.cache.parent / "pid"

    def interrupt(_line: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        play(paths, f"echo $$ >{pid_file}; started; exec sleep 60", on_line=interrupt)
    with pytest.raises(ProcessLookupError):
        os.killpg(int(pid_file.read_text()), 0)


def test_an_old_run_in_the_same_folder_is_not_read_again(paths: Paths) -> None:
    play(paths, "started; ended 0")
    run = play(paths, "started; exit 0")
    assert run.exit_status is None


@pytest.fixture(scope="session")
def vmlinux() -> Path:
    """Return the default tag's kernel without patches, the one 'kpw run' asks for red."""
    if named := os.environ.get("KPW_TEST_VMLINUX"):
        return Path(named)
    return unpatched("plain")


def unpatched(flavour: str) -> Path:
    from workbench import build, extensions, source
    from workbench.gitstore import Store

    paths = Paths.default()
    names = tuple(each.name for each in extensions.load_extensions(paths))
    tag = str(source.default_tag(paths))
    kernel = source.obtain(paths, tag, repo=None, progress=Silent())
    request = build.BuildRequest(kernel, kernel.tree, names, flavour)
    built = build.build(paths, Store.open(paths), request, Silent())
    assert isinstance(built, BuiltKernel), built
    return built.vmlinux


def real(vmlinux: Path, where: Path, command: str, options: BootOptions | None = None) -> GuestRun:
    paths = Paths.default()
    guest = image.ensure_image(paths, Silent())
    settings = replace(options or BootOptions(), where=where)
    return boot.boot(paths, vmlinux, guest, Payload(f"#!/bin/sh\n{command}\n"), settings)


@pytest.mark.real
def test_a_real_guest_runs_a_command(vmlinux: Path, tmp_path: Path) -> None:
    run = real(vmlinux, tmp_path, "id -u; exit 42")
    assert (run.exit_status, run.finished, run.splats) == (42, True, ())
    assert run.output.read_text() == "0\n"


@pytest.mark.real
def test_a_real_panic_is_named_within_seconds(vmlinux: Path, tmp_path: Path) -> None:
    run = real(vmlinux, tmp_path, "echo c >/proc/sysrq-trigger; sleep 100")
    assert kinds(run) == [SplatKind.PANIC]
    assert "sysrq triggered crash" in run.splats[0].line
    assert not run.finished


PROVOKED = {
    "BUG": SplatKind.BUG,
    "WARNING": SplatKind.WARN,
    "EXCEPTION": SplatKind.OOPS,
    "HUNG_TASK": SplatKind.HUNG_TASK,
    "SOFTLOCKUP": SplatKind.BUG,
}
# Sooner than in a trial: the test is about the name, not the wait.
IMPATIENT = (
    "sysctl.kernel.hung_task_timeout_secs=2",
    "sysctl.kernel.hung_task_check_interval_secs=1",
    "watchdog_thresh=2",
)


@pytest.mark.real
@pytest.mark.parametrize("crash", PROVOKED)
def test_a_real_fault_of_the_kernel_is_named(vmlinux: Path, tmp_path: Path, crash: str) -> None:
    provoke = f"echo {crash} >/sys/kernel/debug/provoke-crash/DIRECT & sleep 8"
    # A CPU that spins lets nothing end by itself.
    options = BootOptions(append=IMPATIENT, step_deadline=15)
    run = real(vmlinux, tmp_path, provoke, options)
    assert kinds(run)[:1] == [PROVOKED[crash]]
    assert run.splats[0].excerpt


# Closing a packet socket waits for a grace period. With several who do little else one is always
# under way, for the CPU that then spins to hold up.
HOLD_UP_A_GRACE_PERIOD = """
import os, random, socket, time
for _ in range(6):
    if os.fork() == 0:
        while True:
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
            time.sleep(random.random() / 500)
time.sleep(3)
with open("/sys/kernel/debug/provoke-crash/DIRECT", "w") as provoke:
    provoke.write("SOFTLOCKUP")
"""


@pytest.mark.real
def test_a_real_rcu_stall_is_named(vmlinux: Path, tmp_path: Path) -> None:
    patient_watchdog = ("rcupdate.rcu_cpu_stall_timeout=3", "watchdog_thresh=30")
    options = BootOptions(append=patient_watchdog, step_deadline=25)
    run = real(vmlinux, tmp_path, f"exec python3 -c '{HOLD_UP_A_GRACE_PERIOD}'", options)
    assert kinds(run)[:1] == [SplatKind.RCU_STALL]
    assert run.splats[0].excerpt


@pytest.mark.soak
@pytest.mark.parametrize(
    ("crash", "kind"),
    [("READ_AFTER_FREE", SplatKind.KASAN), ("SPINLOCKUP", SplatKind.LOCKDEP)],
)
def test_what_only_a_debug_kernel_sees_is_named(
    tmp_path: Path, crash: str, kind: SplatKind
) -> None:
    provoke = f"echo {crash} >/sys/kernel/debug/provoke-crash/DIRECT & sleep 10"
    run = real(unpatched("debug"), tmp_path, provoke)
    assert kind in kinds(run)


@pytest.mark.real
def test_a_real_out_of_memory_is_named(vmlinux: Path, tmp_path: Path) -> None:
    options = BootOptions(memory_mib=256)
    # It locks its pages: a guest that has to read its programs again and again takes minutes.
    lock = "import ctypes; ctypes.CDLL(None).mlockall(3)"
    hog = f"python3 -c '{lock}; x = [b\"x\" * (1 << 20) + bytes([i % 256]) for i in range(4096)]'"
    run = real(vmlinux, tmp_path, hog, options)
    assert SplatKind.OOM in kinds(run)


@pytest.mark.real
def test_a_restored_guest_does_the_work_it_is_given(vmlinux: Path, tmp_path: Path) -> None:
    paths = replace(Paths.default(), cache=tmp_path / "cache")
    guest = image.ensure_image(Paths.default(), Silent())
    proven = accel.choose(Paths.default())
    options = BootOptions(where=tmp_path / "run", snapshot=True, accelerator=proven)

    def answer(code: int) -> int | None:
        work = Payload("#!/bin/sh\nexit 99\n", (("start.py", f"exit({code})".encode()),))
        run = boot.boot(paths, vmlinux, guest, work, options)
        assert run.finished
        assert run.splats == ()
        assert run.boot_seconds is not None
        return run.exit_status

    assert answer(3) == 3
    (kept,) = (paths.cache / "snapshots").iterdir()
    assert answer(4) == 4
    made = kept.stat().st_ino
    kept.write_bytes(kept.read_bytes()[: 1 << 20])
    assert answer(5) == 5
    (anew,) = (paths.cache / "snapshots").iterdir()
    assert anew.stat().st_ino != made, "a damaged snapshot gives way to a boot, and to a new one"


@pytest.mark.real
def test_a_real_hang_meets_its_deadline(vmlinux: Path, tmp_path: Path) -> None:
    run = real(vmlinux, tmp_path, "sleep 100", BootOptions(step_deadline=3))
    assert kinds(run) == [SplatKind.HANG]


@pytest.mark.real
def test_a_real_panic_at_boot(vmlinux: Path, tmp_path: Path) -> None:
    run = real(vmlinux, tmp_path, "true", BootOptions(append=("init=/no/such/init",)))
    assert SplatKind.PANIC in kinds(run)
    assert run.boot_seconds is None


@pytest.mark.real
def test_nobody_in_the_guest_keeps_it_from_ending(vmlinux: Path, tmp_path: Path) -> None:
    holder = "exec 9>/dev/virtio-ports/kpw.results; trap '' TERM; sleep 1000 & exit 3"
    run = real(vmlinux, tmp_path, holder)
    assert (run.exit_status, run.finished) == (3, True)


@pytest.mark.real
def test_a_real_qemu_that_is_killed(vmlinux: Path, tmp_path: Path) -> None:
    paths = Paths.default()
    guest = image.ensure_image(paths, Silent())

    def kill(_line: str) -> None:
        for process in Path("/proc").glob("[0-9]*/cmdline"):
            words = process.read_bytes().split(b"\0")
            if b"qemu-system" in words[0] and str(tmp_path).encode() in b" ".join(words):
                os.kill(int(process.parent.name), 9)

    options = BootOptions(where=tmp_path)
    run = boot.boot(paths, vmlinux, guest, Payload("#!/bin/sh\nsleep 100\n"), options, kill)
    assert kinds(run) == [SplatKind.QEMU_DEATH]
