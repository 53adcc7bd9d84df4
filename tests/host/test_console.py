# SPDX-License-Identifier: GPL-2.0-only
"""The console classifier against logs in the form kernels from 5.10 to 7.1 print them."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.console import Classifier, load_patterns
from workbench.errors import UsageError
from workbench.model import SplatKind

REPO = Path(__file__).resolve().parents[2]
GOLDEN = Path(__file__).parent / "golden" / "console"
PATTERNS = load_patterns(REPO / "qemu" / "console.toml")

EXPECTED = {
    "arm64-oops": [SplatKind.OOPS],
    "no-timestamps-panic": [SplatKind.PANIC],
    "quiet-boot": [],
    "v5.10-hung-task": [SplatKind.HUNG_TASK],
    "v5.10-oops": [SplatKind.OOPS],
    "v5.10-suspicious-rcu": [SplatKind.LOCKDEP],
    "v6.1-gpf": [SplatKind.KASAN],
    "v6.1-lockdep": [SplatKind.LOCKDEP],
    "v6.12-bug-on": [SplatKind.BUG],
    "v6.12-oom": [SplatKind.OOM],
    "v6.12-oops-panic": [SplatKind.OOPS, SplatKind.PANIC],
    "v6.12-rcu-stall": [SplatKind.RCU_STALL],
    "v6.12-soft-lockup": [SplatKind.BUG],
    "v6.12-sysrq-panic": [SplatKind.PANIC],
    "v6.12-warn-twice": [SplatKind.WARN, SplatKind.WARN],
    "v6.18-kasan": [SplatKind.KASAN],
    "v7.1-warn": [SplatKind.WARN],
}

ONE_LINERS = [
    ("BUG: sleeping function called from invalid context at mm/slab.h:10", SplatKind.BUG),
    ("BUG: scheduling while atomic: python3/12/0x00000002", SplatKind.BUG),
    ("BUG: KFENCE: use-after-free read in xfrm_state_find+0x1/0x2", SplatKind.KASAN),
    ("UBSAN: array-index-out-of-bounds in net/xfrm/xfrm_user.c:12:3", SplatKind.BUG),
    ("kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)", SplatKind.BUG),
    ("traps: PANIC: double fault, error_code: 0x0", SplatKind.PANIC),
    ("WARNING: inconsistent lock state", SplatKind.LOCKDEP),
    ("WARNING: SOFTIRQ-safe -> SOFTIRQ-unsafe lock order detected", SplatKind.LOCKDEP),
    ("WARNING: python3/12 still has locks held!", SplatKind.LOCKDEP),
    ("[ BUG: Invalid wait context ]", SplatKind.LOCKDEP),
    ("INFO: trying to register non-static key.", SplatKind.LOCKDEP),
    ("INFO: rcu_sched detected stalls on CPUs/tasks:", SplatKind.RCU_STALL),
    (
        "rcu: INFO: rcu_preempt detected expedited stalls on CPUs/tasks: { 0-... }",
        SplatKind.RCU_STALL,
    ),
    ("INFO: task ip:7 blocked in I/O wait for more than 20 seconds.", SplatKind.HUNG_TASK),
    (
        "unregister_netdevice: waiting for lo to become free. Usage count = 2",
        SplatKind.HUNG_TASK,
    ),
    ("Memory cgroup out of memory: Killed process 9 (python3)", SplatKind.OOM),
    ("python3: page allocation failure: order:4, mode:0x40cc0(GFP_KERNEL)", SplatKind.OOM),
    ("stack segment: 0000 [#1] SMP", SplatKind.OOPS),
    ("WARNING: at xfrm_init+0x1/0x2, CPU#0: swapper/1", SplatKind.WARN),
    ("CPU0: Watchdog detected hard LOCKUP on cpu 0", SplatKind.BUG),
]

HARMLESS = [
    "kpw: test spi-timeout/test_x.py::test_a_BUG_is_no_bug",
    "sched_clock: Marking stable (731061581, 1211528929)",
    "WARNING! power/level is deprecated; use power/control instead",
    "hung_task: INFO about nothing",
    "a message that quotes 'Kernel panic - not syncing' is none",
    "MDS CPU bug present and SMT on, data leak possible.",
    "debug: BUG",
]


def kinds(text: str) -> list[SplatKind]:
    classifier = Classifier(PATTERNS)
    classifier.feed(text, 1.0)
    return [splat.kind for splat in classifier.close(2.0)]


def test_every_golden_log_has_its_answer() -> None:
    assert {path.stem for path in GOLDEN.glob("*.log")} == set(EXPECTED)


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_a_log_is_read_as_it_was_meant(name: str) -> None:
    assert kinds((GOLDEN / f"{name}.log").read_text()) == EXPECTED[name]


@pytest.mark.parametrize("name", sorted(EXPECTED))
def test_it_does_not_matter_in_what_pieces_a_log_comes(name: str) -> None:
    text = (GOLDEN / f"{name}.log").read_text()
    whole, pieces = Classifier(PATTERNS), Classifier(PATTERNS)
    whole.feed(text, 1.0)
    for start in range(0, len(text), 7):
        pieces.feed(text[start : start + 7], 1.0)
    assert whole.close(1.0) == pieces.close(1.0)


@pytest.mark.parametrize("prefix", ["", "[    1.234567] ", "[    1.234567][   T12] ", "<4>[1.5] "])
@pytest.mark.parametrize(("line", "kind"), ONE_LINERS)
def test_one_line_is_enough(prefix: str, line: str, kind: SplatKind) -> None:
    assert kinds(f"{prefix}{line}\n") == [kind]


@pytest.mark.parametrize("line", HARMLESS)
def test_a_pattern_matches_only_from_the_start(line: str) -> None:
    assert kinds(f"[    1.234567] {line}\n") == []


def test_every_pattern_decides_something() -> None:
    lines = [line for line, _ in ONE_LINERS]
    for path in GOLDEN.glob("*.log"):
        lines += path.read_text().splitlines()
    for pattern in PATTERNS:
        only = Classifier((pattern,))
        only.feed("\n".join([*lines, ""]), 0.0)
        assert only.close(0.0), pattern.regex


def test_a_splat_quotes_its_line_and_what_is_around_it() -> None:
    classifier = Classifier(PATTERNS)
    classifier.feed((GOLDEN / "v6.12-warn-twice.log").read_text(), 3.5)
    first, second = classifier.close(4.0)
    assert first.line.startswith("WARNING: CPU: 0 PID: 120 at lib/refcount.c:28")
    assert "refcount_t: underflow" in first.excerpt
    assert first.excerpt.endswith("---[ end trace 0000000000000000 ]---")
    assert "net/core/dst.c:275" not in first.excerpt
    assert "net/core/dst.c:275" in second.line
    assert first.at_seconds == 3.5


def test_news_are_told_once() -> None:
    classifier = Classifier(PATTERNS)
    assert classifier.feed("Kernel panic - not syncing: x", 1.0) == ()
    assert classifier.feed("\n", 1.0) == (SplatKind.PANIC,)
    assert classifier.feed("more\n", 1.0) == ()


def test_a_last_line_without_an_end_counts() -> None:
    classifier = Classifier(PATTERNS)
    classifier.feed("Kernel panic - not syncing: cut off", 1.0)
    assert [splat.kind for splat in classifier.close(2.0)] == [SplatKind.PANIC]


def test_a_long_report_ends_somewhere() -> None:
    lines = ["WARNING: CPU: 0 PID: 1 at a.c:1 f+0x1/0x2", *["x"] * 200]
    lines += ["WARNING: CPU: 0 PID: 1 at b.c:1 g+0x1/0x2", ""]
    assert kinds("\n".join(lines)) == [SplatKind.WARN, SplatKind.WARN]


def test_colours_and_carriage_returns_are_no_obstacle() -> None:
    assert kinds("\x1b[31m[    1.0] Kernel panic - not syncing: x\r\n") == [SplatKind.PANIC]


@pytest.mark.parametrize(
    "text",
    [
        'kind = "panic"\n',
        '[[pattern]]\nkind = "nonsense"\nregex = "x"\nwhy = "y"\n',
        '[[pattern]]\nkind = "panic"\nregex = "("\nwhy = "y"\n',
        '[[pattern]]\nkind = "panic"\nregex = "x"\nwhy = "y"\nmore = 1\n',
    ],
)
def test_a_wrong_pattern_file_is_refused_by_name(tmp_path: Path, text: str) -> None:
    path = tmp_path / "console.toml"
    path.write_text(text)
    with pytest.raises(UsageError, match=r"console\.toml"):
        load_patterns(path)
