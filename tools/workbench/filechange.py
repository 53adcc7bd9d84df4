# SPDX-License-Identifier: GPL-2.0-only
"""What a git diff says of one file: the values, and the reader of its header lines."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from enum import StrEnum

SYMLINK = "120000"
_MODES = {"100644", "100755", SYMLINK}
_EMPTY_BLOB = "e69de29bb2d1d6434b8b29ae775ad8c2e48c5391"
_INDEX = re.compile(r"([0-9a-f]{4,64})\.\.([0-9a-f]{4,64})(?: (\d{6}))?")
_QUOTED = re.compile(rb'"((?:[^"\\]|\\.)*)"')
_ESCAPE = re.compile(rb"\\([0-3][0-7]{2}|.)")
_LETTERS = dict(zip(b'abtnvfr"\\', b'\a\b\t\n\v\f\r"\\', strict=True))


class ChangeKind(StrEnum):
    """What a patch does to one file."""

    MODIFY = "modify"
    CREATE = "create"
    DELETE = "delete"
    RENAME = "rename"
    COPY = "copy"


@dataclass(frozen=True)
class Hunk:
    """One hunk: ``line`` is its place in the patch file, ``body`` its lines with their sign."""

    line: int
    old_start: int
    old_count: int
    new_start: int
    new_count: int
    body: tuple[bytes, ...]

    @property
    def before(self) -> bytes:
        """The text it expects."""
        return self._without(b"+")

    @property
    def after(self) -> bytes:
        """The text it leaves."""
        return self._without(b"-")

    def _without(self, sign: bytes) -> bytes:
        kept: list[bytes] = []
        last = b""
        for line in self.body:
            if line.startswith(b"\\"):
                if kept and last != sign:
                    kept[-1] = kept[-1].removesuffix(b"\n")
            elif line[:1] != sign:
                kept.append(line if line == b"\n" else line[1:])
            last = line[:1]
        return b"".join(kept)


@dataclass(frozen=True)
class FileChange:
    """What a patch does to one file.

    ``line`` is the place of its ``diff --git`` in the patch file. ``old`` is
    None for a new file, ``new`` for a deleted one. ``old_oid`` is the blob id
    (or the start of one) of what the patch was made on; empty when not told.
    ``text`` is this file's part of the diff.
    """

    line: int
    kind: ChangeKind
    old: str | None
    new: str | None
    old_mode: str = ""
    new_mode: str = ""
    old_oid: str = ""
    new_oid: str = ""
    hunks: tuple[Hunk, ...] = ()
    text: bytes = b""

    @property
    def name(self) -> str:
        """Its name, the new one if there are two."""
        return self.new or self.old or ""

    @property
    def paths(self) -> tuple[str, ...]:
        """The names it touches, old one first."""
        return tuple(dict.fromkeys(path for path in (self.old, self.new) if path is not None))

    @property
    def needs_hunks(self) -> bool:
        """Tell whether its header says that the content changes."""
        if self.kind is ChangeKind.CREATE:
            return bool(self.new_oid) and not _EMPTY_BLOB.startswith(self.new_oid)
        if self.kind is ChangeKind.DELETE:
            return bool(self.old_oid) and not _EMPTY_BLOB.startswith(self.old_oid)
        unchanged = self.kind is ChangeKind.MODIFY and self.old_mode == self.new_mode
        return unchanged or bool(self.new_oid)

    def made_on(self, oid: str) -> FileChange:
        """Return it with another blob as what it was made on (a full id)."""
        lines = self.text.splitlines(keepends=True)
        known = [number for number, line in enumerate(lines) if line.startswith(b"index ")]
        ends = [number for number, line in enumerate(lines) if line.startswith(b"--- ")]
        start = known[0] if known and known[0] < ends[0] else ends[0]
        # Only the old id matters to git; with a mode change the mode stands in its own lines.
        mode = f" {self.old_mode}" if self.old_mode == self.new_mode and self.old_mode else ""
        lines[start : start + bool(known)] = [f"index {oid}..{'0' * len(oid)}{mode}\n".encode()]
        return replace(self, old_oid=oid, text=b"".join(lines))


class HeaderReader:
    """Takes the header lines of one file's part of a diff, one at a time.

    Every fault is a ValueError whose text is for the user.
    """

    def __init__(self, line: int, names: bytes) -> None:
        """Begin after ``diff --git ``, whose rest is ``names``; ``line`` is 1-based."""
        self._line = line
        self._both = _both_names(names)
        self._found: dict[str, str] = {}
        self._names: dict[str, str | None] = {}
        self.named = False

    def take(self, line: bytes) -> bool:
        """Take one line; False when it is not part of the header any more."""
        if self.named:
            return False
        for prefix, word in _WORDS.items():
            if line.startswith(prefix):
                self._take(word, line.rstrip(b"\n")[len(prefix) :])
                return True
        if "---" in self._names:
            raise ValueError("a '--- ' line without a '+++ ' line")
        return False

    def _take(self, word: str, rest: bytes) -> None:
        if word in self._found or word in self._names:
            raise ValueError(f"{word!r} is said twice")
        if word in {"---", "+++"}:
            self._names[word] = _file_name(rest)
            self.named = word == "+++"
            if self.named and "---" not in self._names:
                raise ValueError("a '+++ ' line without a '--- ' line")
        elif word.endswith((" from", " to")):
            self._found[word] = _unquoted(rest)
        else:
            self._found[word] = rest.decode("ascii", "replace")

    def change(self) -> FileChange:
        """Return what was read, when it makes sense together."""
        kind = self._kind()
        old, new = self._old_and_new(kind)
        old_oid, new_oid, mode = self._index()
        old_mode = self._found.get("old mode") or self._found.get("deleted file mode") or mode
        new_mode = self._found.get("new mode") or self._found.get("new file mode") or mode
        self._check_words(kind)
        if old_mode and new_mode and (old_mode == SYMLINK) != (new_mode == SYMLINK):
            raise ValueError("a file becomes a link, or a link a file: git makes two changes of it")
        if bad := {old_mode, new_mode, ""} - _MODES - {""}:
            raise ValueError(f"mode {min(bad)!r} is none a kernel file has")
        return FileChange(self._line, kind, old, new, old_mode, new_mode, old_oid, new_oid)

    def _check_words(self, kind: ChangeKind) -> None:
        """Refuse lines that do not go with the others, which git may read otherwise than we."""
        for word in ("rename", "copy"):
            if kind != word and {f"{word} from", f"{word} to"} & set(self._found):
                raise ValueError(f"a {word} needs two names")
        old, new = self._found.get("old mode"), self._found.get("new mode")
        if (old is None) != (new is None) or (old is not None and old == new):
            raise ValueError("an old mode and a new mode go together, and differ")
        if old is not None and kind in {ChangeKind.CREATE, ChangeKind.DELETE}:
            raise ValueError(f"a {kind}d file cannot change its mode")

    def _kind(self) -> ChangeKind:
        kinds = [kind for word, kind in _KINDS.items() if word in self._found]
        if len(kinds) > 1:
            raise ValueError(f"one file cannot be both {kinds[0]}d and {kinds[1]}d")
        return kinds[0] if kinds else ChangeKind.MODIFY

    def _old_and_new(self, kind: ChangeKind) -> tuple[str | None, str | None]:
        if kind in {ChangeKind.RENAME, ChangeKind.COPY}:
            old: str | None = self._found.get(f"{kind} from")
            new: str | None = self._found.get(f"{kind} to")
            if old is None or new is None or old == new:
                raise ValueError(f"a {kind} needs two names")
        elif self._both is None:
            raise ValueError("the two names of the line 'diff --git a/... b/...' differ")
        else:
            old = None if kind is ChangeKind.CREATE else self._both
            new = None if kind is ChangeKind.DELETE else self._both
        if self.named and (self._names["---"], self._names["+++"]) != (old, new):
            raise ValueError("the '--- ' and '+++ ' lines name other files than 'diff --git'")
        return old, new

    def _index(self) -> tuple[str, str, str]:
        text = self._found.get("index")
        if text is None:
            return "", "", ""
        match = _INDEX.fullmatch(text)
        if match is None:
            raise ValueError(f"'index {text}' is not a pair of blob ids")
        return match[1], match[2], match[3] or ""


_WORDS = {
    b"--- ": "---",
    b"+++ ": "+++",
    b"index ": "index",
    **{
        f"{word} ".encode(): word
        for word in (
            "old mode",
            "new mode",
            "new file mode",
            "deleted file mode",
            "similarity index",
            "dissimilarity index",
            "rename from",
            "rename to",
            "copy from",
            "copy to",
        )
    },
}
_KINDS = {
    "new file mode": ChangeKind.CREATE,
    "deleted file mode": ChangeKind.DELETE,
    "rename from": ChangeKind.RENAME,
    "copy from": ChangeKind.COPY,
}


def _both_names(names: bytes) -> str | None:
    """Return the name that stands twice in ``a/NAME b/NAME``, None when they differ."""
    if names.startswith(b'"'):
        match = _QUOTED.match(names)
        if match is None:
            raise ValueError("a quoted name has no end")
        first, second = match[0], names[match.end() + 1 :]
    else:
        half = len(names) // 2
        first, second = names[:half], names[half + 1 :]
    if not first.lstrip(b'"').startswith(b"a/") or b" b/" not in names.replace(b'"', b""):
        raise ValueError("names in a diff start with a/ and b/")
    same = _unquoted(first)[2:] == _unquoted(second)[2:]
    return _unquoted(first)[2:] if same else None


def _file_name(rest: bytes) -> str | None:
    name = _unquoted(rest.removesuffix(b"\t"))
    if name == "/dev/null":
        return None
    if not name.startswith(("a/", "b/")):
        raise ValueError("names in a diff start with a/ and b/")
    return name[2:]


def _unquoted(name: bytes) -> str:
    """Decode a name as git writes it: in C's quotes when it is out of the ordinary."""
    if name.startswith(b'"'):
        match = _QUOTED.fullmatch(name)
        if match is None:
            raise ValueError("a quoted name has no end")
        name = _ESCAPE.sub(_escaped, match[1])
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise ValueError("a file name is not UTF-8") from None


def _escaped(match: re.Match[bytes]) -> bytes:
    code = match[1]
    if len(code) > 1:
        return bytes([int(code, 8)])
    if code[0] not in _LETTERS:
        raise ValueError("a quoted name has an escape git does not write")
    return bytes([_LETTERS[code[0]]])
