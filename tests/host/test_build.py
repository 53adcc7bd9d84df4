# SPDX-License-Identifier: GPL-2.0-only
"""The build, from fragments to the cache: real make, gcc, ccache and sandbox on a toy kernel."""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy_kernel import ToyKernels

from workbench import build, buildlog, cli, configure, kernelcache, process
from workbench.build import BuildRequest
from workbench.errors import ExitCode, InfraError
from workbench.model import BuildFailure, BuiltKernel
from workbench.paths import Paths
from workbench.progress import Silent
from workbench.recipe import LeaveOut

if TYPE_CHECKING:
    from toy_kernel import Files

    from workbench.progress import Progress

# Does what the kernel's own Makefile does with the same words: an output
# directory, conf (which drops what it does not know), objects, a link.
MAKEFILE = b"""\
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 1
EXTRAVERSION =
out := $(CURDIR)/$(O)
allnoconfig:
	@grep -E '^CONFIG_(KNOWN|LEVEL|SLOW)=' $(KCONFIG_ALLCONFIG) > $(out)/.config; true
syncconfig:
	@mkdir -p $(out)/include/config
	@echo 'ifneq "$$(srctree)" "$(CURDIR)"' > $(out)/include/config/auto.conf.cmd
	@echo '6.12.1' > $(out)/include/config/kernel.release
vmlinux: $(out)/vmlinux
$(out)/vmlinux: $(out)/a.o $(out)/b.o
	@ld -r -o $(out)/vmlinux.o $^
	@cp $(out)/vmlinux.o $@
$(out)/%.o: %.c $(out)/.config
	@echo "  CC      $*.o"
	@$(CC) -c -o $@ $<
"""
KCONFIG = b"""\
config KNOWN
	bool "Known"
config LEVEL
	int "Level"
config SLOW
	bool "Slow"
config NEEDY
	bool "Needy"
	depends on SLOW
"""
FILES: Files = {
    "Makefile": MAKEFILE,
    "Kconfig": KCONFIG,
    "a.c": b"int a;\n",
    "b.c": b"int b(void) { return 1; }\n",
}
OUTSIDE = "/var/tmp"  # noqa: S108 - nothing shall come to be there
REPO = Path(__file__).resolve().parents[2]
RECIPE = 'kernel-arch = "x86_64"\ntarget = "vmlinux"\nartefact = "vmlinux"\n'


class Shop:
    """A toy kernel, its fragments, and builds of it."""

    def __init__(self, root: Path) -> None:
        """Import the kernel and write the fragments."""
        self.toy = ToyKernels(root)
        self.paths = self.toy.paths
        self.kernel = self.toy.kernel("v6.12.1", FILES)
        # The check of the configuration runs the workbench itself.
        (self.paths.repo / "tools").symlink_to(REPO / "tools")
        self.fragment("base", "CONFIG_KNOWN=y\nCONFIG_LEVEL=3\n")
        self.fragment("arch/x86_64", "")
        (self.paths.kconfigs / "arch/x86_64.toml").write_text(RECIPE)

    def fragment(self, name: str, text: str) -> None:
        file = self.paths.kconfigs / f"{name}.config"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def tree(self, **changed: bytes) -> str:
        return self.toy.tree({**FILES, **{f"{name}.c": data for name, data in changed.items()}})

    def build(
        self, tree: str | None = None, progress: Progress | None = None, flavour: str = "plain"
    ) -> BuiltKernel | BuildFailure:
        request = BuildRequest(self.kernel, tree or self.kernel.tree, flavour=flavour)
        return build.build(self.paths, self.toy.store, request, progress or Silent())

    def good(self, tree: str | None = None, flavour: str = "plain") -> BuiltKernel:
        done = self.build(tree, flavour=flavour)
        assert isinstance(done, BuiltKernel), done
        return done

    def failed(self, tree: str | None = None) -> BuildFailure:
        done = self.build(tree)
        assert isinstance(done, BuildFailure), done
        return done

    @property
    def room(self) -> Path:
        return self.paths.trees / self.kernel.name

    @property
    def out(self) -> Path:
        return self.room / "out-x86_64-plain"


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def compiled(done: BuiltKernel) -> list[str]:
    return sorted(re.findall(r"^  CC +(\S+)$", done.log.read_text(), re.MULTILINE))


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_kernel_comes_with_its_configuration_and_log(shop: Shop) -> None:
    done = shop.good()
    assert done.vmlinux.read_bytes().startswith(b"\x7fELF")
    assert done.config.read_text() == "CONFIG_KNOWN=y\nCONFIG_LEVEL=3\n"
    assert compiled(done) == ["a.o", "b.o"]
    assert (done.release, done.cached, done.flavour) == ("6.12.1", False, "plain")


def test_a_second_build_touches_nothing(shop: Shop) -> None:
    first = shop.good()
    shutil.rmtree(shop.paths.trees)
    second = shop.good()
    assert second.cached
    assert (second.key, second.vmlinux) == (first.key, first.vmlinux)
    assert not shop.paths.trees.exists()


def test_a_damaged_kernel_is_built_again(shop: Shop) -> None:
    first = shop.good()
    whole = digest(first.vmlinux)
    with first.vmlinux.open("r+b") as file:
        file.write(b"damage")
    again = shop.good()
    assert not again.cached
    assert digest(again.vmlinux) == whole


@pytest.mark.parametrize("lost", ["vmlinux", "config", "build.json"])
def test_a_kernel_that_lost_a_file_is_built_again(shop: Shop, lost: str) -> None:
    first = shop.good()
    (first.vmlinux.parent / lost).unlink()
    assert not shop.good().cached


def test_a_new_time_alone_does_no_harm(shop: Shop) -> None:
    os.utime(shop.good().vmlinux, (1, 1))
    assert shop.good().cached


def test_another_series_compiles_only_what_it_touches(shop: Shop) -> None:
    plain = shop.good()
    patched = shop.good(shop.tree(b=b"int b(void) { return 2; }\n"))
    assert compiled(patched) == ["b.o"]
    assert patched.key != plain.key
    assert digest(patched.vmlinux) != digest(plain.vmlinux)


def test_in_place_and_from_nothing_come_to_the_same(shop: Shop) -> None:
    changed = shop.tree(b=b"int b(void) { return 2; }\n")
    shop.good()
    in_place = digest(shop.good(changed).vmlinux)
    shutil.rmtree(shop.paths.cache / "trees")
    shutil.rmtree(shop.paths.kernels)
    assert digest(shop.good(changed).vmlinux) == in_place


def test_the_configuration_is_left_alone_when_nothing_changed(shop: Shop) -> None:
    shop.good()
    before = (shop.out / ".config").stat().st_mtime_ns
    shop.good(shop.tree(b=b"int b;\n"))
    assert (shop.out / ".config").stat().st_mtime_ns == before


def test_a_configuration_changed_by_hand_is_made_again(shop: Shop) -> None:
    shop.good()
    (shop.out / ".config").write_text("CONFIG_KNOWN=y\nCONFIG_LEVEL=4\n")
    done = shop.good(shop.tree(b=b"int b;\n"))
    assert done.config.read_text() == "CONFIG_KNOWN=y\nCONFIG_LEVEL=3\n"


def test_a_flavour_has_its_own_key_and_output(shop: Shop) -> None:
    shop.fragment("flavour/slow", "CONFIG_SLOW=y\n")
    plain, slow = shop.good(), shop.good(flavour="slow")
    assert plain.key != slow.key
    assert "CONFIG_SLOW=y" in slow.config.read_text()
    assert compiled(shop.good(shop.tree(b=b"int b;\n"))) == ["b.o"]


NEEDS_USB = {
    "a source": {"Makefile": MAKEFILE + b"$(out)/b.o: drivers/usb/usb.c\n"},
    "a header by its path": {"a.c": b'#include "drivers/usb/usb.h"\n'},
    "a header on a search path": {
        "Makefile": MAKEFILE.replace(b"$(CC)", b"$(CC) -Idrivers/usb"),
        "a.c": b'#include "usb.h"\n',
    },
}


@pytest.mark.parametrize("what", NEEDS_USB)
def test_a_build_that_needs_what_is_left_out_fails_and_says_how_to_have_it(
    shop: Shop, what: str
) -> None:
    arch = shop.paths.kconfigs / "arch/x86_64.toml"
    usb: Files = {"drivers/usb/usb.h": b"int usb;\n", "drivers/usb/usb.c": b"int c;\n"}
    tree = shop.toy.tree({**FILES, **usb, **NEEDS_USB[what]})
    arch.write_text(RECIPE + '[leave-out]\nfolders = ["drivers/*"]\n')
    assert shop.failed(tree).reason.endswith(
        '(kconfigs/arch/x86_64.toml leaves out drivers/usb: add "!drivers/usb" to its folders)'
    )
    arch.write_text(RECIPE + '[leave-out]\nfolders = ["drivers/*", "!drivers/usb"]\n')
    shop.good(tree)


def test_a_missing_header_that_may_be_in_two_folders_is_no_guess(shop: Shop) -> None:
    arch = shop.paths.kconfigs / "arch/x86_64.toml"
    arch.write_text(RECIPE + '[leave-out]\nfolders = ["drivers/*"]\n')
    both: Files = {"drivers/usb/core.h": b"int u;\n", "drivers/mmc/core.h": b"int m;\n"}
    tree = shop.toy.tree({**FILES, **both, "a.c": b'#include "core.h"\n'})
    assert shop.failed(tree).reason.endswith("fatal error: core.h: No such file or directory")


def test_an_unmet_symbol_is_a_finding_with_its_line_and_reason(shop: Shop) -> None:
    shop.fragment("base", "CONFIG_KNOWN=y\n\nCONFIG_NEEDY=y\nCONFIG_KNWON=y\n")
    failure = shop.failed()
    assert [(item.symbol, item.line, item.got) for item in failure.unmet] == [
        ("NEEDY", 3, "n"),
        ("KNWON", 4, "n"),
    ]
    assert failure.reason == (
        "kconfigs/base.config:3: CONFIG_NEEDY=y came out as n:"
        " it depends on CONFIG_SLOW, which is off (and 1 more)"
    )
    assert "base.config:4" in failure.excerpt
    assert "did you mean CONFIG_KNOWN?" in failure.excerpt
    shop.fragment("base", "CONFIG_KNOWN=y\n")
    assert shop.good().config.read_text() == "CONFIG_KNOWN=y\n"


@pytest.mark.parametrize(
    ("fragment", "source", "code", "said"),
    [
        ("CONFIG_KNOWN=y\n", b"int a;\n", ExitCode.GOOD, "v6.12.1: 6.12.1 built in"),
        ("CONFIG_NO_SUCH=y\n", b"int a;\n", ExitCode.BUILD, "CONFIG_NO_SUCH"),
        ("CONFIG_KNOWN=y\n", b"int a\n", ExitCode.BUILD, "a.c:"),
    ],
    ids=["good", "unknown symbol", "broken source"],
)
def test_the_verb_tells_what_came_of_it_by_its_exit_code(
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    fragment: str,
    source: bytes,
    code: ExitCode,
    said: str,
) -> None:  # fmt: skip
    monkeypatch.setattr(Paths, "default", classmethod(lambda _: shop.paths))
    shutil.copy(REPO / "patches" / "kernels.toml", shop.paths.patches)
    shop.toy.kernel("v6.12.1", {**FILES, "a.c": source})
    shop.fragment("base", fragment)
    assert cli.main(["build", "v6.12.1"]) == code
    assert said in capsys.readouterr().out


def test_the_first_compiler_error_is_the_reason(shop: Shop) -> None:
    failure = shop.failed(shop.tree(b=b"int b(void)\n{\n\treturn c;\n}\n"))
    reason = r"b\.c:3:16: error: .c. undeclared .*"
    assert re.fullmatch(reason, failure.reason)
    assert "b.c: In function" in failure.excerpt
    assert failure.log is not None
    assert "error:" in failure.log.read_text()
    assert shop.good(shop.tree(b=b"int b;\n")).release == "6.12.1"


def test_a_failure_is_remembered_until_that_kernel_is_built(shop: Shop) -> None:
    tree = shop.tree(b=b"broken\n")
    failure = shop.failed(tree)
    key = build.kernel_key(shop.paths, BuildRequest(shop.kernel, tree))
    found = kernelcache.last_failure(shop.paths, key)
    assert found is not None
    assert (found[0].reason, found[0].log) == (failure.reason, str(failure.log))
    good = shop.good()
    assert kernelcache.last_failure(shop.paths, good.key) is None, "it is of another tree"
    kernelcache.remember_failure(shop.paths, good.key, failure)
    shutil.rmtree(good.vmlinux.parent)
    assert kernelcache.last_failure(shop.paths, shop.good().key) is None


def test_a_build_that_reaches_out_of_its_directories_fails(shop: Shop) -> None:
    evil = MAKEFILE.replace(
        b"\t@ld -r", f"\ttouch $(CURDIR)/../evil {OUTSIDE}/kpw-evil\n\t@ld -r".encode()
    )
    failure = shop.failed(shop.toy.tree({**FILES, "Makefile": evil}))
    assert failure.reason == f"touch: cannot touch '{OUTSIDE}/kpw-evil': Read-only file system"
    assert not Path(f"{OUTSIDE}/kpw-evil").exists()
    assert not (shop.room / "evil").exists()


def test_a_full_disk_is_the_machines_fault(shop: Shop) -> None:
    full = MAKEFILE.replace(b"\t@ld -r", b"\t@echo 'x: No space left on device'; false\n\t@ld -r")
    with pytest.raises(InfraError, match="the disk is full"):
        shop.build(shop.toy.tree({**FILES, "Makefile": full}))
    # And nothing of what it left is trusted.
    (shop.out / "a.o").write_bytes(b"")
    assert compiled(shop.good()) == ["a.o", "b.o"]


def test_what_a_killed_build_left_is_not_trusted(shop: Shop) -> None:
    whole = digest(shop.good().vmlinux)
    shutil.rmtree(shop.paths.kernels)
    (shop.out / ".kpw-building").touch()
    (shop.out / "a.o").write_bytes(b"half an object, newer than its source")
    assert digest(shop.good().vmlinux) == whole


def test_kill_minus_nine_leaves_no_process_and_no_trace(shop: Shop) -> None:
    slow = MAKEFILE.replace(b"\t@ld -r", b"\t@sleep 47\n\t@ld -r")
    tree = shop.toy.tree({**FILES, "Makefile": slow})
    script = (
        "import sys; sys.path[:0] = ['tools', 'tests/host']\n"
        "from pathlib import Path; from workbench.paths import Paths\n"
        "from workbench.gitstore import Store; from workbench.build import *\n"
        "from workbench.progress import Silent\n"
        "paths = Paths(*map(Path, sys.argv[1:4])); store = Store.open(paths)\n"
        "kernel = store.kernel('v6.12.1')\n"
        "build(paths, store, BuildRequest(kernel, sys.argv[4]), Silent())\n"
    )
    words = (shop.paths.repo, shop.paths.cache, shop.paths.state, tree)
    with process.spawned((sys.executable, "-c", script, *words)) as child:
        log = shop.room / "log-x86_64-plain"
        deadline = time.monotonic() + 120
        while "b.o" not in (log.read_text() if log.exists() else ""):
            assert child.poll() is None, child.communicate()
            assert time.monotonic() < deadline
            time.sleep(0.02)
        os.kill(child.pid, signal.SIGKILL)
        child.wait()
        deadline = time.monotonic() + 60
        while running("sleep 47"):
            assert time.monotonic() < deadline
            time.sleep(0.02)
    assert not shop.paths.kernels.exists()
    assert compiled(shop.good()) == ["a.o", "b.o"]


def running(words: str) -> bool:
    wanted = words.replace(" ", "\0").encode() + b"\0"
    return any(_command_line(process) == wanted for process in Path("/proc").glob("[0-9]*"))


def _command_line(process: Path) -> bytes:
    try:
        return (process / "cmdline").read_bytes()
    except OSError:
        return b""


def test_progress_counts_compiled_files(shop: Shop) -> None:
    class Heard(Silent):
        def __init__(self) -> None:
            self.steps: list[tuple[str, float | None]] = []

        def step(
            self, what: str, done: float | None = None, total: float | None = None, unit: str = ""
        ) -> None:
            assert total is None or done is None or done <= total
            assert unit == ("files" if what.endswith("compiling") else "")
            self.steps.append((what, done))

    heard = Heard()
    shop.build(None, heard)
    assert heard.steps[-3:] == [
        ("v6.12.1: compiling", 0),
        ("v6.12.1: compiling", 1),
        ("v6.12.1: compiling", 2),
    ]


def test_the_environment_of_the_kconfig_run_is_read_from_makes_record() -> None:
    record = (
        'deps := \\\n\tKconfig\n\nifneq "$(CC)" "ccache gcc"\nx: FORCE\nendif\nifneq "$(A)" ""\n'
    )
    assert configure.recorded_environment(record) == {"CC": "ccache gcc", "A": ""}


LOG = "  CC      net/a.o\n  AR      net/built-in.a\nmake[1]: Entering directory '/x'\n"


@pytest.mark.parametrize(
    ("lines", "reason"),
    [
        (
            (
                "/t/src/net/a.c:5:1: warning: unused\n/t/src/net/a.c:7:3: error: expected\n"
                "make[2]: *** [scripts/Makefile.build:229: net/a.o] Error 1\n"
            ),
            "net/a.c:7:3: error: expected",
        ),
        (
            "../src/inc/x.h:3:10: fatal error: no/such.h: No such file or directory\n",
            "inc/x.h:3:10: fatal error: no/such.h: No such file or directory",
        ),
        (
            (
                "make[1]: *** [/t/src/Makefile:1: vmlinux] Error 2\n"
                "ld: net/a.o: in function `f':\na.c:(.text+0x1): undefined reference to `g'\n"
            ),
            "a.c:(.text+0x1): undefined reference to `g'",
        ),
        ("ld: cannot find net/a.o: No such file or directory\n",) * 2,
        ("a.S: Assembler messages:\na.S:7: Error: no such instruction\n",) * 2,
        ('ERROR: modpost: "f" [x.ko] undefined!\n',) * 2,
        ("net/Kconfig:12: syntax error\nnet/Kconfig:11: unknown statement\n",) * 2,
        ("make[3]: *** No rule to make target 'net/b.o', needed by 'built-in.a'.  Stop.\n",) * 2,
        ("make: *** [Makefile:3: all] Error 1\n",) * 2,
    ],
)
def test_the_log_names_the_first_error(lines: str, reason: str) -> None:
    reason = reason.splitlines()[-1 if "Assembler" in reason else 0]
    assert buildlog.first_failure(LOG + lines, ("/t/src/", "../src/")).reason == reason


@pytest.mark.parametrize(
    ("line", "fault"),
    [
        ("x.s: fatal error: error writing to x.s: No space left on device", "disk"),
        ("gcc: fatal error: Killed signal terminated program cc1", "memory"),
        ("gcc: internal compiler error: Killed (program cc1)", "memory"),
        ("net/a.c:1:1: error: No such thing", None),
    ],
)
def test_a_fault_of_the_machine_is_told_from_one_of_the_source(
    line: str, fault: str | None
) -> None:
    said = buildlog.machine_fault(f"{LOG}{line}\nmake: *** Error 1\n")
    assert (said is None) if fault is None else (said is not None and fault in said)


@pytest.mark.parametrize(
    ("reason", "folder"),
    [
        (
            "make[3]: *** No rule to make target 'drivers/gpu/drm/x.o', needed by 'y'.",
            "drivers/gpu",
        ),
        ("a.c:1:10: fatal error: sound/pcm/x.h: No such file or directory", "sound"),
        ("make[3]: *** No rule to make target 'net/x.o', needed by 'y'.  Stop.", None),
        ("net/x.c:1:1: error: expected", None),
    ],
)
def test_a_file_that_was_left_out_is_told(reason: str, folder: str | None) -> None:
    rules = LeaveOut(folders=("drivers/gpu", "sound"))
    assert rules.hides(buildlog.missing_file(reason) or "") == folder


def test_a_log_that_says_nothing_is_no_crash() -> None:
    assert buildlog.first_failure("").reason == "no output"
