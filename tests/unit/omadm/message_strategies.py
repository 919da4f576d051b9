"""Hypothesis strategies for whole DM messages."""

from __future__ import annotations

from hypothesis import strategies as st

from dom0_agent.omadm import commands as c

#: characters that XML can carry, the awkward ones included
CHARACTERS = st.characters(
    codec="utf-8", exclude_characters="\ufffe\uffff", exclude_categories=("Cs", "Cc")
) | st.sampled_from("\t\n\r&<>\"' ")
VALUES = st.text(CHARACTERS, max_size=20)
#: URIs, names and codes are trimmed when they are read
TOKENS = st.text(
    st.characters(min_codepoint=0x21, max_codepoint=0x24F, exclude_categories=("Cc", "Zs")), min_size=1, max_size=12
)
NUMBERS = st.integers(0, 2**31)
OPTIONAL_TOKENS = st.none() | TOKENS

METAS = st.builds(
    c.Meta,
    format=OPTIONAL_TOKENS,
    type=OPTIONAL_TOKENS,
    mark=OPTIONAL_TOKENS,
    size=st.none() | NUMBERS,
    next_nonce=OPTIONAL_TOKENS,
    max_msg_size=st.none() | NUMBERS,
    max_obj_size=st.none() | NUMBERS,
    emi=st.lists(TOKENS, max_size=2).map(tuple),
)
CREDS = st.builds(c.Cred, METAS, TOKENS)


@st.composite
def items(draw: st.DrawFn) -> c.Item:
    """An Item; a LocName stands only beside a LocURI."""
    target, source = draw(OPTIONAL_TOKENS), draw(OPTIONAL_TOKENS)
    return c.Item(
        target,
        source,
        draw(st.none() | METAS),
        draw(st.none() | VALUES),
        draw(st.booleans()),
        draw(OPTIONAL_TOKENS) if target is not None else None,
        draw(OPTIONAL_TOKENS) if source is not None else None,
    )


ITEMS = st.lists(items(), max_size=3).map(tuple)
_WITH_ITEMS = st.sampled_from([c.Add, c.Replace, c.Copy, c.Delete, c.Get])
ITEM_COMMANDS = st.builds(lambda make, *rest: make(*rest), _WITH_ITEMS, TOKENS, ITEMS, st.none() | METAS)
LEAF_COMMANDS = (
    ITEM_COMMANDS
    | st.builds(c.Exec, TOKENS, ITEMS, st.none() | METAS, OPTIONAL_TOKENS)
    | st.builds(c.Alert, TOKENS, st.none() | NUMBERS, ITEMS, OPTIONAL_TOKENS)
)
COMMANDS = st.recursive(
    LEAF_COMMANDS,
    lambda inner: st.builds(
        lambda make, *rest: make(*rest),
        st.sampled_from([c.Atomic, c.Sequence]),
        TOKENS,
        st.lists(inner, max_size=3).map(tuple),
        st.none() | METAS,
    ),
    max_leaves=6,
)
REFS = st.lists(TOKENS, max_size=3).map(tuple)
ANSWERS = st.builds(
    c.Results, TOKENS, st.none() | NUMBERS, TOKENS, ITEMS, st.none() | METAS, OPTIONAL_TOKENS, OPTIONAL_TOKENS
) | st.builds(
    c.Status,
    TOKENS,
    NUMBERS,
    TOKENS,
    TOKENS,
    NUMBERS,
    REFS,
    REFS,
    st.none() | CREDS,
    st.none() | st.builds(c.Chal, METAS),
    ITEMS,
)
HEADERS = st.builds(
    c.SyncHdr,
    session_id=TOKENS,
    msg_id=NUMBERS,
    target=TOKENS,
    source=TOKENS,
    target_name=OPTIONAL_TOKENS,
    source_name=OPTIONAL_TOKENS,
    resp_uri=OPTIONAL_TOKENS,
    cred=st.none() | CREDS,
    meta=st.none() | METAS,
    ver_dtd=TOKENS,
    ver_proto=TOKENS,
)
MESSAGES = st.builds(c.Message, HEADERS, st.lists(COMMANDS | ANSWERS, max_size=4).map(tuple), st.booleans())
