# SPDX-License-Identifier: GPL-2.0-only
"""An mbox, or a thread as list archives and b4 save it: which mails are the series.

Replies, the cover letter, older versions and mails without a patch are
passed; what is left is put in the order its subjects say, and gets what the
replies give to it. A series with a hole in it is refused.
"""

from __future__ import annotations

import gzip
import re
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from workbench.errors import UsageError
from workbench.post import Post
from workbench.replies import collect
from workbench.transport import decoded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

# As git tells a separator from a sentence: a time and a year stand in it.
_SEPARATOR = re.compile(rb"From \S+ .*\d\d?:\d\d(?::\d\d)? .*\d{4}\s*")
# Archives and b4 write this one, and quote "From " at the start of a line with ">".
_QUOTING: Final = b"From mboxrd@z "
_QUOTED = re.compile(rb"^>(>*From )", re.MULTILINE)
_GZIP: Final = b"\x1f\x8b"


@dataclass(frozen=True)
class Thread:
    """A series as it was posted: patches in order; ``skipped`` says what was passed, and why.

    ``title`` is the cover letter's subject, ``base_commit`` what any of them
    names; empty when there is none. ``given`` tells the trailers of answers.
    """

    posts: tuple[Post, ...]
    skipped: tuple[str, ...] = ()
    title: str = ""
    base_commit: str = ""
    given: tuple[str, ...] = ()


def read(path: Path) -> Thread:
    """Read a file of mails; UsageError names file and line of what cannot be taken."""
    try:
        data = path.read_bytes()
        data = gzip.decompress(data) if data.startswith(_GZIP) else data
    except (OSError, EOFError, zlib.error) as error:
        raise UsageError(f"cannot be read: {error}", where=str(path)) from error
    return arranged([decoded(post) for post in _split(path, data)], str(path))


def read_folder(folder: Path) -> Thread:
    """Read a folder's ``*.patch`` files, one mail each."""
    posts = [
        decoded(post)
        for path in sorted(folder.glob("*.patch"))
        for post in _split(path, path.read_bytes())
    ]
    return arranged(posts, str(folder))


def arranged(posts: Iterable[Post], where: str) -> Thread:
    """Choose and order the patches among mails."""
    skipped: list[str] = []
    chosen: list[Post] = []
    covers: list[Post] = []
    answers: list[Post] = []
    seen: dict[str, Post] = {}
    for post in posts:
        reason = _again(post, seen) or _passed(post)
        if reason:
            skipped.append(f"{post.where}: {reason}")
            answers.append(post)
        else:
            (covers if post.tag.number == 0 else chosen).append(post)
    newest = max((post.tag.version for post in chosen), default=1)
    old = [post for post in chosen if post.tag.version != newest]
    skipped += [f"{post.where}: version {post.tag.version} of {newest}" for post in old]
    skipped += [f"{post.where}: the cover letter" for post in covers]
    series = _in_order([post for post in chosen if post.tag.version == newest])
    if not series:
        raise UsageError("there is no patch in it", where=where)
    letters = [post for post in covers if post.tag.version == newest]
    stated = [post.base_commit for post in (*letters, *series) if post.base_commit]
    title = letters[0].title if letters else ""
    base = stated[0] if stated else ""
    found = collect(series, letters, answers)
    return Thread(found.posts, tuple(skipped), title, base, found.notes)


def _again(post: Post, seen: dict[str, Post]) -> str:
    """Say that an archive has this mail twice; UsageError when it is another of the same name."""
    first = seen.setdefault(post.message_id, post) if post.message_id else post
    if first is post or post.is_reply:
        return ""
    if _said(first) != _said(post):
        raise post.refused(f"is not what {first.where} says, though it has its Message-ID")
    return "the same mail again"


def _said(post: Post) -> object:
    """Return what counts in a mail: lists write below it."""
    try:
        patch = post.patch()
    except UsageError:
        return post.subject, post.text.strip()
    return patch.mail, patch.diff


def _passed(post: Post) -> str:
    """Say why a mail is no part of the series; empty when it is."""
    if post.is_reply:
        return "a reply"
    if post.has_diff or post.tag.number is not None:
        return ""
    return "no patch"


def _in_order(posts: list[Post]) -> list[Post]:
    """Order by n/m; without numbers the file's order stands."""
    if not any(post.tag.number for post in posts):
        return posts
    by_number: dict[int, Post] = {}
    count = max(post.tag.count for post in posts)
    for post in posts:
        number = post.tag.number
        if number is None or post.tag.count != count:
            raise post.refused(f"a patch that is not one of the {count} of the others")
        if number in by_number:
            raise post.refused(f"a second patch {number}/{count}")
        by_number[number] = post
    missing = [str(number) for number in range(1, count + 1) if number not in by_number]
    if missing:
        path = posts[0].path
        names = f"{', '.join(missing)} of {count}"
        raise UsageError(f"the series has a hole: no {names}", where=str(path), next_step=_WHOLE)
    return [by_number[number] for number in sorted(by_number)]


_WHOLE: Final = "save the whole thread (b4 am, or the archive's mbox)"


def _split(path: Path, data: bytes) -> Iterator[Post]:
    """Split an mbox; a file with one mail needs no separator."""
    lines = data.split(b"\n")
    starts = [
        number
        for number, line in enumerate(lines)
        if _SEPARATOR.fullmatch(line) and (number == 0 or not lines[number - 1].strip())
    ]
    if not starts or any(line.strip() for line in lines[: starts[0]]):
        starts = [0, *starts]
    for start, end in zip(starts, [*starts[1:], len(lines)], strict=True):
        mail = b"\n".join(lines[start:end])
        if mail.startswith(_QUOTING):
            mail = _QUOTED.sub(rb"\1", mail)
        if mail.strip():
            yield Post.whole(path, mail, start)
