# SPDX-License-Identifier: GPL-2.0-only
"""The gates, on a toy kernel: real make, gcc, sparse and sandbox, a checkpatch of a few lines."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from toy_kernel import ToyKernels

from workbench import cli, lint, lintmake, report_lint
from workbench.errors import ExitCode, InfraError, UsageError
from workbench.extensions import load_extensions
from workbench.gates import GateState
from workbench.paths import Paths
from workbench.progress import Silent

if TYPE_CHECKING:
    from toy_kernel import Files

    from workbench.gates import GateResult, KernelLint

# As the kernel's: conf drops what depends on what is off, objects are goals of
# their own, compiled when something is newer, and C=2 checks them in any case.
MAKEFILE = b"""\
VERSION = 6
PATCHLEVEL = 12
SUBLEVEL = 1
EXTRAVERSION =
out := $(CURDIR)/$(O)
linked := net/a.o net/user.o $(if $(shell grep SIX=y $(out)/.config),net/v6/six.o)
objects := $(filter %.o,$(MAKECMDGOALS)) $(if $(filter vmlinux,$(MAKECMDGOALS)),$(linked))
flags = -I$(CURDIR)/include -include $(out)/auto.h
allnoconfig:
	@grep -E '^CONFIG_(KNOWN|SIX)=' $(KCONFIG_ALLCONFIG) > $(out)/.config; true
syncconfig:
	@mkdir -p $(out)/include/config
	@echo 'ifneq "$$(srctree)" "$(CURDIR)"' > $(out)/include/config/auto.conf.cmd
	@cp $(out)/.config $(out)/include/config/auto.conf
	@sed -n 's/^\\(.*\\)=y/#define \\1 1/p' $(out)/.config > $(out)/auto.h
.PHONY: $(objects)
$(objects): %.o: %.c
	@mkdir -p $(out)/$(dir $@)
	@test -n "$$(find $< include $(out)/auto.h -newer $(out)/$@ 2>&1)" || exit 0; \\
	echo "  CC      $@"; $(CC) $(if $(W),-Wall) $(flags) -c -o $(out)/$@ $(CURDIR)/$<
	@test "$(C)" != 2 || { echo "  CHECK   $(CURDIR)/$<"; $(CHECK) $(CF) $(flags) $(CURDIR)/$<; }
vmlinux: $(linked)
	@ld -e a -o $(out)/vmlinux $(addprefix $(out)/,$(linked))
"""
KCONFIG = b"""\
config KNOWN
	bool "Known"
config SIX
	bool "Six"
"""
# Finds one kind of fault, and says so as the kernel's does.
CHECKPATCH = b"""\
my ($file, $at, $found, $all) = ("", 0, 0, 0);
while (<STDIN>) {
	if (m@^\\+\\+\\+ b/(.*)@) { $file = $1; }
	elsif (/^\\@\\@ -\\S+ \\+(\\d+)/) { $at = $1 - 1; }
	elsif (/^[+ ]/) { $at++; $all++; }
	if (/^\\+.*UGLY/) { $found++; print "$file:$at: WARNING:UGLY: it is ugly\\n"; }
}
exit 0 if !$found && grep { $_ eq "--terse" } @ARGV;
print "total: 0 errors, $found warnings, 0 checks, $all lines checked\\n";
"""
A = b"#include <toy.h>\nint a(void);\nint a(void)\n{\n\tint x;\n\treturn TOY;\n}\n"
USER = b"#include <toy.h>\nint user(void);\nint user(void)\n{\n\treturn TOY + 1;\n}\n"
SIX = b"int six(void);\nint six(void)\n{\n\treturn 6;\n}\n"
FILES: Files = {
    "Makefile": MAKEFILE,
    "Kconfig": KCONFIG,
    "scripts/checkpatch.pl": CHECKPATCH,
    "include/toy.h": b"#define TOY 1\n",
    "net/Makefile": b"obj-y += one.o v6/\none-y := a.o\none-objs := user.o\n",
    "net/a.c": A,
    "net/user.c": USER,
    "net/off.c": b"int off;\n",
    "net/v6/Kbuild": b"obj-$(CONFIG_SIX) += six.o\n",
    "net/v6/six.c": SIX,
}
REPO = Path(__file__).resolve().parents[2]
RECIPE = 'kernel-arch = "x86_64"\ntarget = "vmlinux"\nartefact = "vmlinux"\n'


class Shop:
    """A toy kernel, its fragments and extensions, and the gates over them."""

    def __init__(self, root: Path) -> None:
        """Import the kernel and write the fragments."""
        self.toy = ToyKernels(root)
        self.paths = self.toy.paths
        self.kernel = self.toy.kernel("v6.12.1", FILES)
        (self.paths.repo / "tools").symlink_to(REPO / "tools")
        for name, text in (
            ("base", "CONFIG_KNOWN=y\n"),
            ("arch/x86_64", ""),
            ("lint/base", "CONFIG_SIX=y\n"),
            ("lint/no-six", "# CONFIG_SIX is not set\n"),
        ):
            file = self.paths.kconfigs / f"{name}.config"
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
        (self.paths.kconfigs / "arch/x86_64.toml").write_text(RECIPE)
        self.files = dict(FILES)

    def extension(self, name: str, *changes: Files, toml: str = "") -> None:
        """Write an extension with a patch for each change, one upon the other."""
        self.toy.describe(name, toml, base="v6.12.1")
        files = dict(self.files)
        for number, change in enumerate(changes, 1):
            after = {**files, **change}
            self.toy.patch(f"{name}/{number:04}-it.patch", files, after)
            files = after

    def lint(self, *, link: bool = False) -> KernelLint:
        extensions = load_extensions(self.paths)
        series = self.toy.rebase(self.kernel)
        return lint.lint(
            self.paths, self.toy.store, series, extensions, Silent(), arch="x86_64", link=link
        )


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def states(done: KernelLint, number: int = 0) -> dict[str, str]:
    return {each.gate: str(each.state) for each in done.patches[number].results}


def result(done: KernelLint, gate: str, number: int = 0) -> GateResult:
    return next(each for each in done.patches[number].results if each.gate == gate)


def said(done: KernelLint, gate: str, number: int = 0) -> list[str]:
    return [str(each) for each in result(done, gate, number).findings]


def test_a_clean_patch_is_clean_and_known_the_second_time(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.extension("e1", {"net/a.c": A.replace(b"return TOY", b"return TOY + 2")})
    done = shop.lint()
    assert states(done) == dict.fromkeys(("checkpatch", "builds", "W=1", "sparse", "no-six"), "ok")
    assert done.exit_code == ExitCode.GOOD
    # The unused variable was there before.
    assert result(done, "W=1").detail == "nothing new (1 were there before)"
    monkeypatch.setattr(lintmake.Bench, "hold", lambda *_: pytest.fail("it works again"))
    again = shop.lint()
    assert again.cached == 5
    assert again.patches == done.patches


def test_what_checkpatch_says_is_quoted_with_its_place(shop: Shop) -> None:
    shop.extension("e1", {"net/a.c": A.replace(b"return TOY", b"return /* UGLY */ TOY")})
    done = shop.lint()
    assert said(done, "checkpatch") == ["net/a.c:6: WARNING:UGLY: it is ugly"]
    assert states(done)["builds"] == "ok"
    assert done.exit_code == ExitCode.RED


def test_only_a_warning_that_was_not_there_is_told(shop: Shop) -> None:
    shop.extension("e1", {"net/a.c": b"/* moves lines */\n" + A.replace(b"x;", b"x;\n\tint new;")})
    done = shop.lint()
    (line,) = said(done, "W=1")
    assert line.startswith("net/a.c:7: warning: unused variable 'new'")
    assert states(done)["sparse"] == "ok"
    assert done.exit_code == ExitCode.RED


def test_a_source_that_the_tree_goes_without_is_told(shop: Shop) -> None:
    toml = shop.paths.kconfigs / "arch/x86_64.toml"
    toml.write_text(RECIPE + '[leave-out]\nfolders = ["net/v6"]\nkeep = ["Kbuild"]\n')
    shop.extension("e", {"net/v6/six.c": SIX + b"int seven;\n"})
    done = shop.lint()
    assert states(done)["builds"] == "found"
    (line,) = said(done, "builds")
    assert 'leaves out net/v6: add "!net/v6" to its folders: nothing is known' in line


def test_what_sparse_says_anew_is_told(shop: Shop) -> None:
    shop.extension("e1", {"net/a.c": A + b"int lonely;\n"})
    done = shop.lint()
    (line,) = said(done, "sparse")
    assert line.startswith("net/a.c:8: warning: symbol 'lonely' was not declared")
    assert states(done)["W=1"] == "ok"


def test_a_warning_in_a_touched_header_is_seen_through_those_who_include_it(shop: Shop) -> None:
    header = b"#define TOY 1\nstatic inline int f(void)\n{\n\tint y;\n\treturn 1;\n}\n"
    shop.extension("e1", {"include/toy.h": header})
    done = shop.lint()
    (line,) = said(done, "W=1")
    assert line.startswith("include/toy.h:4: warning: unused variable 'y'")


def test_a_patch_that_only_builds_with_the_next_does_not_build(shop: Shop) -> None:
    uses = A.replace(b"return TOY", b"return LATER")
    shop.extension("e1", {"net/a.c": uses}, {"include/toy.h": b"#define TOY 1\n#define LATER 2\n"})
    done = shop.lint()
    (line,) = said(done, "builds")
    assert line.startswith("net/a.c:6: error: 'LATER' undeclared")
    assert "LATER" in result(done, "builds").excerpt
    assert states(done, 1)["builds"] == "ok"
    assert result(done, "W=1", 1).detail == "not compared: the tree before does not build"
    assert states(done)["no-six"] == states(done, 1)["no-six"] == "ok"
    assert done.exit_code == ExitCode.BUILD


def test_who_includes_a_touched_header_is_compiled_too(shop: Shop) -> None:
    shop.extension(
        "e1",
        {"include/toy.h": b"#define NEW 1\n", "net/a.c": A.replace(b"return TOY", b"return NEW")},
    )
    done = shop.lint()
    (line,) = said(done, "builds")
    assert line.startswith("net/user.c:5: error: 'TOY' undeclared")
    # The file it touches is all right by itself.
    assert states(done)["W=1"] == "ok"
    assert states(done)["no-six"] == "broken"


def test_a_header_that_goes_is_missed_by_those_who_include_it(shop: Shop) -> None:
    gone = {path: data for path, data in FILES.items() if path != "include/toy.h"}
    shop.toy.describe("e1", base="v6.12.1")
    shop.toy.patch("e1/0001-it.patch", FILES, gone)
    (line,) = said(shop.lint(), "builds")
    assert "toy.h: No such file or directory" in line


def test_a_variant_that_breaks_is_told_and_one_that_is_exempt_is_not_tried(shop: Shop) -> None:
    needs = b"#ifndef CONFIG_SIX\n#error six\n#endif\n" + A
    shop.extension("e1", {"net/a.c": needs})
    done = shop.lint()
    assert states(done)["builds"] == "ok"
    assert said(done, "no-six") == ["net/a.c:2: error: #error six"]
    assert done.exit_code == ExitCode.BUILD
    shop.extension("e1", {"net/a.c": needs}, toml='[lint_not_applicable]\nno-six = "it is six"\n')
    done = shop.lint()
    assert result(done, "no-six").state is GateState.EXEMPT
    assert result(done, "no-six").detail == "it is six"
    assert done.exit_code == ExitCode.GOOD


def test_what_a_variant_leaves_out_is_not_compiled_with_it(shop: Shop) -> None:
    shop.extension("e1", {"net/v6/six.c": SIX.replace(b"6;", b"7;")})
    done = shop.lint()
    assert states(done)["builds"] == "ok"
    assert result(done, "no-six").detail == "nothing of it is built with this"
    assert done.exit_code == ExitCode.GOOD


def test_a_variant_that_does_not_come_out_as_asked_is_broken(shop: Shop) -> None:
    lines = "# CONFIG_SIX is not set\nCONFIG_SIXX=y\n"
    (shop.paths.kconfigs / "lint/no-six.config").write_text(lines)
    shop.extension("e1", {"net/a.c": A + b"\n"})
    done = shop.lint()
    assert "kconfigs/lint/no-six.config:2: CONFIG_SIXX=y" in result(done, "no-six").detail
    assert done.exit_code == ExitCode.BUILD


def test_a_touched_file_that_no_configuration_compiles_is_no_pass(shop: Shop) -> None:
    shop.extension("e1", {"net/off.c": b"this is not C\n"})
    done = shop.lint()
    (line,) = said(done, "builds")
    assert line.startswith("net/off.c: kconfigs/lint/base.config does not build it")
    assert done.exit_code == ExitCode.RED


def test_a_patch_without_c_has_only_checkpatch(shop: Shop) -> None:
    shop.extension("e1", {"Documentation/x.rst": b"words\n"})
    done = shop.lint()
    assert states(done) == {
        "checkpatch": "ok",
        **dict.fromkeys(("builds", "W=1", "sparse", "no-six"), "-"),
    }


def test_a_conflict_is_told_and_the_others_are_judged(shop: Shop) -> None:
    shop.extension("e1", {"net/a.c": A.replace(b"return TOY", b"return 3")})
    shop.extension("e2", {"net/a.c": A.replace(b"return TOY", b"return 4")})
    done = shop.lint()
    assert set(states(done, 0).values()) == {"ok"}
    assert set(states(done, 1).values()) == {"conflict"}
    assert done.exit_code == ExitCode.CONFLICT


def test_a_checkpatch_without_a_verdict_is_a_fault(shop: Shop) -> None:
    shop.files = {**FILES, "scripts/checkpatch.pl": b'die "no tree\\n";\n'}
    shop.kernel = shop.toy.kernel("v6.12.1", shop.files)
    shop.extension("e1", {"net/a.c": A + b"\n"})
    with pytest.raises(InfraError, match="no verdict: no tree"):
        shop.lint()


def test_a_make_that_does_not_check_is_a_fault(shop: Shop) -> None:
    deaf = MAKEFILE.replace(b'test "$(C)" != 2', b"true")
    shop.files = {**FILES, "Makefile": deaf}
    shop.kernel = shop.toy.kernel("v6.12.1", shop.files)
    shop.extension("e1", {"net/a.c": A + b"\n"})
    with pytest.raises(InfraError, match=r"did not run sparse on net/a\.c"):
        shop.lint()


def test_a_sparse_that_gave_up_is_a_fault(shop: Shop) -> None:
    shop.extension("e1", {"net/a.c": A + b"\n"})
    wrong = b"#define TOY 1\n#ifdef __CHECKER__\n" + 150 * b"int f(void) { return gone; }\n"
    shop.files = {**FILES, "include/toy.h": wrong + b"#endif\n"}
    shop.kernel = shop.toy.kernel("v6.12.1", shop.files)
    with pytest.raises(InfraError, match="sparse gave up"):
        shop.lint()


def test_a_variant_that_is_not_there_cannot_be_exempt(shop: Shop) -> None:
    shop.extension("e1", toml='[lint_not_applicable]\nno-sixx = "r"\n')
    with pytest.raises(UsageError, match="did you mean 'no-six'"):
        lint.exemptions(shop.paths, load_extensions(shop.paths))


def test_what_a_killed_run_left_is_compiled_again(shop: Shop) -> None:
    shop.extension("e1", {"include/toy.h": b"#define TOY 5\n"})
    shop.lint()
    out = shop.paths.trees / "v6.12.1" / "out-x86_64-lint-no-six"
    (out / ".kpw-building").touch()
    (out / "net/user.o").write_bytes(b"half an object")
    for file in shop.paths.lint.iterdir():
        file.unlink()
    assert shop.lint().exit_code == ExitCode.GOOD
    assert (out / "net/user.o").read_bytes() != b"half an object"


def test_a_broken_build_is_tried_again(shop: Shop) -> None:
    shop.extension("e1", {"net/a.c": b"broken\n"})
    assert shop.lint().exit_code == ExitCode.BUILD
    assert shop.lint().cached == 1


CALLS_SIX = A.replace(b"return TOY", b"return six()").replace(b"a(void);", b"a(void), six(void);")


def test_a_link_is_one_more_thing_that_each_variant_does(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.extension("e1", {"net/a.c": A.replace(b"return TOY", b"return TOY + 2")})
    shop.lint()
    done = shop.lint(link=True)
    assert done.gates[-2:] == ("base", "no-six")
    assert result(done, "base").detail == "1 objects; the kernel links"
    assert result(done, "no-six").detail == "1 objects; the kernel links"
    assert (done.cached, done.exit_code) == (4, ExitCode.GOOD)
    monkeypatch.setattr(lintmake.Bench, "hold", lambda *_: pytest.fail("it works again"))
    assert shop.lint(link=True).cached == 6
    assert "base" not in states(shop.lint())


def test_a_symbol_that_nothing_has_is_seen_by_the_link_alone(shop: Shop) -> None:
    shop.extension("e1", {"net/a.c": CALLS_SIX}, {"net/v6/six.c": SIX + b"\n"})
    assert shop.lint().exit_code == ExitCode.GOOD
    done = shop.lint(link=True)
    assert states(done)["base"] == "ok"
    # It is the series that does not link, whatever each patch is built into.
    for number in (0, 1):
        (line,) = said(done, "no-six", number)
        assert line.endswith("undefined reference to `six'")
        assert "in function `a'" in result(done, "no-six", number).excerpt
    assert done.exit_code == ExitCode.BUILD
    known = done.cached
    assert shop.lint(link=True).cached > known, "what linked is known, what did not is tried again"
    assert states(shop.lint(link=True))["no-six"] == "broken"


def test_a_patch_that_does_not_compile_keeps_its_reason(shop: Shop) -> None:
    needs = b"#ifndef CONFIG_SIX\n#error six\n#endif\n" + USER
    shop.extension("e1", {"net/user.c": needs}, {"net/a.c": CALLS_SIX})
    done = shop.lint(link=True)
    assert said(done, "no-six") == ["net/user.c:2: error: #error six"]
    assert said(done, "no-six", 1) == ["net/user.c:2: error: #error six"]
    assert states(done, 1)["base"] == "ok"


def test_a_variant_that_an_extension_need_not_build_with_need_not_link(shop: Shop) -> None:
    shop.extension("e1", {"net/a.c": CALLS_SIX}, toml='[lint_not_applicable]\nno-six = "it is"\n')
    shop.extension("e2", {"net/user.c": USER.replace(b"+ 1", b"+ 2")})
    done = shop.lint(link=True)
    assert result(done, "no-six").state is GateState.EXEMPT
    assert result(done, "no-six", 1).detail == "1 objects; not linked: it need not build with e1"
    assert result(done, "base", 1).detail == "1 objects; the kernel links"
    assert done.exit_code == ExitCode.GOOD


@pytest.mark.parametrize("words", [(), ("--link",)], ids=["compiled", "linked"])
def test_the_verb_links_when_it_is_told_to(
    shop: Shop,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: tuple[str, ...],
) -> None:
    monkeypatch.setattr(Paths, "default", classmethod(lambda _: shop.paths))
    shutil.copy(REPO / "patches" / "kernels.toml", shop.paths.patches)
    shop.extension("e1", {"net/a.c": CALLS_SIX})
    assert cli.main(["lint", "v6.12.1", *words]) == (ExitCode.BUILD if words else ExitCode.GOOD)
    said = capsys.readouterr().out
    assert ("base | ok | 1 objects; the kernel links" in said) == bool(words)
    assert ("undefined reference to `six'" in said) == bool(words)


RESTORE = '[[restore]]\nsince = "v6.12"\nfrom = "v6.1.187"\npaths = ["net/gone.c"]\n'
GONE = b"int gone(void);\nint gone(void) /* UGLY */\n{\n\tint x;\n\treturn 1;\n}\nint lone;\n"
WIRED = b"obj-y += one.o v6/ gone.o\none-y := a.o\none-objs := user.o\n"


@pytest.fixture
def older(shop: Shop) -> Shop:
    """Give a kernel that lacks a file an older one has, which says much to every gate."""
    shop.files = {**FILES, "net/gone.c": GONE}
    shop.toy.kernel("v6.1.187", shop.files)
    return shop


def test_what_is_restored_is_upstream_s_text_and_not_judged(older: Shop) -> None:
    older.extension("e1", {"net/a.c": A.replace(b"return TOY", b"return 3")}, toml=RESTORE)
    done = older.lint()
    assert [each.patch for each in done.patches] == ["restore from v6.1.187", "0001-it.patch"]
    assert set(states(done).values()) == {"-"}
    assert result(done, "checkpatch").detail == "restored: net/gone.c"
    assert set(states(done, 1).values()) == {"ok"}
    assert done.exit_code == ExitCode.GOOD


def test_a_patch_that_wires_a_restored_file_in_compiles_it(older: Shop) -> None:
    older.extension("e1", {"net/Makefile": WIRED}, toml=RESTORE)
    done = older.lint()
    assert result(done, "builds", 1).detail == "1 objects"
    # What is said of upstream's lines is not the patch's.
    assert set(states(done, 1).values()) == {"ok"}


def test_a_restored_file_that_does_not_build_when_wired_in_is_told(older: Shop) -> None:
    older.files = {**FILES, "net/gone.c": GONE.replace(b"1;", b"MOVED;")}
    older.toy.kernel("v6.1.187", older.files)
    older.extension("e1", {"net/Makefile": WIRED}, toml=RESTORE)
    (line,) = said(older.lint(), "builds", 1)
    assert line.startswith("net/gone.c:5: error: 'MOVED' undeclared")


def test_a_restored_file_may_be_changed_before_it_is_wired_in(older: Shop) -> None:
    adapted = GONE.replace(b"1;", b"2;")
    older.extension("e1", {"net/gone.c": adapted}, {"net/Makefile": WIRED}, toml=RESTORE)
    done = older.lint()
    assert result(done, "builds", 1).detail == "restored, and in no Makefile yet: net/gone.c"
    assert result(done, "W=1", 1).state is GateState.NOTHING
    assert result(done, "builds", 2).detail == "1 objects"
    assert done.exit_code == ExitCode.GOOD


def test_a_restored_file_that_is_never_wired_in_is_no_pass(older: Shop) -> None:
    older.extension("e1", {"net/gone.c": GONE.replace(b"1;", b"2;")}, toml=RESTORE)
    done = older.lint()
    (line,) = said(done, "builds", 1)
    assert line.startswith("net/gone.c: kconfigs/lint/base.config does not build it")
    # The same trees are judged otherwise once a later patch is about a Makefile.
    older.extension(
        "e1", {"net/gone.c": GONE.replace(b"1;", b"2;")}, {"net/Makefile": WIRED}, toml=RESTORE
    )
    assert older.lint().exit_code == ExitCode.GOOD


def test_reports_have_a_line_for_each_patch_and_gate(
    shop: Shop, capsys: pytest.CaptureFixture[str]
) -> None:
    import sys

    shop.extension("e1", {"net/a.c": A.replace(b"return TOY", b"return /* UGLY */ TOY")})
    shop.toy.describe("e0", 'upstream_since = ["v4.19"]\n', base="v6.12.1")
    done = shop.lint()
    report_lint.show([done], sys.stdout)
    lines = capsys.readouterr().out.splitlines()
    assert "v6.12.1: e1 | 0001-it.patch | checkpatch | found | 0 errors, 1 warnings, 0 checks" in (
        lines
    )
    assert "v6.12.1: e1 | 0001-it.patch | builds | ok | 1 objects" in lines
    assert "v6.12.1: e0 | no patch" in lines
    assert "  net/a.c:6: WARNING:UGLY: it is ugly" in lines
    data = json.loads(json.dumps(report_lint.as_data([done], int(done.exit_code))))
    (patch,) = data["kernels"][0]["patches"]
    assert patch["gates"][0]["findings"] == [
        {"path": "net/a.c", "line": 6, "text": "WARNING:UGLY: it is ugly"}
    ]
    assert data["exit_code"] == 1
