# SPDX-License-Identifier: GPL-2.0-only
"""What replies give to the patches they answer: Reviewed-by, Acked-by and Tested-by.

A trailer counts where its sender wrote it himself, in his own name. One in a
reply to the cover letter is for every patch.
"""

from __future__ import annotations

import email.utils
import re
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from workbench.post import Post

_TRAILER = re.compile(
    r"((?:Reviewed|Acked|Tested)-by): *(\S.*<[^<>\s]+@[^<>\s]+>)(?: *#.*)?", re.IGNORECASE
)
_ALL: Final = -1


@dataclass(frozen=True)
class Collected:
    """The series with what was given to it; ``notes`` say what went where, or why not."""

    posts: tuple[Post, ...]
    notes: tuple[str, ...]


def collect(series: Sequence[Post], letters: Sequence[Post], answers: Sequence[Post]) -> Collected:
    """Give each patch the trailers of the mails that answer it or the cover letter."""
    places = {post.message_id: number for number, post in enumerate(series) if post.message_id}
    places |= {post.message_id: _ALL for post in letters if post.message_id}
    subjects = {(post.tag, post.title): number for number, post in enumerate(series)}
    subjects |= {(post.tag, post.title): _ALL for post in letters}
    known = {post.message_id: post for post in answers if post.message_id}
    given: list[dict[str, None]] = [{} for _ in series]
    notes = []
    for post in answers:
        place = _answered(post, places, known)
        if not post.answers:
            place = subjects.get((post.tag, post.title))
        if place is None:
            continue
        for trailer, own in _trailers(post):
            notes.append(f"{post.where}: {trailer}{'' if own else ': passed, not its sender'}")
            if own:
                for each in given if place == _ALL else given[place : place + 1]:
                    each[trailer] = None
    posts = (replace(post, given=tuple(each)) for post, each in zip(series, given, strict=True))
    return Collected(tuple(posts), tuple(notes))


def _answered(post: Post, places: Mapping[str, int], known: Mapping[str, Post]) -> int | None:
    """Follow a mail up its thread to a patch or the letter."""
    seen = {post.message_id}
    todo = list(post.answers)
    while todo:
        name = todo.pop(0)
        if name in places:
            return places[name]
        if name in known and name not in seen:
            todo = [*known[name].answers, *todo]
        seen.add(name)
    return None


def _trailers(post: Post) -> Iterator[tuple[str, bool]]:
    """Yield the trailers its sender wrote, and whether each is in his name."""
    for line in post.text.splitlines():
        match = _TRAILER.fullmatch(line.strip())
        if match:
            key, who = match[1].capitalize(), match[2]
            yield f"{key}: {who}", email.utils.parseaddr(who)[1].lower() == post.sender.lower()
