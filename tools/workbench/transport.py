# SPDX-License-Identifier: GPL-2.0-only
"""Undo what was done to a mail for transport: encodings, parts, a patch that is attached."""

from __future__ import annotations

import email
import email.policy
import re
from typing import TYPE_CHECKING, Final

from workbench.post import DIFF, Post

if TYPE_CHECKING:
    from email.message import Message

_PLAIN: Final = ("", "7bit", "8bit", "binary")
_KEPT: Final = ("from", "date", "subject", "message-id", "in-reply-to", "references")
# A file of format-patch's brings a header of its own.
_OWN_HEAD = re.compile(
    rb"\A(?:From \S+ .*\n)?(?=(?:.+\n)*From:)(?=(?:.+\n)*Subject:)(?:[A-Za-z-]+:.*\n|[ \t].*\n)+\n"
)


def decoded(post: Post) -> Post:
    """Return a mail in plain text; one that is that already is left as it is.

    A diff may be in the text or in the only attachment that has one.
    UsageError when the text cannot be decoded or several parts have a diff,
    unless it is a reply: from that no patch is taken.
    """
    text = post.data.partition(b"\n")[2] if post.data.startswith(b"From ") else post.data
    message = email.message_from_bytes(text, policy=email.policy.compat32)
    encoding = str(message.get("Content-Transfer-Encoding", "")).strip().lower()
    if encoding in _PLAIN and not message.is_multipart():
        return post
    parts = [each for each in message.walk() if not each.is_multipart()]
    main = next((each for each in parts if each.get_content_type() == "text/plain"), None)
    if not post.is_reply:
        attached = _attached(post, main, parts)
        if attached is not None:
            return _with_attached(post, message, main, attached)
    body = None if main is None else _body(main)
    if main is None or body is None:
        if post.is_reply:
            return post
        raise post.refused("its text cannot be decoded")
    return _rebuilt(post, message, main.get_content_charset("utf-8"), body)


def _attached(post: Post, main: Message | None, parts: list[Message]) -> bytes | None:
    """Return the diff that is not in the text; None when the text has one, or no part has."""
    bodies = {
        each: body
        for each in parts
        if each.get_content_type() != "text/html" and (body := _body(each)) is not None
    }
    having = [each for each, body in bodies.items() if DIFF.search(body)]
    if not having or main in having[:1]:
        return None
    if len(having) > 1:
        raise post.refused("several patches are attached", "save each in a file of its own")
    return bodies[having[0]]


def _with_attached(post: Post, message: Message, main: Message | None, diff: bytes) -> Post:
    """Put a patch in the place of the mail it is attached to, or below the mail's text."""
    if _OWN_HEAD.match(diff):
        own = diff.partition(b"\n")[2] if diff.startswith(b"From ") else diff
        return _made(post, _fields(message, {"message-id", "in-reply-to", "references"}) + own)
    text = (main is not None and _body(main)) or b""
    charset = main.get_content_charset("utf-8") if main is not None else "utf-8"
    return _rebuilt(post, message, charset, text.rstrip(b"\n") + b"\n---\n" + diff)


def _body(part: Message) -> bytes | None:
    """Return a part's bytes, lines ended as the kernel's are; None when they cannot be had."""
    body = part.get_payload(decode=True)
    if not isinstance(body, bytes) or part.defects:
        return None
    if body.count(b"\r\n") == body.count(b"\n"):
        return body.replace(b"\r\n", b"\n")
    return body


def _rebuilt(post: Post, message: Message, charset: str, body: bytes) -> Post:
    kind = f"Content-Type: text/plain; charset={charset}\n\n".encode()
    return _made(post, _fields(message, {*_KEPT}) + kind + body)


def _made(post: Post, data: bytes) -> Post:
    return Post(post.path, data, (post.origin[0],) * (data.count(b"\n") + 1))


def _fields(message: Message, wanted: set[str]) -> bytes:
    """Return fields of a header as they stand in it, each in one line."""
    # Not message[name]: that takes bytes beyond ASCII for lost.
    lines = (
        f"{name}: {' '.join(str(value).split())}\n"
        for name, value in message.raw_items()
        if name.lower() in wanted
    )
    return "".join(lines).encode(errors="surrogateescape")
