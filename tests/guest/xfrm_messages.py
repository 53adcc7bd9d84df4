# SPDX-License-Identifier: GPL-2.0-only
"""The XFRM netlink messages on pyroute2's nlmsg.

A message is a structure's bytes between the netlink header and the
attributes; xfrm_structures has the structures, the attributes stay bytes.
"""

from __future__ import annotations

from netlink_frames import Message

NETLINK_XFRM = 6

MSG_NEWSA = 0x10
MSG_DELSA = 0x11
MSG_GETSA = 0x12
MSG_NEWPOLICY = 0x13
MSG_GETPOLICY = 0x15
MSG_ALLOCSPI = 0x16
MSG_ACQUIRE = 0x17
MSG_EXPIRE = 0x18
MSG_UPDSA = 0x1A
MSG_FLUSHSA = 0x1C
MSG_FLUSHPOLICY = 0x1D
MSG_NEWAE = 0x1E
MSG_MIGRATE = 0x21
MSG_MAPPING = 0x26
MSG_GETALG = 0x38
MSG_NEWALG = 0x39

GROUP_ACQUIRE = 1
GROUP_EXPIRE = 2
GROUP_SA = 3
GROUP_MAPPING = 8

#: The attributes these tests send or look at, by their number in every kernel.
_ATTRIBUTES = (
    (1, "XFRMA_ALG_AUTH", "cdata"),
    (2, "XFRMA_ALG_CRYPT", "cdata"),
    (3, "XFRMA_ALG_COMP", "cdata"),
    (4, "XFRMA_ENCAP", "cdata"),
    (5, "XFRMA_TMPL", "cdata"),
    (10, "XFRMA_REPLAY_VAL", "cdata"),
    (17, "XFRMA_MIGRATE", "cdata"),
    (18, "XFRMA_ALG_AEAD", "cdata"),
    (20, "XFRMA_ALG_AUTH_TRUNC", "cdata"),
    (21, "XFRMA_MARK", "cdata"),
    (23, "XFRMA_REPLAY_ESN_VAL", "cdata"),
    (24, "XFRMA_SA_EXTRA_FLAGS", "cdata"),
    (28, "XFRMA_OFFLOAD_DEV", "cdata"),
    (29, "XFRMA_SET_MARK", "cdata"),
    (30, "XFRMA_SET_MARK_MASK", "cdata"),
    (31, "XFRMA_IF_ID", "cdata"),
    (33, "XFRMA_SA_DIR", "cdata"),
)


class SaMessage(Message):  # type: ignore[misc]
    """NEWSA, UPDSA and each message of a dump."""

    fields = (("info", "224s"),)
    nla_map = _ATTRIBUTES


class SpiMessage(Message):  # type: ignore[misc]
    """ALLOCSPI: struct xfrm_userspi_info."""

    fields = (("info", "224s"), ("lowest", "I"), ("highest", "I"))
    nla_map = _ATTRIBUTES


class SaIdMessage(Message):  # type: ignore[misc]
    """DELSA and GETSA: struct xfrm_usersa_id."""

    fields = (("address", "16s"), ("spi", "4s"), ("family", "H"), ("proto", "B"), ("pad", "x"))
    nla_map = _ATTRIBUTES


class AeMessage(Message):  # type: ignore[misc]
    """NEWAE: struct xfrm_aevent_id."""

    fields = (
        *SaIdMessage.fields,
        ("source", "16s"),
        ("flags", "I"),
        ("reqid", "I"),
    )
    nla_map = _ATTRIBUTES


class DumpMessage(Message):  # type: ignore[misc]
    """A dump request: the kernel reads whatever follows the header as attributes."""

    fields = ()


class ExpireMessage(Message):  # type: ignore[misc]
    """EXPIRE: struct xfrm_user_expire."""

    fields = (("info", "224s"), ("hard", "B"), ("pad", "7x"))
    nla_map = _ATTRIBUTES


class AcquireMessage(Message):  # type: ignore[misc]
    """ACQUIRE: struct xfrm_user_acquire, of which only the ends are looked at."""

    fields = (
        ("destination", "16s"),
        ("spi", "4s"),
        ("proto", "B"),
        ("pad", "3x"),
        ("source", "16s"),
        ("selector", "56s"),
        ("policy", "168s"),
        ("algorithms", "12s"),
        ("sequence", "I"),
    )
    nla_map = _ATTRIBUTES


class PolicyMessage(Message):  # type: ignore[misc]
    """NEWPOLICY and each message of a policy dump."""

    fields = (("info", "168s"),)
    nla_map = _ATTRIBUTES


class MigrateMessage(Message):  # type: ignore[misc]
    """MIGRATE: struct xfrm_userpolicy_id; XFRMA_MIGRATE says from where to where."""

    fields = (("selector", "56s"), ("index", "I"), ("direction", "B"), ("pad", "3x"))
    nla_map = _ATTRIBUTES


class MappingMessage(Message):  # type: ignore[misc]
    """MAPPING: struct xfrm_user_mapping."""

    fields = (
        ("destination", "16s"),
        ("spi", "4s"),
        ("family", "H"),
        ("proto", "B"),
        ("pad", "x"),
        ("reqid", "I"),
        ("old_source", "16s"),
        ("new_source", "16s"),
        ("old_port", "2s"),
        ("new_port", "2s"),
    )
    nla_map = _ATTRIBUTES


class FlushMessage(Message):  # type: ignore[misc]
    """FLUSHSA: struct xfrm_usersa_flush."""

    fields = (("proto", "B"), ("pad", "3x"))


class AlgorithmMessage(Message):  # type: ignore[misc]
    """NEWALG, each message of GETALG's dump: struct xfrm_user_alg."""

    fields = (("alg", "144s"),)
