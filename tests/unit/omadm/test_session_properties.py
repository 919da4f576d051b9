"""Whole sessions with random limits, sizes, schemes and syntaxes: everything arrives, and no message is too long."""

from __future__ import annotations

import base64

from hypothesis import given, settings
from hypothesis import strategies as st

from dom0_agent.omadm import commands as c
from dom0_agent.omadm.auth import Account, AuthScheme, Credentials
from dom0_agent.omadm.codec import Codec
from dom0_agent.omadm.server_auth import DeviceCredentials
from dom0_agent.omadm.session import EndReason, SessionLimits
from dom0_agent.omadm.wbxml import WbxmlCodec
from dom0_agent.omadm.xml import XmlCodec
from tests.unit.omadm.dm_pair import SERVER_URI, Application, LeafTree, Pair

#: octets that a message needs for what cannot be split: header, Status of a few commands, Alert 1222, one chunk
LEAST_MESSAGE = 2048

_codecs: st.SearchStrategy[Codec] = st.sampled_from([XmlCodec(), WbxmlCodec()])
_schemes = st.sampled_from([AuthScheme.BASIC, AuthScheme.MD5, AuthScheme.HMAC])
_limits = st.integers(LEAST_MESSAGE, 6000).map(lambda size: SessionLimits(max_msg_size=size, max_obj_size=100_000))
_texts = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=40).flatmap(
    lambda text: st.integers(1, 300).map(lambda times: text * times)
)
_octets = st.binary(max_size=20).flatmap(lambda part: st.integers(1, 300).map(lambda times: part * times))
_values = st.lists(st.one_of(_texts, _octets), min_size=1, max_size=5)


def pair_of(codec: Codec, scheme: AuthScheme, tree: LeafTree, device: SessionLimits, server: SessionLimits) -> Pair:
    ours, theirs = Credentials(scheme, "Bruce2", "OhBehave"), Credentials(scheme, "virmo-server", "srvpwd")
    return Pair(
        tree,
        account=Account("virmo-server", SERVER_URI, ours, theirs),
        known=DeviceCredentials(ours, theirs),
        codec=codec,
        client_limits=device,
        server_limits=server,
    )


def as_octets(data: c.Data | None, meta: c.Meta | None) -> bytes:
    """A value as it was, whichever way it was carried."""
    if isinstance(data, bytes):
        return data
    if meta is not None and meta.format == "b64":
        return base64.b64decode(data or "")
    return (data or "").encode("utf-8", "surrogatepass")


@given(_codecs, _schemes, _limits, _limits, _values)
@settings(max_examples=60)
def test_reading_and_writing_through_small_messages(
    codec: Codec, scheme: AuthScheme, device: SessionLimits, server: SessionLimits, values: list[str | bytes]
) -> None:
    """MaxMsgSize in both directions, large objects in both directions, challenges both ways, all at once."""
    leaves: dict[str, str | bytes] = {f"./r{number}": value for number, value in enumerate(values)}
    tree = LeafTree(leaves | {f"./w{number}": "" for number in range(len(values))})
    gets = [c.Get(items=(c.Item(uri),)) for uri in leaves]
    writes = [
        c.Replace(items=(c.Item(f"./w{n}", meta=c.Meta("bin" if isinstance(v, bytes) else "chr"), data=v),))
        for n, v in enumerate(values)
    ]
    application = Application([*gets, *writes], [c.Get(items=(c.Item("./r0"),))])
    pair = pair_of(codec, scheme, tree, device, server)

    client = pair.run(application, most=2000)

    assert client.outcome is not None and client.outcome.reason is EndReason.DONE
    assert set(application.codes.values()) == {200}
    outcomes = list(application.outcomes.values())
    expected = [value if isinstance(value, bytes) else value.encode("utf-8", "surrogatepass") for value in values]
    read = [
        b"".join(as_octets(item.data, item.meta) for item in outcome.results) for outcome in outcomes[: len(values)]
    ]
    assert read == expected
    written = [tree.leaves[f"./w{number}"] for number in range(len(values))]
    assert [as_octets(leaf.data, c.Meta(leaf.format)) for leaf in written] == expected
    assert max(map(len, pair.bodies[0::2][1:]), default=0) <= server.max_msg_size
    assert max(map(len, pair.bodies[1::2])) <= device.max_msg_size
