# SPDX-License-Identifier: GPL-2.0-only
"""What tools say, what is new of it, and what a patch touches: the parts that run nothing."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import pytest
from toy_kernel import ToyKernels

from workbench import checkpatch, diagnostics, lintmake, process, sparse, touched
from workbench.diagnostics import Diagnostic
from workbench.errors import InfraError
from workbench.gates import GateState

if TYPE_CHECKING:
    from pathlib import Path

SRC = "/c/trees/v6.12/src"


@pytest.mark.parametrize(
    ("line", "read"),
    [
        (
            f"{SRC}/net/a.c:12:5: warning: no previous prototype for 'f' [-Wmissing-prototypes]",
            Diagnostic(
                "net/a.c", 12, "warning: no previous prototype for 'f' [-Wmissing-prototypes]"
            ),
        ),
        (
            "../src/include/net/x.h:3:1: error: expected ;",
            Diagnostic("include/net/x.h", 3, "error: expected ;"),
        ),
        (
            f"{SRC}/./net/a.c:7: warning: Function parameter 'x' not described in 'f'",
            Diagnostic("net/a.c", 7, "warning: Function parameter 'x' not described in 'f'"),
        ),
        (
            f"Warning: {SRC}/net/a.c:7 function parameter 'x' not described in 'f'",
            Diagnostic("net/a.c", 7, "warning: function parameter 'x' not described in 'f'"),
        ),
        (f"{SRC}/net/a.c:7:1:    expected int", None),
        ("make[3]: *** [net/a.o] Error 1", None),
    ],
)
def test_messages_of_every_tool_are_read(line: str, read: Diagnostic | None) -> None:
    assert diagnostics.read(f"  CC      net/a.o\n{line}\n", SRC) == ((read,) if read else ())


def test_what_make_gave_to_the_checker_is_read() -> None:
    log = f"  CC      net/a.o\n  CHECK   {SRC}/net/a.c\n  CHECK   ../src/net/b.c\n"
    assert diagnostics.checked(log, SRC) == {"net/a.c", "net/b.c"}


def said(*lines: int, path: str = "net/a.c", text: str = "warning: same") -> list[Diagnostic]:
    return [Diagnostic(path, line, text) for line in lines]


def test_a_message_that_moved_is_not_new() -> None:
    assert diagnostics.new(said(5, 9), said(6, 12), {"net/a.c": {1}}) == ()


def test_of_two_alike_the_one_on_a_line_of_the_patch_is_new() -> None:
    assert diagnostics.new(said(5), said(3, 6), {"net/a.c": {3}}) == tuple(said(3))


def test_another_text_is_new_and_another_file_is_none_of_the_patchs_business() -> None:
    other = said(1, path="net/b.c")
    changed = said(5, text="warning: other")
    assert diagnostics.new(said(5), [*changed, *other], {"net/a.c": {1}}) == tuple(changed)


def test_checkpatch_is_read_to_its_total() -> None:
    out = (
        "net/a.c:3: ERROR:CODE_INDENT: code indent should use tabs\n"
        ":4919: WARNING:COMMIT_LOG_LONG_LINE: Prefer a maximum 75 chars per line\n"
        "total: 1 errors, 1 warnings, 0 checks, 36 lines checked\n"
    )
    judged = checkpatch.judge(out, "")
    assert judged.state is GateState.FOUND
    assert [str(each) for each in judged.findings] == [
        "net/a.c:3: ERROR:CODE_INDENT: code indent should use tabs",
        "commit message: WARNING:COMMIT_LOG_LONG_LINE: Prefer a maximum 75 chars per line",
    ]


def test_a_checkpatch_whose_findings_were_not_read_is_no_pass() -> None:
    with pytest.raises(InfraError, match="1 errors, 0 warnings, 0 checks, but 0 were read"):
        checkpatch.judge("total: 1 errors, 0 warnings, 0 checks, 36 lines checked\n", "")


def test_what_a_patch_touches_is_read_from_the_trees(tmp_path: Path) -> None:
    toy = ToyKernels(tmp_path)
    before = toy.tree({"a.c": b"1\n2\n3\n", "gone.h": b"x\n", "b.c": b"--- a/x\n+++ b/x\n"})
    after = toy.tree({"a.c": b"0\n1\n3\nx\n", "b.c": b"++ b/y\n++ b/z\n", "new.c": b"1\n2\n"})
    found = touched.between(toy.store, before, after)
    assert found.lines == {"a.c": {1, 4}, "b.c": {1, 2}, "new.c": {1, 2}}
    assert found.gone == ("gone.h",)


def test_only_sources_of_the_kernel_are_compiled() -> None:
    paths = ("net/a.c", "net/b.S", "net/c.h", "tools/t.c", "scripts/s.c", "Documentation/d.c")
    assert touched.sources(paths) == ("net/a.c", "net/b.S")
    assert touched.headers(paths) == ("net/c.h",)
    assert touched.object_of("net/a.b.c") == "net/a.b.o"


def test_those_who_include_a_header_by_any_of_its_names_are_found(tmp_path: Path) -> None:
    texts = {
        "net/plain.c": "#include <linux/xfrm.h>\n",
        "net/uapi.c": " # include <uapi/linux/xfrm.h>\n",
        "net/other.c": "#include <linux/xfrmx.h>\n#include <net/xfrm.h>\n/* linux/xfrm.h */\n",
        "net/quoted.c": '#include "../security/mine.h"\n',
        "tools/t.c": "#include <linux/xfrm.h>\n",
        "net/h.h": "#include <linux/xfrm.h>\n",
    }
    for name, text in texts.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    uapi = touched.includers(tmp_path, ("include/uapi/linux/xfrm.h",))
    assert uapi == ("net/plain.c", "net/uapi.c")
    assert touched.includers(tmp_path, ("security/selinux/mine.h",)) == ("net/quoted.c",)
    assert touched.includers(tmp_path, ()) == ()


def test_the_objects_that_failed_are_read_from_the_log() -> None:
    log = (
        "  CC      net/xfrm/a.o\nnet/xfrm/a.c:1:1: error: first\n"
        "make[4]: *** [/c/src/scripts/Makefile.build:229: net/xfrm/a.o] Error 1\n"
        "  CC      net/b.o\nnet/b.c:2:2: error: second\n"
        "make[3]: *** [/c/src/scripts/Makefile.build:229: net/b.o] Error 1\n"
        "make[3]: *** [/c/src/scripts/Makefile.build:478: net/xfrm] Error 2\n"
    )
    assert lintmake._failed(log, ("net/b.o", "net/c.o", "net/xfrm/a.o")) == (
        "net/b.o",
        "net/xfrm/a.o",
    )
    assert "second" in lintmake._part(log, "net/b.o")
    assert "first" not in lintmake._part(log, "net/b.o")


def test_an_old_sparse_is_told_the_new_word_and_it_is_said() -> None:
    old = sparse.Sparse("0.6.4", ("-D__typeof_unqual__=__typeof__",))
    assert old.words == ("C=2", "CHECK=sparse", "CF=-D__typeof_unqual__=__typeof__")
    assert old.note == "sparse 0.6.4 does not know __typeof_unqual__: it was told __typeof__"
    assert sparse.Sparse("0.7", ("-x",)).note == ""


@pytest.mark.parametrize("gap", sparse._GAPS)
def test_sparse_takes_what_it_was_told_of(gap: sparse._Gap) -> None:
    """In the words that the shell makes of what make hands it."""
    told = sparse.find()
    words = ("sparse", "-", *shlex.split(" ".join(told.flags)))
    assert process.run(words, stdin=gap.asks).stderr == ""
    assert (gap.said in told.note) == (gap.flag in told.flags)
