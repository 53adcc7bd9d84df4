# SPDX-License-Identifier: GPL-2.0-only
"""E7: the rule of iptables-legacy and the file strongSwan's ha plugin writes to.

Both are as they always were, but for "--local-node 0", which is now a node
that owns nothing until told.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import random
from collections import Counter
from typing import TYPE_CHECKING

import pytest

import sealing
from cluster import IPV4, MAC, PORT, Node, Wired, lone_node, segments_by_jumps, two_nodes
from namespaces import Namespace, SetUpError, goes_away
from segment_hash import jhash_1word, sa_segment, spi_in
from under_traffic import TWO_CPUS, Stream

if TYPE_CHECKING:
    from collections.abc import Iterator

#: 5.10 and 6.1 refuse --local-node 0, from 6.3 on there is no such target.
NO_RULE = r"the rule with --local-node 0 was refused: "
TOTALS = range(2, 17)
SAS = 700


@pytest.fixture(scope="module")
def wired() -> Iterator[Wired]:
    """Give the node of the whole file."""
    with contextlib.closing(Wired()) as nodes:
        yield nodes


@pytest.fixture
def node(wired: Wired) -> Iterator[Node]:
    """Give a node that is not yet one."""
    yield wired.node()[0]
    wired.clear()


def with_rule(node: Node, total: int = 2) -> Node:
    """Give a node its rule, which must be taken."""
    node.rule(total)
    assert node.refused == "", f"the rule with --local-node 0 was refused: {node.refused}"
    return node


def write(node: Node, text: str) -> str:
    """Write to the node's file; return the name of the errno, "" when there is none."""
    try:
        node.write(text)
    except OSError as error:
        return errno.errorcode[error.errno or 0]
    return ""


@pytest.mark.proof(red=NO_RULE)
def test_the_file_is_written_as_ever(node: Node) -> None:
    with_rule(node)
    said = {"at first": node.segments()}
    steps = (
        ("+1", ""), ("+1", "ENOMEM"), ("+2\n", ""), ("+0", "ENOMEM"), ("+3", "ENOMEM"),
        ("-1\n", ""), ("-1", "ENOENT"), ("-0", "ENOENT"), ("-3", "ENOENT"),
        ("1", "EIO"), ("*2", "EIO"), ("+", "EINVAL"), ("+x", "EINVAL"),
        ("-2x", "EINVAL"), ("+1\n\n\n\n\n\n\n\n\n", "EIO"), ("+000000001", ""), ("-000000001", ""),
    )  # fmt: skip
    answers = [(text, write(node, text), answer) for text, answer in steps]
    wrong = [found for found in answers if found[1] != found[2]]
    assert wrong == [], f"(text, answer, answer expected): {wrong}"
    said["at last"] = node.segments()
    assert said == {"at first": "", "at last": "2\n"}, f"the file says {said}, expected '' and '2'"


@pytest.mark.proof(red=NO_RULE)
def test_the_file_lists_what_is_owned(node: Node) -> None:
    with_rule(node, 16)
    node.take_over(16, 3, 1)
    listed = node.segments()
    assert listed == "1,3,16\n", f"the file says {listed!r}, expected '1,3,16'"
    with node.namespace.inside():
        mode = os.stat(node.switch).st_mode & 0o7777  # noqa: PTH116
        files = os.listdir(node.switch.parent)  # noqa: PTH208
    assert mode == 0o600, f"the file's mode is {mode:o}, expected 600"
    assert files == [IPV4.cluster], f"/proc/net/ipt_CLUSTERIP has {files}, expected the address"


@pytest.mark.proof(red=NO_RULE)
def test_the_rule_is_listed_and_deleted(node: Node) -> None:
    with_rule(node)
    shown = node.iptables("-S", "INPUT").splitlines()[1:]
    saved = node.namespace.run(["iptables-legacy-save"])
    words = node.rule_words(2, 0)
    node.iptables("-D", "INPUT", *words)
    with node.namespace.inside():
        left = os.listdir(node.switch.parent)  # noqa: PTH208
    assert len(shown) == 1, f"iptables-legacy -S shows {shown}, expected one rule"
    for part in (f"-d {IPV4.cluster}/32", "-j CLUSTERIP", MAC, "--total-nodes 2", "--local-node 0"):
        assert part.lower() in shown[0].lower(), (
            f"the rule is shown as {shown[0]!r}, without {part!r}"
        )
    assert left == [], f"after -D /proc/net/ipt_CLUSTERIP has {left}, expected nothing"
    node.namespace.run(["iptables-legacy-restore"], text=saved)
    again = node.iptables("-S", "INPUT").splitlines()[1:]
    assert again == shown, f"restored the rule is {again}, it was {shown}"
    node.write("+1")
    node.without_rules()


@pytest.mark.proof(red=NO_RULE)
def test_two_rules_share_what_is_owned(node: Node) -> None:
    with_rule(node)
    node.take_over(1)
    node.iptables(
        "-A", "INPUT", "-i", node.device, "-d", IPV4.cluster, "-p", "udp", "-j", "CLUSTERIP",
        "--new", "--hashmode", "sourceip", "--clustermac", MAC, "--total-nodes", "2",
        "--local-node", "0",
    )  # fmt: skip
    node.iptables("-D", "INPUT", "1")
    listed = node.segments()
    assert listed == "1\n", f"with one of two rules left the file says {listed!r}, expected '1'"
    sa = node.add(node.inbound(1, 2))
    node.link.send(node.sealer(sa).datagram(1, PORT))
    delivered = node.delivered(1)
    assert delivered == ["1"], f"with one of two rules left came {delivered}, expected ['1']"


@pytest.mark.proof(red=NO_RULE)
def test_a_local_node_may_be_named_too(node: Node) -> None:
    with_rule(node)
    node.without_rules()
    node.rule(2, 1)
    assert node.refused == "", f"--local-node 1 was refused: {node.refused}"
    listed = node.segments()
    assert listed == "1\n", f"with --local-node 1 the file says {listed!r}, expected '1'"


@pytest.mark.control
def test_rules_that_name_nothing_sensible_are_refused(node: Node) -> None:
    words = list(node.rule_words(2, 1))
    without_device = words[2:]
    without_address = words[:2] + words[4:]
    taken = []
    for label, wrong in (("-i", without_device), ("-d", without_address)):
        try:
            node.iptables("-A", "INPUT", *wrong)
        except SetUpError:
            continue
        taken.append(label)
    assert taken == [], f"rules without {taken} were taken, expected refusals"


@pytest.mark.control
def test_nftables_does_not_take_the_target(node: Node) -> None:
    with pytest.raises(SetUpError) as refusal:
        node.namespace.run(["iptables-nft", "-A", "INPUT", *node.rule_words(2, 1)])
    assert "CLUSTERIP" in str(refusal.value), f"refused for another reason: {refusal.value}"


@pytest.mark.proof(red=NO_RULE)
def test_the_same_address_elsewhere_is_another_clusters() -> None:
    with two_nodes() as cluster:
        with_rule(cluster.a)
        with_rule(cluster.b)
        cluster.a.take_over(1)
        listed = [node.segments() for node in cluster.nodes]
    assert listed == ["1\n", ""], f"the two namespaces' files say {listed}, expected '1' and ''"


@pytest.mark.proof(red=NO_RULE)
def test_a_file_held_open_outlives_its_rule(node: Node) -> None:
    with_rule(node)
    sa = node.outbound(1, 2)
    node.xfrm.add(sa)
    with node.namespace.inside():
        descriptor = os.open(node.switch, os.O_RDWR)
    node.without_rules()
    answers: list[int | str] = []
    for text in (b"+1", b"-1"):
        try:
            answers.append(os.write(descriptor, text))
        except OSError as error:
            answers.append(errno.errorcode[error.errno or 0])
    os.close(descriptor)
    node.emit(sa, range(1))
    with_rule(node)
    listed = node.segments()
    assert listed == "", (
        f"a rule made anew owns {listed!r}, expected nothing; writes gave {answers}"
    )


@pytest.mark.proof(red=NO_RULE)
def test_a_device_that_goes_takes_no_rule_along() -> None:
    with two_nodes() as cluster:
        node = with_rule(cluster.a)
        node.take_over(1)
        cluster.add(node.inbound(1, 2))
        cluster.peer.ip("link del to-a")
        listed = node.segments()
        node.give_up(1)
        node.without_rules()
        with node.namespace.inside():
            left = os.listdir(node.switch.parent)  # noqa: PTH208
    assert listed == "1\n", f"without its device the file says {listed!r}, expected '1'"
    assert left == [], f"after -F /proc/net/ipt_CLUSTERIP has {left}, expected nothing"


@pytest.mark.proof(red=NO_RULE)
def test_a_namespace_goes_away_with_its_rule(other_netns: Namespace) -> None:
    with lone_node(other_netns) as (node, _):
        with_rule(node)
        node.take_over(2)
        inbound, outbound = node.add(node.inbound(1, 2)), node.add(node.outbound(1, 2))
        for number in range(1, 20):
            node.link.send(node.sealer(inbound).datagram(number, PORT))
        node.emit(outbound, range(5))
        node.settle()
    assert goes_away(other_netns), "a namespace with a CLUSTERIP rule was there 20 s after its end"


@TWO_CPUS
@pytest.mark.proof(red=r"under traffic the rule was refused: ")
def test_rules_come_and_go_under_traffic(node: Node) -> None:
    sealer = node.sealer(node.add(node.inbound(1, 2)))
    due, others = set[int](), set[int]()
    with Stream(lambda number: node.link.send(sealer.datagram(number, PORT))) as stream:
        for _ in range(8):
            node.rule(2)
            assert node.refused == "", f"under traffic the rule was refused: {node.refused}"
            others.update(stream.more(20))
            node.take_over(1)
            due.update(stream.more(20))
            node.without_rules()
            due.update(stream.more(20))
            node.delivered()
    came = Counter(map(int, node.delivered(len(due))))
    lost, strays = due - set(came), others & set(came)
    assert not lost, f"{len(lost)} of {len(due)} packets of its own were not delivered"
    assert not strays, f"{len(strays)} of {len(others)} packets of another node were delivered"
    assert max(came.values()) == 1, f"{came.most_common(3)} were delivered more than once"


@pytest.mark.control
def test_the_model_is_the_one_strongswan_has() -> None:
    spis = (0xC0000001, 0xC0000002, 0xC0000003)
    found = [[sa_segment("192.168.0.5", spi, total) for spi in spis] for total in (2, 4)]
    assert found == [[1, 2, 2], [1, 3, 4]], f"the model gives {found}, strongSwan 1,2,2 and 1,3,4"
    assert jhash_1word(0) != jhash_1word(1), "the model's hash does not depend on what is hashed"


@pytest.mark.deadline(300)
@pytest.mark.proof(
    red=r"of 10500 random \(address, SPI, total\) the kernel and the model disagree on 10500"
)
def test_kernel_and_model_agree_on_the_segment(node: Node) -> None:
    generator = random.Random(10500)
    sas = [
        (
            str(ipaddress.IPv4Address(generator.randrange(1 << 24, 224 << 24))),
            generator.randrange(256, 1 << 32),
        )
        for _ in range(SAS)
    ]
    like = sealing.with_esn(sealing.sa(IPV4.cluster, IPV4.peer, 0x100))
    node.xfrm.add_alike(like, sas)
    there = set(node.xfrm.numbers_sent())
    assert there == set(sas), f"{len(there)} of {SAS} SAs could be added"
    disagree = []
    for total in TOTALS:
        node.rule(total)
        found = segments_by_jumps(node, total)
        if not node.refused:
            node.without_rules()
        for (address, spi), segment in found.items():
            expected = sa_segment(address, spi, total)
            if segment != expected:
                disagree.append((address, hex(spi), total, segment, expected))
    assert disagree == [], (
        f"of {SAS * len(TOTALS)} random (address, SPI, total) the kernel and the model disagree on"
        f" {len(disagree)}: (address, SPI, total, kernel's, model's) {disagree[:3]}"
    )


@pytest.mark.proof(red=NO_RULE)
def test_one_segment_is_every_sas(node: Node) -> None:
    with_rule(node, 1)
    node.take_over(1)
    for number, segment in enumerate((1, 2, 3), 1):
        sa = sealing.sa(IPV4.peer, IPV4.cluster, spi_in(IPV4.cluster, segment, 3))
        node.xfrm.add(sa)
        node.link.send(sealing.Sealer(sa).datagram(number, PORT))
    delivered = node.delivered(3)
    assert delivered == ["1", "2", "3"], f"of one segment came {delivered}, expected 1, 2, 3"
