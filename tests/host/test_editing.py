# SPDX-License-Identifier: GPL-2.0-only
"""Patches are edited as commits with ordinary git, and what comes back is just what was done."""

from __future__ import annotations

import json
import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_resolving import killed_at
from test_saving import files_of
from toy_kernel import Files, ToyKernels, WorkTree, numbered, text

from workbench import atomic, branchtree, cli, journal, workfolder
from workbench.edited import all_below
from workbench.errors import ExitCode
from workbench.extensions import load_extensions
from workbench.gitstore import Store
from workbench.model import PatchState
from workbench.patchfile import read_patch
from workbench.paths import Paths

if TYPE_CHECKING:
    from collections.abc import Sequence

    from workbench.edited import Edit
    from workbench.model import Kernel

REPO = Path(__file__).resolve().parents[2]
BASE_TAG, TAG = "v5.10.99", "v6.12.99"  # none that kernels.toml pins
LINES = numbered("state", 60)
OTHER = numbered("other", 30)
BASE: Files = {
    "net/state.c": text(LINES),
    "net/other.c": text(OTHER),
    "net/beside.c": b"beside\n",
    "net/deep/far.c": b"far\n",
    "lib/hidden.c": b"hidden\n",
}
ONE: Files = {**BASE, "net/state.c": text(LINES, at10=b"one\n")}
TWO: Files = {**ONE, "net/other.c": text(OTHER, at9=b"two\n")}
THREE: Files = {
    **TWO,
    "net/state.c": text(LINES, at10=b"one\n", at40=b"three\n"),
    "net/new.c": b"new\n",
}
FIVE: Files = {**THREE, "net/deep/far.c": b"five\n"}
NAMES = ("0001-one.patch", "0002-two.patch", "0003-three.patch", "0005-five.patch")


class Studio:
    """A toy extension ``e`` of four patches, and the command line on it."""

    def __init__(self, root: Path, capsys: pytest.CaptureFixture[str]) -> None:
        """Make the kernels and the patches; the numbers have a gap."""
        self.toys = ToyKernels(root)
        self.patches = self.toys.paths.patches
        self.folder = self.patches / "e"
        self._capsys = capsys
        shutil.copy(REPO / "patches" / "kernels.toml", self.patches)
        self.base = self.toys.kernel(BASE_TAG, BASE)
        self.toys.describe("e", base=BASE_TAG)
        steps = (BASE, ONE, TWO, THREE, FIVE)
        for name, before, after in zip(NAMES, steps, steps[1:], strict=False):
            self.toys.patch(f"e/{name}", before, after)

    def kpw(self, *words: str) -> tuple[int, str]:
        code = cli.main(["edit", *words])
        told = self._capsys.readouterr()
        return code, told.out + told.err

    def told(self, *words: str, code: ExitCode = ExitCode.GOOD) -> dict[str, Any]:
        """Return what a program is told; stderr is behind it."""
        got, said = self.kpw(*words, "--json")
        assert got == code, said
        data: dict[str, Any]
        data, _ = json.JSONDecoder().raw_decode(said)
        assert (data.pop("kpw"), data.pop("exit_code")) == (1, code)
        return data

    def open(self, *words: str) -> Desk:
        code, said = self.kpw(*(words or ("e",)))
        assert code == ExitCode.GOOD, said
        return Desk(self.opened()[-1])

    def opened(self) -> tuple[Edit, ...]:
        return all_below(self.toys.paths.edit)

    def states(self, *words: str) -> dict[str, str]:
        """Take the branch over; return what became of each file, former names behind a blank."""
        told = self.told(*(words or ("e",)), "--continue")
        return {
            f"{each['file']} {each['was']}"
            if each["was"] not in {"", each["file"]}
            else each["file"]: (each["state"])
            for each in told["files"]
        }

    def files(self) -> dict[str, bytes]:
        return files_of(self.folder)

    def names(self) -> list[str]:
        return sorted(set(self.files()) - {"extension.toml"})

    def tree(self, kernel: Kernel | None = None) -> str:
        """Return the tree of the series, which has to apply as it stands on its base."""
        series = self.toys.rebase(kernel or self.base)
        if kernel is None:
            assert {each.state for each in series.outcomes} == {PatchState.CLEAN}
        return series.tree


class Desk:
    """The work tree, as the user's own git sees it."""

    def __init__(self, found: Edit) -> None:
        """Be somebody."""
        self.found = found
        self.folder = found.tree.folder
        who = {"NAME": "Me", "EMAIL": "me@example.org"}
        env = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
        env |= {f"GIT_{role}_{key}": who[key] for role in ("AUTHOR", "COMMITTER") for key in who}
        self._tree = WorkTree(self.folder, env | {"GIT_EDITOR": "true"})
        self.git = self._tree.git

    def write(self, path: str, data: bytes) -> None:
        (self.folder / path).parent.mkdir(parents=True, exist_ok=True)
        (self.folder / path).write_bytes(data)

    def commit(self, path: str, data: bytes, *words: str) -> None:
        self.write(path, data)
        self.git("add", path)
        self.git("commit", "-q", *words)

    def rebase(self, *todo: str, check: bool = True) -> None:
        """Run ``git rebase -i`` with these lines; ``{1}`` is the first commit."""
        commits = self.git("log", "--reverse", "--format=%H", "base..edit").split()
        file = self.folder.parent / "todo"
        lines = [line.format(None, *commits) for line in todo]
        file.write_text("".join(f"{line}\n" for line in lines))
        self._tree.env["GIT_SEQUENCE_EDITOR"] = f"cp {file}"
        self.git("rebase", "-q", "-i", "base", check=check)

    def onto(self, number: int) -> None:
        """Stop a rebase at a commit, the first being 1, and leave it there."""
        every = range(1, len(self.subjects()) + 1)
        self.rebase(*(f"{'edit' if at == number else 'pick'} {{{at}}}" for at in every))

    def subjects(self) -> list[str]:
        return self.git("log", "--reverse", "--format=%s", "base..edit").splitlines()

    @property
    def tree(self) -> str:
        return self._tree.tree


@pytest.fixture
def studio(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Studio:
    found = Studio(tmp_path, capsys)
    monkeypatch.setattr(Paths, "default", classmethod(lambda _: found.toys.paths))
    return found


def kept(*names: str) -> dict[str, str]:
    return dict.fromkeys(names, "kept")


# Opening


def test_the_work_tree_is_a_branch_of_one_commit_a_patch(studio: Studio) -> None:
    code, said = studio.kpw("e")
    assert code == ExitCode.GOOD
    (found,) = studio.opened()
    desk = Desk(found)
    assert f"e: 4 patches on {BASE_TAG}\n  work tree: {desk.folder}\n" in said
    assert "kpw edit e --continue" in said
    assert desk.subjects() == ["one", "two", "three", "five"]
    assert desk.git("rev-parse", "base") == studio.base.commit
    assert desk.git("symbolic-ref", "--short", "HEAD") == "edit"
    assert desk.git("status", "--porcelain") == ""
    assert desk.tree == studio.tree()
    first = desk.git("log", "-1", "--format=%an %ae %ad%n%B", "--date=raw", "base~0..edit~3")
    mail = read_patch(studio.folder / NAMES[0]).mail
    assert first == f"{mail.name} {mail.email} {mail.date}\n{mail.message}".strip()


def test_it_shows_the_folders_the_patches_touch_and_no_others(studio: Studio) -> None:
    desk = studio.open()
    files = (path for path in desk.folder.rglob("*") if path.is_file())
    shown = {str(path.relative_to(desk.folder)) for path in files}
    assert {name for name in shown if not name.startswith(".git/")} == {
        "net/state.c",
        "net/other.c",
        "net/beside.c",
        "net/new.c",
        "net/deep/far.c",
    }
    desk.git("sparse-checkout", "add", "/lib/")
    assert (desk.folder / "lib" / "hidden.c").read_bytes() == b"hidden\n"


def test_a_second_open_tells_of_the_first_and_leaves_it_alone(studio: Studio) -> None:
    desk = studio.open()
    desk.commit("net/beside.c", b"mine\n", "-m", "mine")
    code, said = studio.kpw("E")
    assert (code, f"work tree: {desk.folder}\n" in said) == (ExitCode.GOOD, True)
    assert len(studio.opened()) == 1
    assert desk.subjects()[-1] == "mine"


def test_several_are_open_at_once_and_listed(studio: Studio) -> None:
    assert studio.kpw()[1].startswith("nothing is edited; 'kpw edit EXT' opens")
    studio.toys.describe("f", base=BASE_TAG)
    studio.toys.patch("f/0001-f.patch", BASE, {**BASE, "net/beside.c": b"f\n"})
    studio.open("e")
    studio.open("f")
    _, said = studio.kpw()
    assert re.findall(r"^(\w): (\d) patch", said, re.MULTILINE) == [("e", "4"), ("f", "1")]
    code, said = studio.kpw("--continue")
    assert (code, "say which: 'e', 'f'" in said) == (ExitCode.USAGE, True)
    assert studio.kpw("f", "--continue")[0] == ExitCode.GOOD
    assert studio.kpw("--continue")[0] == ExitCode.GOOD
    assert studio.opened() == ()


def test_what_is_required_and_restored_is_below_and_no_patch_of_it(studio: Studio) -> None:
    toys = studio.toys
    older = toys.kernel("v5.4.99", {"net/gone.c": b"gone\n"})
    toys.describe("below", base=BASE_TAG)
    toys.patch("below/0001-below.patch", BASE, {**BASE, "net/beside.c": b"below\n"})
    restore = f'[[restore]]\nsince = "v5.10"\nfrom = "{older.name}"\npaths = ["net/gone.c"]\n'
    toys.describe("e", f'requires = ["below"]\n{restore}', base=BASE_TAG)
    desk = studio.open()
    assert desk.subjects() == ["one", "two", "three", "five"]
    assert desk.git("log", "-2", "--format=%s", "base").splitlines() == [
        "restore net/gone.c from v5.4.99",
        "below",
    ]
    desk.onto(1)
    desk.commit("net/gone.c", b"here again\n", "--amend", "--no-edit")
    desk.git("rebase", "--continue")
    before = files_of(studio.patches / "below")
    assert studio.states()[NAMES[0]] == "rewritten"
    assert b"net/gone.c" in studio.files()[NAMES[0]]
    assert files_of(studio.patches / "below") == before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("spi",), "there is no extension 'spi'; there are: e"),
        (("ee",), "did you mean 'e'?"),
        (("e", "--since", "v6.13"), "e has no folder since-v6.13 (did you mean 'v6.12'?)"),
        (("e", "--since", "x"), "'x'"),
        (("empty",), "empty: has no patches to edit; 'kpw import SOURCE --into empty'"),
        (("e", "--continue"), "e is not open"),
        (("--abort",), "nothing is open"),
        (("e", "--continue", "--abort"), "two different things"),
        (("e", "--dry-run"), "--dry-run is for --continue"),
        (("--since", "v6.12"), "need an extension"),
        (("--repo", "."), "need an extension"),
    ],
)
def test_what_cannot_be_meant_is_told(studio: Studio, words: Sequence[str], told: str) -> None:
    variant(studio)
    if "empty" in words:
        studio.toys.describe("empty", base=BASE_TAG)
    code, said = studio.kpw(*words)
    assert (code, told in said) == (ExitCode.USAGE, True), said


def test_a_patch_that_does_not_apply_to_its_base_is_told_and_nothing_is_opened(
    studio: Studio,
) -> None:
    studio.toys.patch(f"e/{NAMES[1]}", {"net/other.c": b"x\n"}, {"net/other.c": b"y\n"})
    code, said = studio.kpw("e")
    assert code == ExitCode.USAGE
    assert f"e/0002-two.patch: conflict on {BASE_TAG}" in said
    assert studio.opened() == ()


# Writing back


def test_nothing_done_is_nothing_written(studio: Studio) -> None:
    variant(studio)
    before = {path: path.stat().st_ino for path in studio.folder.rglob("*")}
    studio.open()
    code, said = studio.kpw("e", "--continue")
    assert (code, "e: nothing changed; the work tree is gone" in said) == (ExitCode.GOOD, True)
    assert {path: path.stat().st_ino for path in studio.folder.rglob("*")} == before
    assert studio.opened() == ()
    assert list(studio.toys.paths.edit.rglob("*/*/*")) == []


def test_amended(studio: Studio) -> None:
    head, _, _ = studio.files()[NAMES[1]].partition(b"\n---\n")
    before = studio.files()
    desk = studio.open()
    desk.onto(2)
    desk.commit("net/other.c", text(OTHER, at9=b"two\n", at20=b"more\n"), "--amend", "--no-edit")
    desk.git("rebase", "--continue")
    wanted = desk.tree
    assert studio.states() == kept(*NAMES) | {NAMES[1]: "rewritten"}
    after = studio.files()
    assert {name for name in after if after[name] != before[name]} == {NAMES[1]}
    assert after[NAMES[1]].startswith(head + b"\n---\n net/other.c | 4 ++--\n")
    assert after[NAMES[1]].endswith(b"-- \n2.39.5\n")
    assert studio.tree() == wanted


def test_reworded(studio: Studio) -> None:
    before = studio.files()
    desk = studio.open()
    desk.rebase("pick {1}", "pick {2}", "exec git commit --amend -q -m 'net: zwei' -m 'Weil — ja.'",
                "pick {3}", "pick {4}")  # fmt: skip
    assert studio.states() == kept(NAMES[0], *NAMES[2:]) | {
        "0002-net-zwei.patch 0002-two.patch": "rewritten"
    }
    after = studio.files()
    mail = read_patch(studio.folder / "0002-net-zwei.patch").mail
    assert mail.message == "net: zwei\n\nWeil — ja.\n"
    assert (mail.name, mail.date) == ("Alice Doe", "1234564290 +0100")
    diffs = [
        data[data.index(b"diff --git") :]
        for data in (before[NAMES[1]], after["0002-net-zwei.patch"])
    ]
    assert diffs[0] == diffs[1]


def test_reordered_numbers_stay_where_the_order_allows_it(studio: Studio) -> None:
    before = studio.files()
    desk = studio.open()
    desk.rebase("pick {2}", "pick {1}", "pick {3}", "pick {4}")
    wanted = desk.tree
    assert studio.states() == {
        "0001-two.patch 0002-two.patch": "renamed",
        "0002-one.patch 0001-one.patch": "renamed",
        **kept(*NAMES[2:]),
    }
    after = studio.files()
    assert after["0001-two.patch"] == before["0002-two.patch"]
    assert after["0002-one.patch"] == before["0001-one.patch"]
    assert studio.names() == ["0001-two.patch", "0002-one.patch", *NAMES[2:]]
    assert studio.tree() == wanted


def test_what_stands_on_other_text_names_that_text(studio: Studio) -> None:
    """0003 changes the same file as 0001: its blobs are others, its change is not."""
    before = studio.files()
    desk = studio.open()
    desk.onto(1)
    desk.commit("net/state.c", text(LINES, at10=b"uno\n"), "--amend", "--no-edit")
    desk.git("rebase", "--continue")
    _, said = studio.kpw("e", "--continue", "--dry-run")
    assert f"e/{NAMES[0]}: rewritten\n" in said
    assert f"e/{NAMES[2]}: rewritten, the same change on other text\n" in said
    assert studio.states() == kept(*NAMES) | {NAMES[0]: "rewritten", NAMES[2]: "rewritten"}
    diffs = [
        re.sub(rb"index \w+\.\.\w+", b"", files[NAMES[2]].partition(b"diff --git")[2])
        for files in (before, studio.files())
    ]
    assert diffs[0] == diffs[1]
    change = read_patch(studio.folder / NAMES[2]).changes[-1]
    blob = text(LINES, at10=b"uno\n")
    assert change.old_oid == studio.toys.store.git("hash-object", "--stdin", input=blob)


def test_split(studio: Studio) -> None:
    desk = studio.open()
    desk.onto(3)
    desk.git("reset", "-q", "HEAD^")
    desk.git("add", "net/state.c")
    desk.git("commit", "-q", "-C", "ORIG_HEAD")
    desk.commit("net/new.c", b"new\n", "-m", "three, the file")
    desk.git("rebase", "--continue")
    wanted = desk.tree
    assert studio.states() == kept(*NAMES) | {
        NAMES[2]: "rewritten",
        "0004-three-the-file.patch": "new",
    }
    assert b"net/new.c" not in studio.files()[NAMES[2]]
    assert read_patch(studio.folder / "0004-three-the-file.patch").mail.name == "Me"
    assert studio.tree() == wanted


def test_a_carriage_return_in_a_line_is_no_end_of_it(studio: Studio) -> None:
    """What stood behind the diff was cut in the wrong place."""
    odd: Files = {**FIVE, "net/odd.c": b"".join(b"a\rb %d\n" % at for at in range(9))}
    studio.toys.patch("e/0006-odd.patch", FIVE, odd)
    desk = studio.open()
    desk.commit("net/beside.c", b"mine\n", "--amend", "--no-edit")
    wanted = desk.tree
    assert studio.states() == kept(*NAMES) | {"0006-odd.patch": "rewritten"}
    assert studio.files()["0006-odd.patch"].count(b"a\rb") == 9
    assert studio.tree() == wanted


def test_squashed(studio: Studio) -> None:
    desk = studio.open()
    desk.rebase("pick {1}", "pick {2}", "fixup {3}", "pick {4}")
    wanted = desk.tree
    assert studio.states() == kept(NAMES[0], NAMES[3]) | {
        NAMES[1]: "rewritten",
        NAMES[2]: "removed",
    }
    assert studio.names() == [NAMES[0], NAMES[1], NAMES[3]]
    assert studio.tree() == wanted


def test_dropped(studio: Studio) -> None:
    before = studio.files()
    desk = studio.open()
    desk.rebase("pick {1}", "pick {3}", "pick {4}")
    assert studio.states() == kept(NAMES[0], *NAMES[2:]) | {NAMES[1]: "removed"}
    assert studio.files() == {name: before[name] for name in before if name != NAMES[1]}


def test_added_in_a_gap_and_where_there_is_none(studio: Studio) -> None:
    desk = studio.open()
    desk.rebase(
        "pick {1}",
        "exec echo a >net/a.c; git add net/a.c; git commit -q -m 'add a'",
        "pick {2}",
        "pick {3}",
        "exec echo b >net/b.c; git add net/b.c; git commit -q -m 'add b'",
        "pick {4}",
    )
    wanted = desk.tree
    assert studio.states() == {
        NAMES[0]: "kept",
        "0002-add-a.patch": "new",
        "0003-two.patch 0002-two.patch": "renamed",
        "0004-three.patch 0003-three.patch": "renamed",
        "0005-add-b.patch": "new",
        "0006-five.patch 0005-five.patch": "renamed",
    }
    assert studio.tree() == wanted
    data = studio.files()["0002-add-a.patch"]
    assert data.startswith(b"From " + b"0" * 40 + b" Mon Sep 17 00:00:00 2001\nFrom: Me <me@")
    assert data.endswith(b"+a\n-- \nkpw\n\n")


def test_added_in_the_gap(studio: Studio) -> None:
    before = studio.files()
    desk = studio.open()
    desk.onto(3)
    desk.commit("net/a.c", b"a\n", "-m", "add a")
    desk.git("rebase", "--continue")
    assert studio.states() == kept(*NAMES) | {"0004-add-a.patch": "new"}
    after = studio.files()
    assert {name: after[name] for name in before} == before


def test_a_new_patch_says_what_it_is_made_on_where_its_neighbours_do(studio: Studio) -> None:
    file = studio.folder / NAMES[0]
    head, _, tail = file.read_text().rpartition("-- \n")
    file.write_text(f"{head}\nbase-commit: {'1' * 40}\n-- \n{tail}")
    desk = studio.open()
    desk.onto(1)
    desk.commit("net/state.c", text(LINES, at10=b"uno\n"), "--amend", "--no-edit")
    desk.git("rebase", "--continue")
    desk.commit("net/a.c", b"a\n", "-m", "add a")
    studio.states()
    told = f"\n\nbase-commit: {studio.base.commit}\n-- \n".encode()
    says = {name for name, data in studio.files().items() if told in data}
    assert says == {NAMES[0], "0006-add-a.patch"}


def test_a_file_that_names_the_patches_it_stands_on_names_them_as_they_are(studio: Studio) -> None:
    file = studio.folder / NAMES[3]
    head, _, tail = file.read_text().rpartition("-- \n")
    file.write_text(f"{head}\nprerequisite-patch-id: {'1' * 40}\n-- \n{tail}")
    studio.open()
    assert studio.states() == kept(*NAMES)
    desk = studio.open()
    desk.onto(2)
    desk.commit("net/other.c", text(OTHER, at9=b"zwei\n"), "--amend", "--no-edit")
    desk.git("rebase", "--continue")
    assert studio.states() == kept(*NAMES) | {NAMES[1]: "rewritten", NAMES[3]: "rewritten"}
    ids = re.findall(r"^prerequisite-patch-id: (\w+)$", file.read_text(), re.MULTILINE)
    diffs = (read_patch(studio.folder / name).diff for name in NAMES[:3])
    words = ("patch-id", "--stable")
    assert ids == [studio.toys.store.git(*words, input=diff).split()[0] for diff in diffs]


def test_a_commit_whose_author_was_reset_is_known_by_its_subject(studio: Studio) -> None:
    desk = studio.open()
    desk.git("commit", "-q", "--amend", "--reset-author", "--no-edit")
    assert studio.states() == kept(*NAMES) | {NAMES[3]: "rewritten"}
    assert read_patch(studio.folder / NAMES[3]).mail.name == "Me"


def test_patches_of_the_same_author_and_date_and_with_new_words_are_told_by_their_diff(
    studio: Studio,
) -> None:
    desk = studio.open()
    reword = "exec git commit --amend -q -m '{}'".format
    desk.rebase("pick {4}", reword("a"), "pick {1}", reword("b"), "pick {3}", reword("c"))
    was = {name.partition(" ")[2]: state for name, state in studio.states().items() if " " in name}
    assert was == {NAMES[3]: "rewritten", NAMES[0]: "rewritten", NAMES[2]: "rewritten"}
    assert [name[5:] for name in studio.names()] == ["a.patch", "b.patch", "c.patch"]


def test_a_dry_run_says_it_and_writes_nothing(studio: Studio) -> None:
    before = studio.files()
    desk = studio.open()
    desk.rebase("pick {1}", "pick {3}", "pick {4}")
    code, said = studio.kpw("e", "--continue", "--dry-run")
    assert code == ExitCode.GOOD
    assert "e/0002-two.patch: removed\n" in said
    assert "e: nothing is written, and the work tree stays" in said
    assert (studio.files(), len(studio.opened())) == (before, 1)
    code, said = studio.kpw("e", "--continue")
    assert "e: written, and the work tree is gone\n  next: kpw rebase --all\n" in said
    assert studio.names() == [NAMES[0], *NAMES[2:]]


def test_what_is_told_as_json(studio: Studio) -> None:
    assert studio.told() == {"open": []}
    opened = studio.told("e")
    (found,) = studio.opened()
    data = {"extension": "e", "since": "", "kernel": BASE_TAG, "patches": list(NAMES)}
    assert opened == {"open": [data | {"tree": str(found.tree.folder)}]}
    desk = Desk(found)
    desk.write("net/beside.c", b"mine\n")
    told = studio.told("e", "--continue", code=ExitCode.CONFLICT)
    assert (told["written"], told["files"]) == (False, [])
    assert told["missing"] == [
        "net/beside.c: not committed; commit or restore it (remove it if it is new)"
    ]
    assert studio.told("e", "--abort") == {
        "extension": "e",
        "since": "",
        "given_up": True,
        "commits": 0,
        "files": ["net/beside.c"],
    }


# Variants and resolutions


def variant(studio: Studio, name: str = NAMES[1], since: str = "v6.12", base: str = TAG) -> Kernel:
    """Give a patch a variant for a younger kernel, where one file has another text."""
    other = text(OTHER, at8=b"young\n")
    young: Files = {**BASE, "net/other.c": other}
    kernel = studio.toys.kernel(base, young)
    after = {**young, "net/other.c": text(OTHER, at8=b"young\n", at9=b"two, young\n")}
    toml = f"# Why there is a variant.\n[variants.'{since}']\nbase = '{base}'\n"
    studio.toys.describe("e", toml, base=BASE_TAG)
    studio.toys.patch(f"e/since-{since}/{name}", young, after)
    return kernel


def test_variants_follow_the_number_of_their_patch(studio: Studio) -> None:
    kernel = variant(studio)
    before, tree = studio.files(), studio.tree(kernel)
    desk = studio.open()
    desk.rebase("pick {2}", "pick {1}", "pick {3}", "pick {4}")
    states = studio.states()
    assert states["since-v6.12/0001-two.patch since-v6.12/0002-two.patch"] == "renamed"
    assert studio.files()["since-v6.12/0001-two.patch"] == before["since-v6.12/0002-two.patch"]
    assert "since-v6.12/0002-two.patch" not in studio.files()
    assert studio.tree(kernel) == tree


def test_a_variant_s_own_patch_stays_where_it_was(studio: Studio) -> None:
    kernel = studio.toys.kernel(TAG, BASE)
    studio.toys.describe("e", f'[variants."v6.12"]\nbase = "{TAG}"\n', base=BASE_TAG)
    studio.toys.patch("e/since-v6.12/0004-four.patch", THREE, {**THREE, "net/four.c": b"four\n"})
    studio.open().rebase("pick {3}", "pick {1}", "pick {2}", "pick {4}")
    assert "since-v6.12/0004-four.patch" not in " ".join(studio.states())
    assert [each.patch[:17] for each in studio.toys.rebase(kernel).outcomes][3:] == [
        "since-v6.12/0004-",
        NAMES[3],
    ]


def test_a_number_only_a_variant_has_is_given_to_no_patch(studio: Studio) -> None:
    kernel = studio.toys.kernel(TAG, BASE)
    toml = f'[variants."v6.12"]\nbase = "{TAG}"\n'
    studio.toys.describe("e", toml, base=BASE_TAG)
    studio.toys.patch("e/since-v6.12/0004-four.patch", THREE, {**THREE, "net/four.c": b"four\n"})
    desk = studio.open()
    desk.onto(3)
    desk.commit("net/a.c", b"a\n", "-m", "add a")
    desk.git("rebase", "--continue")
    assert studio.states() == kept(*NAMES[:3]) | {
        "0005-add-a.patch": "new",
        "0006-five.patch 0005-five.patch": "renamed",
    }
    series = studio.toys.rebase(kernel)
    assert [each.patch for each in series.outcomes][3:5] == [
        "since-v6.12/0004-four.patch",
        "0005-add-a.patch",
    ]


def test_variants_of_a_dropped_patch_go_with_it_and_so_does_an_empty_folder(
    studio: Studio,
) -> None:
    variant(studio)
    studio.open().rebase("pick {1}", "pick {3}", "pick {4}")
    code, said = studio.kpw("e", "--continue")
    assert code == ExitCode.GOOD
    assert "e/since-v6.12/0002-two.patch: removed (with 0002-two.patch)\n" in said
    assert "e/extension.toml: removed (its table for since-v6.12/, which is empty)\n" in said
    assert studio.names() == [NAMES[0], *NAMES[2:]]
    assert not (studio.folder / "since-v6.12").exists()
    assert studio.files()["extension.toml"] == (
        f'id = "E"\nsummary = "s"\nbase = "{BASE_TAG}"\n'.encode()
    )
    (extension,) = load_extensions(studio.toys.paths)
    assert extension.variants == ()


def test_a_variant_of_a_changed_patch_keeps_its_text_and_is_told(studio: Studio) -> None:
    variant(studio)
    before = studio.files()
    desk = studio.open()
    desk.onto(2)
    desk.commit("net/other.c", text(OTHER, at9=b"zwei\n"), "--amend", "--no-edit")
    desk.git("rebase", "--continue")
    _, said = studio.kpw("e", "--continue")
    told = "e/since-v6.12/0002-two.patch: still has the old text; 'kpw edit e --since v6.12', or"
    assert said.count(told) == 1
    after = studio.files()
    assert {name for name in after if after[name] != before[name]} == {NAMES[1]}


RESOLUTION = """\
From: W <w@localhost>
Date: Wed, 1 Jan 2020 00:00:00 +0000
Subject: [RESOLUTION] e two

Patch-id: {}
Resolved-on: v6.12.99
Conflict: {} net/other.c
---
"""


def resolution(studio: Studio, name: str) -> str:
    """Give a patch a resolution; return its name in the extension's folder."""
    diff = read_patch(studio.folder / name).diff
    identity = studio.toys.store.git("patch-id", "--stable", input=diff).split()[0]
    file = studio.folder / "resolutions" / f"{name[:4]}-abcdef.resolution"
    file.parent.mkdir(exist_ok=True)
    file.write_text(RESOLUTION.format(identity, "0" * 64))
    return f"resolutions/{file.name}"


def test_resolutions_follow_their_patch_by_number_and_text_and_go_with_it(studio: Studio) -> None:
    for name in (NAMES[0], NAMES[1], NAMES[3]):
        resolution(studio, name)
    before = studio.files()
    desk = studio.open()
    desk.rebase("pick {2}", "pick {1}", "pick {3}")
    desk.onto(2)
    desk.commit("net/state.c", text(LINES, at10=b"uno\n"), "--amend", "--no-edit")
    desk.git("rebase", "--continue")
    _, said = studio.kpw("e", "--continue")
    after = studio.files()
    assert "e/resolutions/0005-abcdef.resolution: removed (with its patch)\n" in said
    assert (
        after["resolutions/0001-abcdef.resolution"] == before["resolutions/0002-abcdef.resolution"]
    )
    (new,) = re.findall(rb"Patch-id: (\w+)", after["resolutions/0002-abcdef.resolution"])
    diff = read_patch(studio.folder / "0002-one.patch").diff
    assert new.decode() == studio.toys.store.git("patch-id", "--stable", input=diff).split()[0]
    old = before["resolutions/0001-abcdef.resolution"]
    assert after["resolutions/0002-abcdef.resolution"] == re.sub(rb"(?<=Patch-id: )\w+", new, old)
    assert "resolutions/0005-abcdef.resolution" not in after


# A folder since-…


def test_a_folder_s_patch_is_edited_on_its_own_base(studio: Studio) -> None:
    kernel = variant(studio)
    before = studio.files()
    desk = studio.open("e", "--since", "6.12")
    assert desk.subjects() == ["one", "two", "three", "five"]
    assert desk.git("rev-parse", "base") == kernel.commit
    desk.onto(2)
    desk.commit("net/other.c", text(OTHER, at8=b"young\n", at9=b"2\n"), "--amend", "--no-edit")
    desk.git("rebase", "--continue")
    wanted = desk.tree
    assert studio.kpw("e", "--continue")[0] == ExitCode.GOOD
    after = studio.files()
    assert {name for name in after if after[name] != before[name]} == {"since-v6.12/0002-two.patch"}
    assert studio.tree(kernel) == wanted


def test_a_canonical_patch_changed_there_becomes_a_file_of_the_folder(studio: Studio) -> None:
    kernel = variant(studio)
    before = studio.files()
    desk = studio.open("e", "--since", "v6.12")
    desk.commit("net/deep/far.c", b"5\n", "--amend", "--no-edit")
    desk.commit("net/a.c", b"a\n", "-m", "add a")
    wanted = desk.tree
    assert studio.states("e", "--since", "v6.12") == {
        **kept(NAMES[0], "since-v6.12/0002-two.patch", NAMES[2]),
        "since-v6.12/0005-five.patch": "new",
        "since-v6.12/0006-add-a.patch": "new",
    }
    after = studio.files()
    assert {name: after[name] for name in before} == before
    assert studio.tree(kernel) == wanted


def test_what_a_folder_cannot_say_is_refused(studio: Studio) -> None:
    variant(studio)
    before = studio.files()
    desk = studio.open("e", "--since", "v6.12")
    for todo, told in (
        (("pick {2}", "pick {1}", "pick {3}", "pick {4}"), "would get other numbers"),
        (("pick {1}", "pick {3}", "pick {4}"), "0002 was dropped, and 0002-two.patch would come"),
        (("pick {1}", "pick {2}", "pick {3}"), "0005 was dropped, and 0005-five.patch would come"),
    ):
        desk.rebase(*todo)
        code, said = studio.kpw("e", "--continue")
        assert (code, told in said) == (ExitCode.USAGE, True), said
        desk.git("reset", "-q", "--hard", desk.found.state.tip)
    assert studio.files() == before


def test_a_patch_a_younger_folder_has_is_not_edited_here(studio: Studio) -> None:
    kernel = variant(studio)
    young: Files = {**BASE, "net/other.c": text(OTHER, at8=b"young\n")}
    toml = "".join(f"[variants.'{tag}']\nbase = '{TAG}'\n" for tag in ("v6.12", "v6.12.50"))
    studio.toys.describe("e", toml, base=BASE_TAG)
    more = {**young, "net/other.c": text(OTHER, at8=b"young\n", at9=b"two, younger\n")}
    studio.toys.patch("e/since-v6.12.50/0002-two.patch", young, more)
    before = studio.files()
    desk = studio.open("e", "--since", "v6.12")
    assert desk.git("rev-parse", "base") == kernel.commit
    desk.onto(2)
    desk.commit("net/other.c", text(OTHER, at8=b"young\n", at9=b"2\n"), "--amend", "--no-edit")
    desk.git("rebase", "--continue")
    code, said = studio.kpw("e", "--continue")
    assert (code, "edit it with '--since v6.12.50'" in said) == (ExitCode.USAGE, True), said
    assert studio.files() == before


def test_a_patch_a_folder_adds_can_be_dropped_and_the_empty_folder_goes(studio: Studio) -> None:
    studio.toys.kernel(TAG, BASE)
    toml = f'[variants."v6.12"]\nbase = "{TAG}"\n'
    studio.toys.describe("e", toml, base=BASE_TAG)
    studio.toys.patch("e/since-v6.12/0006-six.patch", FIVE, {**FIVE, "net/six.c": b"six\n"})
    desk = studio.open("e", "--since", "v6.12")
    desk.git("reset", "-q", "--hard", "HEAD^")
    states = studio.states()
    assert states["since-v6.12/0006-six.patch"] == "removed"
    assert studio.names() == list(NAMES)
    assert load_extensions(studio.toys.paths)[0].variants == ()


# What is refused


def refused(studio: Studio, *told: str, code: ExitCode = ExitCode.CONFLICT) -> None:
    """See that --continue says one line for each, and leaves everything as it is."""
    before = studio.files()
    got, said = studio.kpw("e", "--continue")
    assert got == code, said
    lines = [line for line in said.splitlines() if line.startswith(("e: ", "kpw: "))]
    assert len(lines) == len(told), said
    for line, words in zip(lines, told, strict=True):
        assert words in line
    assert (studio.files(), len(studio.opened())) == (before, 1)


def test_a_rebase_that_is_under_way_is_refused(studio: Studio) -> None:
    desk = studio.open()
    desk.onto(2)
    refused(studio, "e: a rebase is under way: finish it there, or 'git rebase --abort'")
    desk.git("rebase", "--abort")
    desk.rebase("pick {3}", "pick {1}", "exec false", "pick {2}", "pick {4}", check=False)
    refused(studio, "a rebase is under way")


def test_a_merge_that_is_under_way_is_refused(studio: Studio) -> None:
    desk = studio.open()
    desk.git("checkout", "-q", "-b", "aside", "base")
    desk.commit("net/state.c", text(LINES, at10=b"else\n"), "-m", "else")
    desk.git("checkout", "-q", "edit")
    desk.git("merge", "-q", "aside", check=False)
    refused(studio, "a merge is under way: finish it there, or 'git merge --abort'")


@pytest.mark.parametrize("how", ["changed", "staged", "new"])
def test_what_is_in_no_commit_is_refused(studio: Studio, how: str) -> None:
    desk = studio.open()
    path = "net/a.c" if how == "new" else "net/beside.c"
    desk.write(path, b"mine\n")
    if how == "staged":
        desk.git("add", path)
    refused(studio, f"e: {path}: not committed")


def test_merges_empty_commits_and_an_empty_branch_are_refused(studio: Studio) -> None:
    desk = studio.open()
    tip = desk.git("rev-parse", "HEAD")
    desk.git("commit", "-q", "--allow-empty", "-m", "nothing in it")
    refused(studio, "(nothing in it) changes nothing: drop it")
    desk.git("reset", "-q", "--hard", "base")
    refused(studio, "no commit is left on 'edit'")
    desk.git("reset", "-q", "--hard", tip)
    desk.git("checkout", "-q", "-b", "aside", "base")
    desk.commit("net/beside.c", b"mine\n", "-m", "mine")
    desk.git("checkout", "-q", "edit")
    desk.git("merge", "-q", "--no-ff", "-m", "joined", "aside")
    refused(studio, "(joined) is a merge: make the branch straight with 'git rebase base'")
    desk.git("rebase", "-q", "base")
    desk.git("branch", "-q", "-D", "aside")
    studio.states()
    assert len(studio.names()) == 5


def test_changed_commits_below_are_refused(studio: Studio) -> None:
    studio.toys.describe("below", base=BASE_TAG)
    studio.toys.patch("below/0001-below.patch", BASE, {**BASE, "net/beside.c": b"below\n"})
    studio.toys.describe("e", 'requires = ["below"]', base=BASE_TAG)
    desk = studio.open()
    base, tip = desk.git("rev-parse", "base", "edit").split()
    desk.git("reset", "-q", "--hard", "base")
    desk.commit("net/beside.c", b"otherwise\n", "--amend", "--no-edit")
    desk.git("cherry-pick", f"{base}..{tip}")
    refused(studio, "commits below the extension's own were changed")
    desk.git("rebase", "-q", "--onto", base[:12], "edit~4", "edit")
    assert studio.states() == kept(*NAMES)


def test_work_beside_the_branch_would_be_lost_and_is_refused(studio: Studio) -> None:
    desk = studio.open()
    desk.git("branch", "as-it-was")
    desk.git("checkout", "-q", "-b", "aside")
    desk.commit("net/beside.c", b"mine\n", "-m", "mine")
    refused(studio, "another branch than 'edit' is checked out", "the branch 'aside' has commits")
    desk.git("checkout", "-q", "edit")
    desk.git("branch", "-q", "-D", "aside")
    desk.write("net/beside.c", b"mine\n")
    desk.git("stash", "-q")
    refused(studio, "a stash is left: 'git stash pop' or 'git stash drop' it")
    desk.git("stash", "drop", "-q")
    assert studio.states() == kept(*NAMES)


@pytest.mark.parametrize(
    ("message", "told"),
    [
        ("[RFC] one more\n", "a mail cannot hold its subject"),
        ("more\n\ntext\n---\nmore text\n", "a mail cannot hold its message"),
        ("more\n\ndiff --git a/x b/x\n", "a mail cannot hold its message"),
    ],
)
def test_words_no_patch_file_can_hold_are_refused(studio: Studio, message: str, told: str) -> None:
    desk = studio.open()
    (desk.folder.parent / "words").write_text(message)
    desk.commit("net/a.c", b"a\n", "--cleanup=verbatim", "-F", "../words")
    refused(studio, told, code=ExitCode.USAGE)


def test_a_binary_file_is_refused(studio: Studio) -> None:
    studio.open().commit("net/a.bin", b"\0\1\2", "-m", "binary")
    refused(studio, "binary files cannot be carried", code=ExitCode.USAGE)


def test_patches_that_were_changed_meanwhile_are_not_written_over(studio: Studio) -> None:
    desk = studio.open()
    desk.commit("net/a.c", b"a\n", "-m", "add a")
    studio.toys.patch(f"e/{NAMES[3]}", THREE, {**THREE, "net/deep/far.c": b"otherwise\n"})
    refused(studio, "were changed since this was opened; keep your commits", code=ExitCode.USAGE)


# Nothing is lost


def test_abort_says_what_went_with_it_only_if_something_did(studio: Studio) -> None:
    studio.open()
    code, said = studio.kpw("e", "--abort")
    assert (code, said) == (ExitCode.GOOD, "e: given up, its work tree is gone\n")
    before = studio.files()
    desk = studio.open()
    desk.commit("net/a.c", b"a\n", "-m", "add a")
    desk.write("net/beside.c", b"mine\n")
    _, said = studio.kpw("e", "--abort")
    assert said == (
        "e: given up, its work tree is gone, and with it 1 commit that was not written back "
        "and what was not committed in net/beside.c\n"
    )
    assert (studio.files(), studio.opened()) == (before, ())
    refs = studio.toys.store.git("for-each-ref", "refs/kpw/edit")
    assert refs == ""


def test_a_broken_work_tree_can_be_given_up(studio: Studio) -> None:
    desk = studio.open()
    shutil.rmtree(desk.folder / ".git")
    assert studio.kpw("e", "--abort")[0] == ExitCode.GOOD
    assert studio.opened() == ()


def test_a_ref_keeps_the_commits_while_it_is_open(studio: Studio) -> None:
    desk = studio.open()
    refs = studio.toys.store.git(
        "for-each-ref", "--format=%(refname) %(objectname)", "refs/kpw/edit"
    )
    assert refs == f"refs/kpw/edit/e/canonical {desk.found.state.tip}"
    studio.states()
    assert studio.toys.store.git("for-each-ref", "refs/kpw/edit") == ""


def test_a_run_killed_while_it_opens_left_nothing_open(studio: Studio) -> None:
    def opens() -> object:
        return cli.main(["edit", "e"])

    killed_at(studio.toys, "_shown", branchtree, opens)
    assert studio.opened() == ()
    assert len(list(studio.toys.paths.edit.glob("*/.opening-*"))) == 1
    studio.open()
    assert list(studio.toys.paths.edit.glob("*/.opening-*")) == []


@pytest.mark.parametrize(
    ("owner", "place", "nth", "written"),
    [
        # The first five go into the copy that is tried: a journal, and the files in it.
        (atomic, "write", 6, False),
        (journal, "_carry_out", 2, True),
        *[(atomic, "write", nth, True) for nth in range(7, 11)],
        *[(journal, "_take_away", nth, True) for nth in range(5, 9)],
        (workfolder, "remove", 1, True),
    ],
)
def test_killed_at_any_write_it_is_not_begun_or_is_finished_by_who_comes_next(
    studio: Studio, owner: object, place: str, nth: int, *, written: bool
) -> None:
    variant(studio)
    before = studio.files()
    desk = studio.open()
    desk.rebase("pick {2}", "pick {1}", "pick {3}")
    desk.commit("net/a.c", b"a\n", "-m", "add a")
    wanted = desk.tree
    killed_at(studio.toys, place, owner, lambda: cli.main(["edit", "e", "--continue"]), nth)
    studio.toys.store = Store.open(studio.toys.paths)
    load_extensions(studio.toys.paths)
    now = studio.files()
    assert (now != before) is written
    studio.states()
    assert studio.opened() == ()
    assert studio.names() == [
        "0001-two.patch",
        "0002-one.patch",
        NAMES[2],
        "0004-add-a.patch",
        "since-v6.12/0001-two.patch",
    ]
    assert not written or studio.files() == now
    assert studio.tree() == wanted


def test_a_failing_disk_leaves_the_patches_and_the_work_tree(
    studio: Studio, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = studio.files()
    desk = studio.open()
    desk.commit("net/a.c", b"a\n", "-m", "add a")
    whole = atomic.write

    def fails(path: Path, data: bytes) -> None:
        if path == studio.folder / journal.NAME:
            raise OSError(28, "No space left on device")
        whole(path, data)

    with monkeypatch.context() as patched:
        patched.setattr(atomic, "write", fails)
        assert studio.kpw("e", "--continue")[0] == ExitCode.INFRA
    assert (studio.files(), len(studio.opened())) == (before, 1)
    assert studio.states()["0006-add-a.patch"] == "new"


# The user's own kernel, and the real series


def test_the_base_can_come_out_of_the_user_s_own_repository(studio: Studio) -> None:
    work = studio.toys.work_tree(studio.base)
    work.git("tag", "-f", "v5.10.98", studio.base.commit)
    studio.toys.describe("e", base="v5.10.98")
    code, said = studio.kpw("e", "--repo", str(work.folder))
    assert code == ExitCode.GOOD, said
    desk = Desk(studio.opened()[0])
    assert desk.subjects() == ["one", "two", "three", "five"]
    desk.commit("net/deep/far.c", b"5\n", "--amend", "--no-edit")
    assert studio.states() == kept(*NAMES) | {NAMES[3]: "rewritten"}


def test_the_user_s_settings_in_the_work_tree_change_no_file(studio: Studio) -> None:
    desk = studio.open()
    for key, value in {
        "diff.noprefix": "true",
        "diff.context": "1",
        "log.showSignature": "true",
        "i18n.logOutputEncoding": "latin1",
        "core.quotePath": "false",
    }.items():
        desk.git("config", key, value)
    assert studio.states() == kept(*NAMES)


@pytest.mark.real
@pytest.mark.parametrize(
    ("name", "since"),
    [("spi-timeout", ""), ("ha-clusterip", ""), ("ha-cluster", ""), ("ha-clusterip", "v6.12")],
)
def test_a_real_extension_comes_back_as_it_was(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    name: str,
    since: str,
) -> None:
    paths = Paths(tmp_path / "real", Paths.default().cache, tmp_path / "state")
    studio = Studio(tmp_path / "toys", capsys)
    shutil.copytree(REPO / "patches", paths.patches)
    monkeypatch.setattr(Paths, "default", classmethod(lambda _: paths))
    before = files_of(paths.patches)
    words = (name, "--since", since) if since else (name,)
    assert studio.kpw(*words)[0] == ExitCode.GOOD
    (found,) = all_below(paths.edit)
    # All commits are others then, since the committer is.
    Desk(found).git("rebase", "-q", "--force-rebase", "base")
    told = studio.told(*words, "--continue")
    assert {each["state"] for each in told["files"]} == {"kept"}
    assert files_of(paths.patches) == before
