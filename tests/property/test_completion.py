"""Envelopes of any addresses are completed once, in order, and only where an address is bare."""

from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.address import parse_path
from mailrelay.mail.completion import Completion, account_address, completed, has_bare, is_bare, is_domain
from mailrelay.mail.envelope import Envelope, Recipient

LOCAL = st.one_of(st.text("abcXYZ09!#%.é漢", min_size=1, max_size=6), st.text('ab@"\\ <>', max_size=6)).map(
    lambda text: account_address(text or "x", [b"a.example"], "").removesuffix(b"@a.example")
)
DOMAIN = st.sampled_from([b"example.org", b"[192.0.2.1]", b"a.example"])
WHOLE = st.builds(lambda local, domain: b"%b@%b" % (local, domain), LOCAL, DOMAIN)
ADDRESS = st.one_of(LOCAL, WHOLE, st.sampled_from([b"root", b"postmaster", b"POSTMASTER"]))
KNOWN = st.one_of(st.just(b""), WHOLE)
COMPLETIONS = st.builds(
    Completion,
    KNOWN,
    st.sampled_from([b"", b"d.example"]),
    KNOWN,
    KNOWN,
    st.sampled_from([lambda name: False, lambda name: name == b"root", lambda name: True]),
)
ENVELOPES = st.builds(
    Envelope, st.one_of(st.just(b""), ADDRESS), st.lists(ADDRESS.map(Recipient), min_size=1, max_size=5).map(tuple)
)


@given(ENVELOPES, COMPLETIONS, COMPLETIONS)
def test_a_completed_address_is_final(envelope: Envelope, one: Completion, other: Completion) -> None:
    once = completed(envelope, one)
    assert completed(once, one) == once
    twice = completed(once, other)
    before = (envelope.sender, *(to.address for to in envelope.recipients))
    after = (once.sender, *(to.address for to in once.recipients))
    final = (twice.sender, *(to.address for to in twice.recipients))
    assert len(before) == len(after) == len(final)
    for first, second, third in zip(before, after, final, strict=True):
        assert second == first or is_bare(first)
        assert third == second or is_bare(second)


@given(ENVELOPES, COMPLETIONS)
def test_with_a_known_account_nothing_stays_bare(envelope: Envelope, completion: Completion) -> None:
    known = Completion(
        completion.sender, completion.domain, completion.local, b"me@mail.example", completion.is_local_account
    )
    found = completed(envelope, known)
    assert not has_bare(found)
    assert (found.sender == b"") == (envelope.sender == b"")
    for address in (found.sender, *(to.address for to in found.recipients)):
        if address:
            assert parse_path(b"<%b>" % address, smtputf8=True, null=False)[0] == address


@given(st.text(max_size=20), st.lists(st.binary(max_size=20), max_size=2), st.text(max_size=20))
def test_an_account_has_an_address_that_can_be_sent_or_none(account: str, names: list[bytes], host: str) -> None:
    address = account_address(account, names, host)
    if address:
        assert parse_path(b"<%b>" % address, smtputf8=True, null=False)[0] == address
        assert is_domain(address.rpartition(b"@")[2])
    else:
        assert not account or not account.isprintable()
