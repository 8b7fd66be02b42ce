"""Domains in ASCII for mail servers without SMTPUTF8, compared with the idna package where it is installed."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailrelay.mail.a_labels import with_a_labels


@pytest.mark.parametrize(
    ("address", "converted"),
    [
        ("alice@müller.example", b"alice@xn--mller-kva.example"),
        ("alice@MÜLLER.Example", b"alice@xn--mller-kva.Example"),
        ("alice@mu\u0308ller.example", b"alice@xn--mller-kva.example"),
        # IDNA2003 would give another domain: strasse.example.
        ("alice@straße.example", b"alice@xn--strae-oqa.example"),
        ("alice@βόλος.example", b"alice@xn--nxasmm1c.example"),
        ("alice@ΣΊΣΥΦΟΣ.gr", b"alice@xn--kxa6akbbkh.gr"),
        ("alice@İstanbul.example", b"alice@xn--istanbul-o0e.example"),
        ("alice@ＢＵＣＨ.example", b"alice@buch.example"),
        ("alice@例え.テスト", b"alice@xn--r8jz45g.xn--zckzah"),
        ("alice@ｅｘａｍｐｌｅ.org", b"alice@example.org"),
        ("alice@нет.a_b.example.", b"alice@xn--e1apq.a_b.example."),
        ('"a b"@müller.example', b'"a b"@xn--mller-kva.example'),
        ("taro..y.@müller.example", b"taro..y.@xn--mller-kva.example"),
        ("jürgen@müller.example", None),
        ("jürgen@example.org", None),
        ("jürgen", None),
        ("alice@" + "ü" * 63 + ".example", None),
        ("alice@" + ".".join(["müller"] * 30), None),
    ],
)
def test_a_domain_is_converted_if_the_local_part_is_ascii(address: str, converted: bytes | None) -> None:
    assert with_a_labels(address.encode()) == converted


LABEL = st.from_regex(r"[a-zäöüßéςабюя漢字テ]{1,12}", fullmatch=True)


@given(st.lists(LABEL, min_size=1, max_size=3).map(".".join))
def test_valid_domains_are_converted_as_idna_does(domain: str) -> None:
    idna = pytest.importorskip("idna")
    assert with_a_labels(f"a@{domain}".encode()) == b"a@" + idna.encode(domain)
