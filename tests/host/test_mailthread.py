# SPDX-License-Identifier: GPL-2.0-only
"""Which mails of an mbox or a thread are the series, in which order."""

from __future__ import annotations

import base64
import gzip
import quopri
import random
from typing import TYPE_CHECKING

import pytest

from workbench import mailthread
from workbench.errors import UsageError
from workbench.patchfile import parse_patch
from workbench.post import Post, Tag

if TYPE_CHECKING:
    from pathlib import Path

    from workbench.mailthread import Thread

DIFF = """\
diff --git a/net/x.c b/net/x.c
index 1111111..2222222 100644
--- a/net/x.c
+++ b/net/x.c
@@ -1 +1 @@
-old
+{word}
"""
LORE = "From mboxrd@z Thu Jan  1 00:00:00 1970"
FORMAT_PATCH = "From 0123456789012345678901234567890123456789 Mon Sep 17 00:00:00 2001"


def mail(subject: str, text: str, *, first: str = LORE, fields: str = "") -> str:
    head = f"{first}\nFrom: Ann <ann@example.org>\nDate: Fri, 13 Feb 2009 23:31:30 +0100\n"
    return f"{head}Subject: {subject}\n{fields}\n{text}\n\n"


def patch(tag: str, word: str, *, first: str = LORE, fields: str = "") -> str:
    text = (
        f"Why {word}.\n\nReviewed-by: Bob <bob@example.org>\n---\n{DIFF.format(word=word)}-- \n2\n"
    )
    return mail(f"[{tag}] say {word}", text, first=first, fields=fields)


def read(tmp_path: Path, *mails: str | bytes) -> Thread:
    file = tmp_path / "thread.mbx"
    file.write_bytes(b"".join(m if isinstance(m, bytes) else m.encode() for m in mails))
    return mailthread.read(file)


def subjects(thread: Thread) -> list[str]:
    return [post.patch().mail.subject for post in thread.posts]


@pytest.mark.parametrize(
    ("subject", "tag"),
    [
        ("[PATCH] x", Tag()),
        ("[PATCH 2/3] x", Tag(1, 2, 3)),
        ("[PATCH net-next v4 02/13] x", Tag(4, 2, 13)),
        ("[RFC PATCHv2 1/2] [foo] x", Tag(2, 1, 2)),
        ("[PATCH 0/2] v7 1/2", Tag(1, 0, 2)),
        ("x [PATCH 1/2]", Tag()),
    ],
)
def test_what_a_subjects_brackets_say(tmp_path: Path, subject: str, tag: Tag) -> None:
    assert Post.whole(tmp_path / "x", mail(subject, "").encode()).tag == tag


def test_patches_are_ordered_and_the_rest_is_passed(tmp_path: Path) -> None:
    thread = read(
        tmp_path,
        mail("[PATCH v2 0/2] two things", "base-commit: " + "a" * 40),
        patch("PATCH v2 2/2", "b"),
        mail("Re: [PATCH v2 2/2] say b", "> " + DIFF.replace("\n", "\n> ")),
        patch("PATCH v2 1/2", "a"),
        mail("an announcement", "Nothing to see.\n"),
        patch("PATCH 1/1", "old"),
    )
    assert subjects(thread) == ["say a", "say b"]
    assert (thread.title, thread.base_commit) == ("two things", "a" * 40)
    reasons = [line.partition(": ")[2] for line in thread.skipped]
    assert reasons == ["a reply", "no patch", "version 1 of 2", "the cover letter"]
    assert thread.skipped[0].startswith(f"{tmp_path}/thread.mbx:28: ")
    assert thread.posts[0].patch().mail.trailer("Reviewed-by") == ("Bob <bob@example.org>",)


def test_without_numbers_the_order_of_the_file_stands(tmp_path: Path) -> None:
    thread = read(tmp_path, *(patch("PATCH", word, first=FORMAT_PATCH) for word in "ba"))
    assert subjects(thread) == ["say b", "say a"]


def test_one_mail_needs_no_separator_and_an_archives_file_may_be_packed(tmp_path: Path) -> None:
    one = patch("PATCH", "a").partition("\n")[2]
    assert subjects(read(tmp_path, one)) == ["say a"]
    assert subjects(read(tmp_path, gzip.compress(patch("PATCH", "a").encode()))) == ["say a"]
    with pytest.raises(UsageError, match="cannot be read"):
        read(tmp_path, gzip.compress(one.encode())[:40])


def test_from_at_the_start_of_a_line_is_no_new_mail(tmp_path: Path) -> None:
    text = "\nFrom what I see it is 10:30 in 2026\n>From here on\n---\n" + DIFF
    quoted = read(tmp_path, mail("[PATCH] x", "a" + text.replace("{word}", "w")))
    said = "x\n\na\nFrom what I see it is 10:30 in 2026\n{}From here on\n"
    assert quoted.posts[0].patch().mail.message == said.format("")
    first = FORMAT_PATCH
    plain = read(tmp_path, mail("[PATCH] x", "a" + text.replace("{word}", "w"), first=first))
    assert plain.posts[0].patch().mail.message == said.format(">")


@pytest.mark.parametrize("coding", ["quoted-printable", "base64"])
def test_a_mail_encoded_for_transport_is_decoded(tmp_path: Path, coding: str) -> None:
    text = f"Zoë says = and a long line {'x' * 90}\n---\n{DIFF.format(word='ö=')}"
    raw = text.encode("latin-1")
    if coding == "base64":
        raw = raw.replace(b"\n", b"\r\n")
    body = quopri.encodestring(raw) if coding[0] == "q" else base64.encodebytes(raw)
    fields = f"Content-Type: text/plain; charset=iso-8859-1\nContent-Transfer-Encoding: {coding}\n"
    head = mail("=?utf-8?q?=5BPATCH_1/1=5D_Z=C3=B6?=", "", fields=fields).rstrip("\n")
    (post,) = read(tmp_path, head.encode() + b"\n\n" + body).posts
    found = post.patch()
    assert found.mail.message.startswith("Zö\n\nZoë says = and a long line xxx")
    assert found.diff.endswith("+ö=\n".encode("latin-1"))


def test_a_signed_mails_text_is_taken(tmp_path: Path) -> None:
    parts = ("text/plain", patch("PATCH", "a").partition("\n\n")[2]), ("application/pgp", "s\n")
    body = "".join(f"--=b\nContent-Type: {kind}\n\n{text}\n" for kind, text in parts) + "--=b--\n"
    kind = 'Content-Type: multipart/signed; boundary="=b"\n'
    assert subjects(read(tmp_path, mail("[PATCH] say a", body, fields=kind))) == ["say a"]


def test_what_cannot_be_decoded_is_refused_unless_it_is_a_reply(tmp_path: Path) -> None:
    kind = 'Content-Type: multipart/mixed; boundary="=b"\n'
    body = "--=b\nContent-Type: text/html\n\n<p>\n--=b--\n"
    with pytest.raises(UsageError, match="cannot be decoded") as caught:
        read(tmp_path, patch("PATCH 1/2", "a"), mail("[PATCH 2/2] b", body, fields=kind))
    assert caught.value.where.endswith("thread.mbx:21")
    reply = mail("Re: b", body, fields=kind)
    assert subjects(read(tmp_path, patch("PATCH", "a"), reply)) == ["say a"]


@pytest.mark.parametrize(
    ("sender", "name"),
    [
        ("Jörg <j@example.org>", "Jörg"),
        ("=?utf-8?q?Doe=2C_J=C3=B6hn?= <j@example.org>", "Doe, Jöhn"),
        ('"Doe, John" <j@example.org>', "Doe, John"),
    ],
)
@pytest.mark.parametrize("coding", ["base64", "8bit"])
def test_an_author_is_who_he_is(tmp_path: Path, sender: str, name: str, coding: str) -> None:
    text = "Why.\n---\n" + DIFF.format(word="a")
    if coding == "base64":
        text = base64.encodebytes(text.encode()).decode()
    fields = f"Content-Transfer-Encoding: {coding}\n"
    said = mail("[PATCH] größer", text, fields=fields).replace("Ann <ann@example.org>", sender)
    (post,) = read(tmp_path, said).posts
    found = post.patch().mail
    assert (found.name, found.email, found.subject) == (name, "j@example.org", "größer")
    assert post.title == "größer"


def test_an_author_in_the_text_has_the_texts_charset(tmp_path: Path) -> None:
    text = "From: Jörg <j@example.org>\n\nWhy.\n---\n" + DIFF.format(word="a")
    body = base64.encodebytes(text.encode("latin-1"))
    fields = "Content-Type: text/plain; charset=latin-1\nContent-Transfer-Encoding: base64\n"
    head = mail("[PATCH] x", "", fields=fields).rstrip("\n")
    (post,) = read(tmp_path, head.encode() + b"\n\n" + body).posts
    assert post.patch().mail.name == "Jörg"


def attached(*parts: tuple[str, str], subject: str = "[PATCH] say a") -> str:
    body = "".join(f"--=b\nContent-Type: {kind}\n\n{text}\n" for kind, text in parts)
    kind = 'Content-Type: multipart/mixed; boundary="=b"\n'
    return mail(subject, f"{body}--=b--\n", fields=kind)


def test_the_only_patch_that_is_attached_is_taken(tmp_path: Path) -> None:
    diff = DIFF.format(word="a")
    html = ("text/html", f"<pre>\n{diff}")
    (bare,) = read(tmp_path, attached(("text/plain", "Why."), ("text/x-patch", diff), html)).posts
    assert bare.patch().mail.message == "say a\n\nWhy.\n"
    # An archive's mbox quotes what looks like its separator.
    whole = patch("PATCH", "b", first=f">{FORMAT_PATCH}")
    (post,) = read(tmp_path, attached(("text/plain", "See below."), ("text/x-diff", whole))).posts
    assert post.patch().mail.message.startswith("say b\n\nWhy b.\n\nReviewed-by")
    with pytest.raises(UsageError, match="several patches are attached"):
        read(tmp_path, attached(("text/plain", "Two."), *[("text/x-patch", diff)] * 2))
    inline = attached(("text/plain", f"Why.\n---\n{diff}"), ("text/x-patch", whole))
    assert subjects(read(tmp_path, inline)) == ["say a"]
    reply = attached(("text/plain", "So?"), ("text/x-patch", diff), subject="Re: [PATCH] say a")
    assert subjects(read(tmp_path, patch("PATCH", "a"), reply)) == ["say a"]


def named(name: str, *above: str) -> str:
    """Return the fields that give a mail its place in a thread."""
    ids = " ".join(f"<{each}@x>" for each in above)
    last = f"In-Reply-To: <{above[-1]}@x>\nReferences: {ids}\n" if above else ""
    return f"Message-ID: <{name}@x>\n{last}"


def test_a_mail_that_an_archive_has_twice_is_taken_once(tmp_path: Path) -> None:
    one = patch("PATCH 1/2", "a", fields=named("one"))
    two = patch("PATCH 2/2", "b", fields=named("two", "one"))
    footer = two.replace("-- \n2\n", "-- \n2\n___\nthe list\n")
    thread = read(tmp_path, one, two, footer)
    assert subjects(thread) == ["say a", "say b"]
    assert [line.partition(": ")[2] for line in thread.skipped] == ["the same mail again"]
    with pytest.raises(UsageError, match=r"is not what .*thread\.mbx:1 says") as caught:
        read(tmp_path, one, two, one.replace("+a\n", "+c\n"))
    assert caught.value.where.endswith(f":{(one + two).count(chr(10)) + 1}")


def reply(sender: str, text: str, fields: str, subject: str = "Re: [PATCH 0/2] both") -> str:
    said = mail(subject, text, fields=fields)
    return said.replace("Ann <ann@example.org>", f"{sender} <{sender.lower()}@example.org>")


def trailers(thread: Thread) -> list[list[str]]:
    return [
        [f"{key}: {value.partition(' ')[0]}" for key, value in post.patch().mail.trailers]
        for post in thread.posts
    ]


def test_answers_give_their_trailers_to_what_they_answer(tmp_path: Path) -> None:
    said = "On a day Ann wrote:\n> Reviewed-by: Fay <fay@example.org>\n\n{}\n"
    ack = said.format("acked-by: Cem <CEM@example.org> # for one part")
    thread = read(
        tmp_path,
        mail("[PATCH 0/2] both", "Two.\n", fields=named("letter")),
        patch("PATCH 1/2", "a", fields=named("one", "letter")),
        patch("PATCH 2/2", "b", fields=named("two", "letter")),
        reply("Dan", said.format("Tested-by: Dan <dan@example.org>"), named("r1", "letter")),
        reply("Bob", "So what?\n", named("r2", "letter", "two")),
        reply("Cem", ack, named("r3", "letter", "two", "r2")),
        # Bob's is in the second patch already, and Eve does not speak for Gus.
        reply("Bob", said.format("Reviewed-by: Bob <bob@example.org>"), named("r4", "two")),
        reply("Eve", said.format("Reviewed-by: Gus <gus@example.org>"), named("r5", "two")),
        reply("Hal", said.format("Tested-by: Hal <hal@example.org>"), named("r6", "elsewhere")),
    )
    assert trailers(thread) == [
        ["Reviewed-by: Bob", "Tested-by: Dan"],
        ["Reviewed-by: Bob", "Tested-by: Dan", "Acked-by: Cem"],
    ]
    told = [line.partition(": ")[2] for line in thread.given]
    assert told[0] == "Tested-by: Dan <dan@example.org>"
    assert told[-1] == "Reviewed-by: Gus <gus@example.org>: passed, not its sender"
    assert len(told) == 4


def test_without_ids_an_answer_is_told_by_its_subject(tmp_path: Path) -> None:
    text = "Acked-by: Dan <dan@example.org>\n"
    thread = read(
        tmp_path,
        patch("PATCH v2 1/2", "a"),
        patch("PATCH v2 2/2", "b"),
        reply("Dan", text, "", "Re: [PATCH v2 2/2] say b"),
        reply("Dan", text, "", "Re: [PATCH 1/2] say a"),
    )
    assert trailers(thread) == [["Reviewed-by: Bob"], ["Reviewed-by: Bob", "Acked-by: Dan"]]


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        (("1/3", "3/3"), "no 2 of 3"),
        (("1/2", "2/2", "2/2"), "a second patch 2/2"),
        (("1/2", "2/2", ""), "not one of the 2"),
        (("1/2", "2/2", "1/3"), "not one of the 3"),
        (("0/2",), "there is no patch"),
    ],
)
def test_a_series_that_is_not_whole_is_refused(
    tmp_path: Path, tags: tuple[str, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        read(tmp_path, *(patch(f"PATCH {tag}".strip(), "a") for tag in tags))


def test_a_fault_is_told_at_the_line_of_the_users_file(tmp_path: Path) -> None:
    first = patch("PATCH 1/2", "a")
    second = patch("PATCH 2/2", "b").replace("@@ -1 +1 @@", "@@ -1 +1,2 @@")
    thread = read(tmp_path, first, second)
    line = (first + second).split("\n").index("@@ -1 +1,2 @@") + 1
    with pytest.raises(UsageError, match="hunk") as caught:
        thread.posts[1].patch()
    name, _, at = caught.value.where.rpartition(":")
    assert name == f"{tmp_path}/thread.mbx"
    assert line < int(at) <= line + 3
    with pytest.raises(UsageError) as alone:
        parse_patch(tmp_path / "x", second.encode())
    assert int(at) - int(alone.value.where.rpartition(":")[2]) == patch("PATCH 1/2", "a").count(
        "\n"
    )


def test_a_numbered_mail_without_a_diff_is_refused(tmp_path: Path) -> None:
    thread = read(tmp_path, patch("PATCH 1/2", "a"), mail("[PATCH 2/2] b", "lost\n"))
    with pytest.raises(UsageError, match="no diff"):
        thread.posts[1].patch()


def test_files_with_a_mail_each_are_one_series(tmp_path: Path) -> None:
    for name, tag in (("a", "2/2"), ("b", "1/2")):
        (tmp_path / f"{name}.patch").write_text(patch(f"PATCH {tag}", name))
    assert subjects(mailthread.read_folder(tmp_path)) == ["say b", "say a"]
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="no patch"):
        mailthread.read_folder(tmp_path / "empty")


def test_whatever_is_in_the_file_a_fault_is_told(tmp_path: Path) -> None:
    dice = random.Random(5)
    kind = "Content-Type: text/plain; charset=latin-1\nContent-Transfer-Encoding: base64\n"
    coded = mail("[PATCH 2/2] x", base64.encodebytes(DIFF.encode()).decode(), fields=kind)
    whole = (patch("PATCH 1/2", "a") + coded).encode()
    refused = []
    for _ in range(300):
        data = bytearray(whole)
        for _ in range(dice.randint(1, 8)):
            at = dice.randrange(len(data))
            end = at + dice.choice((0, 1, 1, 30))
            data[at:end] = dice.choice((b"", b"\n", b"\0", b"\xff", b"=?x?q?", b"From "))
        try:
            for post in read(tmp_path, bytes(data)).posts:
                post.patch()
        except UsageError as error:
            refused.append(error.where)
    assert 30 < len(refused) < 300
    assert all(where.startswith(str(tmp_path)) for where in refused)
