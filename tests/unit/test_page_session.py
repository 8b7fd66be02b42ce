"""The session of the page: its addresses, and which cookie and which form token it knows."""

import pytest

from mailrelay.page.guard import Session


@pytest.fixture
def session() -> Session:
    return Session("http://127.0.0.1:4711", "/queue")


def test_the_address_and_the_name_of_the_cookie_have_the_port(session: Session) -> None:
    assert session.host == "127.0.0.1:4711"
    assert session.cookie_name == "mailrelay-4711"
    assert session.url.startswith("http://127.0.0.1:4711/") and session.url.endswith(session.entry.token)
    assert session.entry.token


def test_before_the_token_was_used_no_cookie_is_known(session: Session) -> None:
    assert not session.knows("")
    assert not session.knows("x")


@pytest.mark.parametrize("cookie", ["", "secre", "secrets", "SECRET", "é", "\ud800"])
def test_only_the_whole_cookie_is_known(session: Session, cookie: str) -> None:
    session.cookie = "secret"
    assert session.knows("secret")
    assert not session.knows(cookie)


def test_only_the_token_of_this_session_is_a_form_token(session: Session) -> None:
    token, other = session.form_token, Session(session.origin, "/").form_token
    assert session.has_form_token(token)
    assert not any(map(session.has_form_token, ("", token[:-1], f"{token}x", other, "\ud800")))
