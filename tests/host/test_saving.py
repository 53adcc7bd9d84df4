# SPDX-License-Identifier: GPL-2.0-only
"""What is written back is only what changed, where it belongs, and looks as it did."""

from __future__ import annotations

import contextlib
import json
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import pytest
from test_resolving import (
    BASE,
    BOTH,
    LINES,
    NAME,
    OTHER,
    PATCHED,
    TAG,
    UPSTREAM,
    desk,
    killed_at,
    opened,
    resolve,
    save,
    text,
)
from test_resolving import toys as toys  # noqa: PLC0414 - a fixture
from toy_kernel import ToyKernels, makefile

from workbench import apt, atomic, cli, journal, patchtext, progress, saving
from workbench.description import load
from workbench.errors import ExitCode, InfraError, UsageError
from workbench.extensions import load_extensions, patches_for
from workbench.gitstore import Store
from workbench.model import Kernel, KernelTag, PatchState, RebasedSeries
from workbench.patchfile import read_patch
from workbench.paths import Paths
from workbench.progress import Silent
from workbench.prove import ProofState
from workbench.rebase import rebase
from workbench.rewriting import written_for
from workbench.variants import since_for, with_table

if TYPE_CHECKING:
    from collections.abc import Callable

    from toy_kernel import Files

NEAR: Files = {**BASE, "net/state.c": text(LINES, at28=b"upstream\n")}
# What stands behind a hunk's second @@: some of the files were made without .gitattributes.
_AFTER_HUNK = re.compile(rb"(?<=\d )@@ .*")
REPO = Path(__file__).resolve().parents[2]


def resolved(toys: ToyKernels, kernel: Kernel, data: bytes = BOTH) -> None:
    found = opened(toys, kernel)
    resolve(found, data)
    assert desk(toys).settle(found, kernel, Silent()).missing == ()


def files_of(folder: Path) -> dict[str, bytes]:
    """Return every file below a folder, by name."""
    found = (path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in found}


@pytest.mark.parametrize("files", [BASE, NEAR, PATCHED], ids=["clean", "3-way", "upstream"])
def test_nothing_is_written_when_nothing_changed(toys: ToyKernels, files: Files) -> None:
    kernel = toys.kernel(TAG, {**files})
    before = files_of(toys.paths.patches)
    assert save(toys, kernel) == saving.Saved("e")
    assert files_of(toys.paths.patches) == before


def test_what_was_merged_is_written_when_asked_for_and_only_once(toys: ToyKernels) -> None:
    kernel = toys.kernel(TAG, {**NEAR})
    before = toys.rebase(kernel)
    assert save(toys, kernel, merged=True).files != ()
    after = toys.rebase(kernel)
    assert (after.outcomes[0].state, after.tree) == (PatchState.CLEAN, before.tree)
    kept = files_of(toys.paths.patches)
    assert save(toys, kernel, merged=True).files == ()
    assert files_of(toys.paths.patches) == kept


def test_what_was_merged_over_spaces_has_the_same_patch_id_and_is_not_written(
    toys: ToyKernels,
) -> None:
    spaced = text(LINES, at28=LINES[27].replace(b" ", b"  "))
    kernel = toys.kernel(TAG, {**BASE, "net/state.c": spaced})
    assert toys.outcome(kernel).state is PatchState.THREE_WAY
    assert save(toys, kernel, merged=True).files == ()


def test_header_message_trailers_notes_and_signature_stay_byte_for_byte(toys: ToyKernels) -> None:
    file = toys.paths.patches / NAME
    text_before = file.read_text()
    head, _, rest = text_before.partition("\n---\n")
    notes = "What changed in v2: nothing.\n\n"
    stat = " net/state.c | 2 +-\n 1 file changed, 1 insertion(+), 1 deletion(-)\n\n"
    diff, _, _ = rest.rpartition("-- \n")
    end = f"\nbase-commit: {'1' * 40}\n"
    sign = "-- \n2.39.5\n\n"
    odd = head.replace("Date: Fri,", "X-Kept: as  it is\t\nDate: Fri,")
    odd += "\nReviewed-by:  Bob   Doe <bob@example.org>"
    file.write_text(
        f"{odd}\n---\n{notes}{stat}{diff}{end}prerequisite-patch-id: {'2' * 40}\n{sign}"
    )
    kernel = toys.kernel(TAG, {**UPSTREAM})
    resolved(toys, kernel)
    (written,) = save(toys, kernel).files
    now = written.read_text()
    assert now.startswith(f"{odd}\n---\n{notes} net/other.c | 2 +-\n net/state.c | 2 +-\n")
    assert now.endswith(f"\nbase-commit: {kernel.commit}\n-- \n2.39.5\n\n")
    assert "prerequisite" not in now  # it stands on no other now
    assert read_patch(written).mail == read_patch(file).mail
    assert "\nindex " + "0" * 7 not in now
    assert all(len(change.old_oid) == 40 for change in read_patch(written).changes)


def test_the_diff_is_what_format_patch_writes(toys: ToyKernels) -> None:
    attributes = b"*.c diff=cpp\n"
    code = b"int f(void)\n{\nlabel:\n" + b"".join(b"\t" + line for line in LINES)
    new = code.replace(LINES[29], b"patched\n")
    before: Files = {".gitattributes": attributes, "a.c": code, "b.c": b"b\n", "run": b"#!\n"}
    after: Files = {
        ".gitattributes": attributes,
        "a.c": new,
        "net/b.c": b"b\n",
        "run": ("100755", b"#!\n"),
        "a/very/long/name/that/has/no/room/beside/the/statistics/of/format/patch.c": b"x\n",
    }
    toys.patch(NAME, before, after)
    kernel = toys.kernel(TAG, before)
    series = toys.rebase(kernel)
    work_tree = toys.work_tree(kernel)
    work_tree.git("checkout", "-q", "--detach", series.commit)
    words = ("format-patch", "--stdout", "--full-index", "-1", "--no-signature")
    wanted = work_tree.git(*words).partition("\n---\n")[2].strip()
    (toys.root / "scratch").mkdir()
    said = patchtext.body(toys.store, toys.root / "scratch", kernel.tree, series.tree)
    assert said.decode().strip() == wanted
    assert "@@ int f(void)" in wanted


def test_the_description_keeps_comments_and_layout(toys: ToyKernels) -> None:
    where = toys.paths.patches / "e" / "extension.toml"
    before = where.read_text()
    kernel = toys.kernel(TAG, {**UPSTREAM})
    resolved(toys, kernel)
    save(toys, kernel)
    assert where.read_text() == f'{before}\n[variants."v6.12"]\nbase = "{TAG}"\n'
    (variant,) = load(where.parent).variants
    assert (str(variant.since), str(variant.base)) == ("v6.12", TAG)


TOML = """\
id = "E1"  # the first
summary = "s"
base = "v5.10.262"

# Why 6.1.
[variants."v6.1"]
base = "v6.1.187" # pinned

# Why 6.18.
[variants.'v6.18']
  base   =   "v6.18.15"

[lint_not_applicable]
no-ipv6 = "no reason"
"""


@pytest.mark.parametrize(
    ("since", "base", "old", "new"),
    [
        (
            "v6.12",
            "v6.12.107",
            "# pinned\n",
            '# pinned\n\n[variants."v6.12"]\nbase = "v6.12.107"\n',
        ),
        (
            "v5.15",
            "v5.15.9",
            "# Why 6.1.\n",
            '[variants."v5.15"]\nbase = "v5.15.9"\n\n# Why 6.1.\n',
        ),
        ("v6.1", "v6.1.190", '"v6.1.187" # pinned', '"v6.1.190" # pinned'),
        ("v6.18", "v6.18.20", '=   "v6.18.15"', '=   "v6.18.20"'),
        ("v7.1", "v7.1.13", '15"\n', '15"\n\n[variants."v7.1"]\nbase = "v7.1.13"\n'),
    ],
    ids=["between", "before", "other base", "other quotes", "after"],
)
def test_a_table_is_put_in_order_among_the_others(
    since: str, base: str, old: str, new: str
) -> None:
    assert TOML.count(old) == 1
    tags = KernelTag.parse(since), KernelTag.parse(base)
    assert with_table(TOML, *tags) == TOML.replace(old, new)


def test_a_table_without_its_base_on_a_line_is_not_guessed_at() -> None:
    tags = KernelTag.parse("v6.1"), KernelTag.parse("v6.1.190")
    with pytest.raises(UsageError, match=r"extension\.toml:2: .* has no line 'base"):
        with_table('id = "E"\n[variants."v6.1"]\n[[restore]]\nbase = "x"\n', *tags)


def test_the_folder_is_that_of_the_series_or_of_the_tag_where_that_is_taken(
    toys: ToyKernels,
) -> None:
    canonical = KernelTag.parse("v5.10.262")

    def folder(tag: str, base: KernelTag = canonical) -> str:
        (extension,) = load_extensions(toys.paths)
        patch = toys.paths.patches / NAME
        return str(since_for(extension, patch, base, KernelTag.parse(tag)))

    assert folder("v6.12.107") == "v6.12"
    assert folder("v5.10.270") == "v5.10.270"
    assert folder("v7.2-rc3") == "v7.2-rc3"
    toys.describe("e", '[variants."v6.12"]\nbase = "v6.12.107"\n')
    (toys.paths.patches / "e" / "since-v6.12").mkdir()
    assert folder("v6.12.120") == "v6.12.120"
    assert folder("v6.12.107") == "v6.12"
    assert folder("v7.1.13") == "v7.1"


def test_no_other_imported_kernel_gets_another_tree(toys: ToyKernels) -> None:
    """since-v6.12 would speak for 7.1, and since-v6.12.107 for 6.12.120: both keep what they have.

    Else a resolution for an old kernel would silently undo what the patch
    does on a younger one it still applies to.
    """
    young: Files = {**BASE, "net/third.c": b"x\n"}
    others = [toys.kernel("v6.12.120", {**NEAR}), toys.kernel("v7.1.13", young)]
    others.append(toys.kernel("v6.12.150", {**NEAR, **young}))
    before = [toys.rebase(each).tree for each in others]
    less: Files = {**UPSTREAM, "net/other.c": b"another file altogether\n"}
    kernel = toys.kernel(TAG, less)
    found = opened(toys, kernel)
    resolve(found)
    resolve(found, b"another file altogether\n", "net/other.c")
    assert desk(toys).settle(found, kernel, Silent()).missing == ()
    wanted = toys.rebase(kernel).tree
    saved = save(toys, kernel)
    folder = toys.paths.patches / "e"
    assert saved.files == (folder / f"since-{TAG}" / "0001-x.patch",)
    assert saved.kept == (folder / "since-v6.12.120" / "0001-x.patch",)
    assert [toys.rebase(each).tree for each in others] == before
    assert toys.rebase(kernel).tree == wanted


def test_an_extension_with_a_conflict_is_left_as_it_is(toys: ToyKernels) -> None:
    second = {**PATCHED, "net/far.c": b"near\n"}
    toys.patch("e/0002-y.patch", {**PATCHED}, second)
    kernel = toys.kernel(TAG, {**UPSTREAM, "net/far.c": b"elsewhere\n"})
    resolved(toys, kernel)
    before = files_of(toys.paths.patches)
    assert [each.patch for each in save(toys, kernel).refused] == ["0002-y.patch"]
    assert files_of(toys.paths.patches) == before


def test_a_patch_is_saved_so_that_it_applies_without_the_extensions_it_does_not_require(
    toys: ToyKernels,
) -> None:
    toys.describe("a")
    toys.patch("a/0001-a.patch", {**BASE}, {**BASE, "net/state.c": text(LINES, at45=b"a\n")})
    kernel = toys.kernel(TAG, {**UPSTREAM})
    resolved(toys, kernel)
    whole = toys.rebase(kernel)
    assert whole.outcomes[-1].state is PatchState.REMEMBERED
    save(toys, kernel)
    assert toys.rebase(kernel).tree == whole.tree
    shutil.rmtree(toys.paths.patches / "a")
    assert toys.outcome(kernel).state is PatchState.CLEAN


@pytest.mark.parametrize(
    ("owner", "place", "nth", "state"),
    [
        (atomic, "write", 1, PatchState.REMEMBERED),
        (journal, "_carry_out", 1, PatchState.CLEAN),
        (atomic, "write", 2, PatchState.CLEAN),
        (atomic, "write", 3, PatchState.CLEAN),
    ],
    ids=["nothing written", "written down", "before the patch", "before the description"],
)
def test_a_save_killed_at_any_write_was_not_begun_or_is_finished_by_who_comes_next(
    toys: ToyKernels, owner: object, place: str, nth: int, state: PatchState
) -> None:
    kernel = toys.kernel(TAG, {**UPSTREAM})
    resolved(toys, kernel)
    tree = toys.rebase(kernel).tree
    killed_at(toys, place, owner, lambda: save(toys, kernel), nth)
    again = toys.rebase(kernel)
    assert ([each.state for each in again.outcomes], again.tree) == ([state], tree)
    save(toys, kernel)
    assert toys.outcome(kernel).state is PatchState.CLEAN
    names = {name.partition("/")[0] for name in files_of(toys.paths.patches / "e")}
    assert names == {"0001-x.patch", "extension.toml", "resolutions", "since-v6.12"}


def test_what_a_killed_write_left_is_removed_and_a_journal_reaches_no_other_file(
    toys: ToyKernels,
) -> None:
    folder = toys.paths.patches / "e"
    (folder / ".0001-y.patch.1-abcd").write_bytes(b"half")
    (folder / ".saving").write_text('{"files": {"0001-y.patch": "bmV3"}}')
    journal.finish(folder)
    assert {".saving", ".0001-y.patch.1-abcd"}.isdisjoint(files_of(folder))
    assert (folder / "0001-y.patch").read_bytes() == b"new"
    for name in ("../extension.toml", "0001-y/../../x", "/etc/0001-x", "since-v6.12/../../x"):
        (folder / ".saving").write_text(f'{{"files": {{"{name}": "bmV3"}}}}')
        with pytest.raises(InfraError, match=r"which no save writes"):
            load_extensions(toys.paths)
    (folder / ".saving").write_text("{")
    with pytest.raises(InfraError, match=r"remove it, and save again"):
        load_extensions(toys.paths)


@pytest.fixture
def command(
    toys: ToyKernels, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str]]:
    """Return the command line on the toys: exit code, and what it said."""
    shutil.copy(REPO / "patches" / "kernels.toml", toys.paths.patches)
    monkeypatch.setattr(Paths, "default", lambda: toys.paths)

    def run(*words: str) -> tuple[int, str]:
        code = cli.main(list(words))
        told = capsys.readouterr()
        return code, told.out + told.err

    return run


def test_what_was_saved_is_told_though_the_next_extension_is_a_fault(
    toys: ToyKernels, command: Callable[..., tuple[int, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = toys.kernel("v6.12.99", {**UPSTREAM})
    resolved(toys, kernel)
    toys.describe("f")
    toys.patch("f/0001-f.patch", {**BASE}, {**BASE, "net/far.c": b"near\n"})
    whole = saving.save

    def save_but_f(*words: Any) -> saving.Saved:
        if words[-1].name == "f":
            raise InfraError("no more disk")
        return whole(*words)

    monkeypatch.setattr(saving, "save", save_but_f)
    code, said = command("save", "v6.12.99")
    assert code == ExitCode.INFRA
    assert "since-v6.12/0001-x.patch" in said


@pytest.mark.parametrize("verb", ["save", "import"])
def test_it_waits_for_another_run_that_writes_to_the_patches(
    toys: ToyKernels,
    command: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
) -> None:
    toys.kernel("v6.12.99", {**UPSTREAM})
    mail = toys.root / "mail"
    mail.write_text((toys.paths.patches / NAME).read_text().replace("[PATCH 1/9]", "[PATCH]"))
    other = filelock.FileLock(toys.paths.repo / ".patches.lock")
    other.acquire()
    told = []

    class Telling(Silent):
        def note(self, line: str) -> None:
            told.append(line)
            other.release()

    monkeypatch.setattr(progress, "shown", lambda: contextlib.nullcontext(Telling()))
    words = {"save": ("save", "v6.12.99"), "import": ("import", str(mail), "--into", "e")}
    command(*words[verb])
    assert told == [f"waiting for another run that writes to {toys.paths.patches}"]


@pytest.fixture
def neighbour(toys: ToyKernels) -> ToyKernels:
    """Give an extension more, that comes first and changes the line above e's."""
    toys.describe("a")
    toys.patch("a/0001-a.patch", {**BASE}, {**BASE, "net/state.c": text(LINES, at29=b"a\n")})
    return toys


def settle_next(toys: ToyKernels, kernel: Kernel, told: str, data: bytes) -> None:
    """Do what the report says to do next, and nothing else."""
    series = toys.rebase(kernel)
    outcome = next(each for each in series.outcomes if not each.state.applies)
    remedy = outcome.conflicts[0].next_step
    assert f"run 'kpw resolve {kernel.name} {told}'" in remedy
    found = opened(toys, kernel, told)
    resolve(found, data)
    assert desk(toys).settle(found, kernel, Silent()).missing == ()


def fresh(toys: ToyKernels, kernel: Kernel, files: Files) -> RebasedSeries:
    """Rebase on another machine, with what is in patches/ and nothing else."""
    other = ToyKernels(toys.root / "fresh")
    shutil.rmtree(other.paths.patches)
    shutil.copytree(toys.paths.patches, other.paths.patches)
    other.kernel("v5.10.262", {**BASE})
    return other.rebase(other.kernel(kernel.name, {**files}))


def test_two_extensions_that_meet_are_resolved_alone_and_together_and_saved(
    neighbour: ToyKernels,
) -> None:
    toys = neighbour
    files: Files = {**BASE, "net/state.c": text(LINES, at29=b"up 29\n", at30=b"up 30\n")}
    kernel = toys.kernel(TAG, {**files})
    settle_next(toys, kernel, "a/0001", text(LINES, at29=b"up 29, a\n", at30=b"up 30\n"))
    settle_next(toys, kernel, "e/0001", text(LINES, at29=b"up 29\n", at30=b"up 30, e\n"))
    both = text(LINES, at29=b"up 29, a\n", at30=b"up 30, e\n")
    settle_next(toys, kernel, "e/0001", both)
    series = toys.rebase(kernel)
    assert [each.state for each in series.outcomes] == [PatchState.REMEMBERED] * 2
    assert toys.content(series.tree, "net/state.c") == both
    for at in range(2):
        extensions = load_extensions(toys.paths)
        bench = saving.Bench(toys.paths, toys.store, Silent())
        assert len(saving.save(bench, kernel, extensions, extensions[at]).files) == 1
    again = fresh(toys, kernel, files)
    assert (again.applies, again.tree) == (True, series.tree)
    assert [each.patch for each in again.outcomes] == [
        "since-v6.12/0001-a.patch",
        "since-v6.12/0001-x.patch",
    ]
    assert save(toys, kernel).files == ()


def test_a_patch_that_conflicts_with_another_extension_only_is_resolved_on_the_series(
    neighbour: ToyKernels, command: Callable[..., tuple[int, str]]
) -> None:
    toys = neighbour
    kernel = toys.kernel("v6.12.99", {**BASE})
    assert [each.state for each in toys.rebase(kernel).outcomes] == [
        PatchState.CLEAN,
        PatchState.CONFLICT,
    ]
    code, said = command("resolve", "v6.12.99")
    assert (code, "the work tree stands on the whole series" in said) == (ExitCode.GOOD, True)
    (found,) = desk(toys).opened()
    both = text(LINES, at29=b"a\n", at30=b"patched\n")
    resolve(found, both)
    code, said = command("resolve", "--continue")
    assert code == ExitCode.GOOD
    assert "next: kpw rebase v6.12.99; kpw prove v6.12.99\n" in said
    assert "kpw save" not in said
    series = fresh(toys, kernel, BASE)
    assert [each.state for each in series.outcomes] == [PatchState.CLEAN, PatchState.REMEMBERED]
    assert save(toys, kernel) == saving.Saved("e")
    assert "keeps it" not in series.outcomes[1].detail
    assert series.outcomes[1].detail.endswith(
        "'kpw prove' confirms it, then 'kpw save' writes the patch, "
        "unless it conflicts with other extensions only: then this stays in use"
    )
    with pytest.raises(UsageError, match=r"has no conflict \(clean\)"):
        opened(toys, kernel)


def test_a_conflict_of_a_selection_of_extensions_only_is_told_as_that(
    neighbour: ToyKernels, command: Callable[..., tuple[int, str]]
) -> None:
    toys = neighbour
    toys.describe("c")
    toys.patch("c/0001-c.patch", {**BASE}, {**BASE, "net/state.c": text(LINES, at31=b"c\n")})
    toys.kernel("v6.12.99", {**BASE})
    chosen = ("rebase", "v6.12.99", "--without", "c")
    code, said = command(*chosen)
    assert (code, "next: run 'kpw resolve v6.12.99 e/0001'" in said) == (ExitCode.CONFLICT, True)
    assert command("resolve", "v6.12.99", "e/0001")[0] == ExitCode.GOOD
    (found,) = desk(toys).opened()
    resolve(found, text(LINES, at29=b"a\n", at30=b"patched\n", at31=b"c\n"))
    assert command("resolve", "--continue")[0] == ExitCode.GOOD
    assert command("rebase", "v6.12.99")[0] == ExitCode.GOOD
    code, said = command(*chosen)
    assert (code, "kpw resolve" in said) == (ExitCode.CONFLICT, False)
    assert (
        "next: it is a conflict of this selection of extensions only, with nothing to resolve: "
        "the patch is clean on what e requires ('kpw rebase v6.12.99 --only e') and remembered in "
        "the whole series ('kpw rebase v6.12.99'); choose more extensions or fewer"
    ) in said
    toys.describe("z")
    toys.write("z/0001-z.patch", "no diff")
    assert "'kpw resolve v6.12.99 e/0001'" in command(*chosen, "--without", "z")[1]
    shutil.rmtree(toys.paths.patches / "z")
    code, said = command("resolve", "v6.12.99", "e/0001")
    assert code == ExitCode.USAGE
    assert "has no conflict (clean) on what e requires, nor in the whole series" in said


def test_what_was_resolved_between_extensions_on_a_younger_kernel_stays_so(
    neighbour: ToyKernels,
) -> None:
    """since-v6.12 speaks for 7.1 too, where the new patch is another patch to be resolved."""
    toys = neighbour
    files: Files = {**BASE, "net/state.c": text(LINES, at29=b"up 29\n", at30=b"up 30\n")}
    kernels = [toys.kernel(TAG, {**files}), toys.kernel("v7.1.13", {**files, "net/new.c": b"\n"})]
    settle_next(toys, kernels[0], "a/0001", text(LINES, at29=b"up 29, a\n", at30=b"up 30\n"))
    settle_next(toys, kernels[0], "e/0001", text(LINES, at29=b"up 29\n", at30=b"up 30, e\n"))
    both = text(LINES, at29=b"up 29, a\n", at30=b"up 30, e\n")
    settle_next(toys, kernels[0], "e/0001", both)
    before = [toys.rebase(each).tree for each in kernels]
    assert save(toys, kernels[0]).files != ()
    after = [toys.rebase(each) for each in kernels]
    assert [(each.applies, each.tree) for each in after] == [(True, tree) for tree in before]


def test_the_first_conflict_that_can_be_opened_is_opened(
    toys: ToyKernels, command: Callable[..., tuple[int, str]]
) -> None:
    toys.describe("d")
    toys.patch("d/0001-d.patch", {**BASE}, {**BASE, "net/new.c": b"new\n"})
    toys.kernel("v6.12.99", {**UPSTREAM, "net/new.c/x": b"a directory\n"})
    code, said = command("resolve", "v6.12.99")
    assert (code, "e/0001: x" in said) == (ExitCode.GOOD, True)
    (found,) = desk(toys).opened()
    assert found.name == "e/0001"
    code, said = command("resolve", "v6.12.99", "d/0001")
    assert (code, "mend the patch itself" in said) == (ExitCode.USAGE, True)


def own_kernel(toys: ToyKernels, **changes: str) -> Path:
    """Give a repository with 6.12.99 and a branch on it that changes files (by their stem)."""
    work_tree = toys.work_tree(toys.kernel("v6.12.99", {**UPSTREAM}))
    work_tree.git("checkout", "-q", "-b", "mine")
    for stem, words in changes.items():
        (file,) = work_tree.folder.rglob(f"{stem}*")
        file.write_bytes(makefile(words) if stem == "Makefile" else words.encode())
    identity = ("-c", "user.name=me", "-c", "user.email=me@example.org")
    work_tree.git(*identity, "commit", "-q", "-a", "--allow-empty", "-m", "mine")
    return work_tree.folder


def test_a_kernel_of_the_user_s_own_is_carried_from_its_conflict_to_the_saved_patch(
    toys: ToyKernels, command: Callable[..., tuple[int, str]]
) -> None:
    repo = own_kernel(toys, far="mine")
    code, said = command("resolve", "--repo", str(repo), "mine", "E/0001")
    assert code == ExitCode.GOOD, said
    (found,) = desk(toys).opened()
    resolve(found)
    (again,) = re.findall(r"then: kpw (resolve mine\+[0-9a-f]{12} e/0001 --continue)", said)
    assert command("resolve", found.kernel, "E/since-v6.12/0001-x.patch")[0] == ExitCode.GOOD
    code, said = command(*again.replace("e/0001", "E/0001-x.patch").split())
    assert code == ExitCode.GOOD, said
    (kpw_save,) = re.findall(r"kpw (save mine\+\S+ e)", said)
    code, said = command(*kpw_save.split())
    assert code == ExitCode.GOOD, said
    (variant,) = load(toys.paths.patches / "e").variants
    assert (str(variant.since), str(variant.base)) == ("v6.12", "v6.12.99")
    assert toys.outcome(found_kernel(toys, found.kernel)).state is PatchState.CLEAN
    assert toys.outcome(found_kernel(toys, "v6.12.99")).state is PatchState.CLEAN


@pytest.mark.parametrize("verb", ["resolve", "save"])
def test_the_repository_is_asked_for_what_the_patches_stand_on_too(
    toys: ToyKernels,
    command: Callable[..., tuple[int, str]],
    monkeypatch: pytest.MonkeyPatch,
    verb: str,
) -> None:
    monkeypatch.delenv("KPW_KERNEL_KEYRING", raising=False)
    monkeypatch.setattr(apt, "bases", tuple)
    toys.kernel("v5.10.90", {**BASE, "net/gone.c": text(OTHER)})
    repo = own_kernel(toys, far="mine")
    toys.store.git("update-ref", "-d", "refs/tags/v5.10.90")
    file = toys.paths.patches / "e" / "extension.toml"
    restore = '[[restore]]\nsince = "v6.3"\nfrom = "v5.10.90"\npaths = ["net/gone.c"]\n'
    file.write_text(f"{file.read_text()}\n{restore}")
    wanted = ExitCode.GOOD if verb == "resolve" else ExitCode.CONFLICT
    code, said = command(verb, "--repo", str(repo), "mine")
    assert code == wanted, said


def found_kernel(toys: ToyKernels, name: str) -> Kernel:
    kernel = toys.store.kernel(name)
    assert kernel is not None
    return kernel


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (
            {"other": text(OTHER, at30=b"mine\n").decode()},
            "its net/other.c is not that of v6.12.99",
        ),
        ({"Makefile": "v6.12.98"}, "run 'kpw fetch v6.12.98'"),
    ],
    ids=["its own file", "its release is not here"],
)
def test_a_base_that_nobody_would_find_again_is_not_written(
    toys: ToyKernels,
    command: Callable[..., tuple[int, str]],
    changes: dict[str, str],
    told: str,
) -> None:
    repo = own_kernel(toys, **changes)
    assert command("resolve", "--repo", str(repo), "mine")[0] == ExitCode.GOOD
    (found,) = desk(toys).opened()
    resolve(found)
    assert command("resolve", "--continue")[0] == ExitCode.GOOD
    before = files_of(toys.paths.patches)
    code, said = command("save", "--repo", str(repo), "mine")
    assert (code, told in said) == (ExitCode.USAGE, True), said
    assert files_of(toys.paths.patches) == before


def test_a_conflict_that_is_not_open_is_told(
    toys: ToyKernels, command: Callable[..., tuple[int, str]]
) -> None:
    opened(toys, toys.kernel("v6.12.99", {**UPSTREAM}))
    for words, told in (
        (("v6.12.98",), "no such conflict is open"),
        (("v6.12.9x",), "did you mean 'v6.12.9"),
        (("v6.12.99", "e/0002"), "no such conflict is open"),
        (("v6.12.99", "g/0001"), "there is no extension 'g'"),
    ):
        code, said = command("resolve", *words, "--abort")
        assert (code, told in said) == (ExitCode.USAGE, True), said
    assert command("resolve", "--repo", str(toys.root))[0] == ExitCode.USAGE
    assert command("resolve", "6.12.99", "E/1", "--abort")[0] == ExitCode.GOOD


def document(said: str) -> dict[str, Any]:
    """Read what came on stdout; what came on stderr is behind it."""
    data: dict[str, Any]
    data, _ = json.JSONDecoder().raw_decode(said)
    return data


def test_a_dry_run_says_what_would_be_written_and_writes_nothing(
    toys: ToyKernels, command: Callable[..., tuple[int, str]]
) -> None:
    kernel = toys.kernel("v6.12.99", {**UPSTREAM})
    resolved(toys, kernel)
    before = files_of(toys.paths.patches)
    code, said = command("save", "v6.12.99", "--dry-run")
    assert (code, files_of(toys.paths.patches)) == (ExitCode.GOOD, before)
    assert re.search(r"^v6\.12\.99: would write .*since-v6\.12/0001-x\.patch", said, re.MULTILINE)
    assert "next:" not in said
    told = document(command("save", "v6.12.99", "--dry-run", "--json")[1])
    assert files_of(toys.paths.patches) == before
    assert told == {
        "kpw": 1,
        "exit_code": 0,
        "kernel": "v6.12.99",
        "dry_run": True,
        "extensions": [
            {
                "extension": "e",
                "written": ["e/since-v6.12/0001-x.patch"],
                "kept": [],
                "resolutions": [],
                "unconfirmed": ["e/since-v6.12/0001-x.patch"],
                "refused": [],
            }
        ],
    }
    assert document(command("save", "v6.12.99", "--json")[1]) == told | {"dry_run": False}
    assert toys.outcome(kernel).state is PatchState.CLEAN


def test_resolve_says_as_json_what_is_open_and_what_is_missing(
    toys: ToyKernels, command: Callable[..., tuple[int, str]]
) -> None:
    def told(*words: str) -> dict[str, Any]:
        code, said = command("resolve", *words, "--json")
        data = document(said)
        assert (data.pop("kpw"), data.pop("exit_code")) == (1, code)
        return data

    toys.kernel("v6.12.99", {**UPSTREAM})
    assert told() == {"open": []}
    command("resolve", "v6.12.99")
    (found,) = desk(toys).opened()
    conflict = {"path": "net/state.c", "kind": dict(found.conflicts)["net/state.c"]}
    wanted = {
        "kernel": "v6.12.99",
        "patch": "e/0001",
        "subject": "x",
        "whole_series": False,
        "tree": str(found.tree.folder),
        "conflicts": [conflict | {"settled": False}],
    }
    assert told() == {"open": [wanted]}
    names = {"kernel": "v6.12.99", "patch": "e/0001"}
    missing = ["net/state.c: not settled, 'git add' (or 'git rm') it"]
    assert told("--continue") == names | {"resolved": False, "missing": missing}
    resolve(found)
    assert told() == {"open": [wanted | {"conflicts": [conflict | {"settled": True}]}]}
    assert told("--abort") == names | {"given_up": True}
    command("resolve", "v6.12.99")
    resolve(found)
    assert told("--continue") == names | {"resolved": True, "missing": []}


@pytest.mark.parametrize("with_run", [False, True])
def test_a_resolution_that_no_selftest_confirmed_is_saved_with_a_note(
    toys: ToyKernels, command: Callable[..., tuple[int, str]], *, with_run: bool
) -> None:
    kernel = toys.kernel("v6.12.99", {**UPSTREAM})
    resolved(toys, kernel)
    proven(toys, toys.rebase(kernel), ProofState.RED if with_run else "green without it")
    _, said = command("save", "v6.12.99")
    note = "0001-x.patch, whose resolution no selftest confirmed yet\n"
    assert (note in said) is not with_run
    assert ("next: kpw prove v6.12.99 --only e" in said) is not with_run


def proven(toys: ToyKernels, series: RebasedSeries, proof: str) -> None:
    """Leave the report of a green run of a series, with one proof of e."""
    cell = {"extension": "e", "state": "green", "proofs": [{"state": proof}]}
    trial = {
        "kernel": series.kernel.name,
        "commit": series.kernel.commit,
        "flavour": "plain",
        "arch": "x86_64",
        "patches": [{"commit": each.commit} for each in series.outcomes],
        "cells": [cell],
    }
    kept = toys.paths.runs / "20261123-000000-1" / "report.json"
    kept.parent.mkdir(parents=True)
    kept.write_text(json.dumps({"started": "today", "trials": [trial]}))


@pytest.mark.real
def test_the_real_series_is_left_as_it_is_on_every_kernel_it_supports(tmp_path: Path) -> None:
    there = Paths.default()
    paths = Paths(tmp_path / "repo", there.cache, tmp_path / "state")
    shutil.copytree(REPO / "patches", paths.patches)
    before = files_of(paths.patches)
    store = Store.open(paths)
    for tag in ("v5.10.262", "v6.1.187", "v6.12.107", "v6.18.15", "v7.1.13"):
        kernel = store.kernel(tag)
        assert kernel is not None, f"{tag} is not imported: run 'kpw fetch {tag}'"
        extensions = load_extensions(paths)
        for extension in extensions:
            bench = saving.Bench(paths, store, Silent())
            saved = saving.save(bench, kernel, extensions, extension)
            assert saved == saving.Saved(extension.name), tag
    assert files_of(paths.patches) == before


@pytest.mark.real
def test_a_real_patch_comes_out_as_it_lies_there_on_the_kernel_it_was_made_on(
    tmp_path: Path,
) -> None:
    there = Paths.default()
    paths = Paths(REPO, there.cache, tmp_path / "state")
    store = Store.open(paths)
    extensions = load_extensions(paths)
    seen = 0
    for extension in extensions:
        bases = {base for _, base in patches_for(extension, KernelTag.parse("v6.12.107"))}
        for base in bases:
            kernel = store.kernel(str(base))
            assert kernel is not None
            chain = [
                each for each in extensions if each.name in {extension.name, *extension.requires}
            ]
            series = rebase(paths, store, kernel, chain)
            clean = {
                each.patch.rpartition("/")[2]
                for each in series.outcomes
                if each.state is PatchState.CLEAN
            }
            for new in written_for(store, kernel, extension, series, clean):
                assert _AFTER_HUNK.sub(b"@@", new.data) == _AFTER_HUNK.sub(
                    b"@@", new.path.read_bytes()
                )
                seen += 1
    assert seen
