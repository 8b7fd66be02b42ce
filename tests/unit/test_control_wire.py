"""Values on the control socket of the system's mailrelay: what is packed comes out the same, and JSON makes nothing else."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.control.acts import Done
from mailrelay.control.bulk import Selected, Skip
from mailrelay.control.details import Details
from mailrelay.control.wire import packed, unpacked
from mailrelay.mail.envelope import Envelope, Message, Recipient
from mailrelay.mail.handed_in import HandedIn, not_an_address
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.overview import Event, Listed, ListedRecipient
from mailrelay.mail.selection import Filter
from mailrelay.mail.there import RetryThere, Source, There, Verdict

ENVELOPE = Envelope(b"me@example.org", (Recipient(b"\xff@example.net", b"NEVER"),), b"8BITMIME", True, owner=33)
VERDICT = Verdict(There.BOUNCED, Source.LOG, b"550 \x00\xff", since=1.5)
LISTED = Listed(
    1,
    "22z51hgn",
    "hold",
    "default",
    1.25,
    300,
    b"",
    "a subject \udcff",
    2,
    None,
    "",
    (ListedRecipient(b"you@example.net", "held", "", "", b"why", None, "", VERDICT),),
    1000,
)
SELECTED = Selected(
    Filter(("a",), (), ("b", "c"), 2.5, ("held",)), 7, ["22z51hgn"], {Skip.ACTIVE: ["22z51hgp"], Skip.STATE: []}
)
VALUES: tuple[tuple[Any, Any], ...] = (
    (Envelope, ENVELOPE),
    (HandedIn, HandedIn(ENVELOPE, b"\x00\xff\r\n", None, ((b"bad@@", not_an_address("it is not")),), b"NEVER")),
    (tuple[Message, bytes], (Message(1, "22z51hgn", "default", ENVELOPE, (1,), 5, 1.0, 0), b"content")),
    (list[Listed], [LISTED]),
    (Details, Details(LISTED, [Event(1.0, "accepted")], [b""], ["22z51hgp"], RetryThere(True, ""))),
    (Done, Done(["22z51hgn"], ["no"], False, ["22z51hgn"])),
    (tuple[int, bool], (3, True)),
    (Selected, SELECTED),
    (Act, Act.HOLD),
)


@pytest.mark.parametrize(("kind", "value"), VALUES)
def test_a_value_comes_out_as_it_was(kind: Any, value: Any) -> None:
    assert unpacked(kind, json.loads(json.dumps(packed(value)))) == value


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9) | st.sampled_from(["hold", "7BIT"]),
    lambda inner: st.lists(inner, max_size=13) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=60,
)


@st.composite
def nearly_packed(draw: st.DrawFn, within: Any) -> Any:
    """A value as it is on the socket, with one part of it replaced."""
    if not isinstance(within, list | dict) or not within or draw(st.sampled_from((False, False, True))):
        return draw(JSON)
    copy = within.copy()
    place = draw(st.sampled_from(range(len(copy)) if isinstance(copy, list) else sorted(copy)))
    copy[place] = draw(nearly_packed(copy[place]))
    return copy


@given(st.data(), st.sampled_from(VALUES))
def test_other_json_is_a_value_error_or_a_value_of_the_kind(
    data: st.DataObject, kind_and_value: tuple[Any, Any]
) -> None:
    kind, value = kind_and_value
    try:
        found = unpacked(kind, data.draw(JSON | nearly_packed(json.loads(json.dumps(packed(value))))))
    except ValueError:
        return
    # As text, in which NaN is like itself.
    assert json.dumps(packed(unpacked(kind, packed(found)))) == json.dumps(packed(found))
    assert type(found) is type(value)


def test_what_has_no_form_is_refused_by_the_sender() -> None:
    with pytest.raises(TypeError):
        packed(object())
