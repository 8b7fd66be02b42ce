"""What has become of a recipient on the relayhost, in words for a listing: `there_text`. Notices have `mail.wording`.

Pure. Promises: the result is one line and escaped. Only DELIVERED is called delivered, and every bounce names its source.
"""

from datetime import datetime

from mailrelay.mail.reply_text import reply_text
from mailrelay.mail.there import MAX_WORDS, Source, There, Verdict

_SOURCES = {
    Source.QUEUE: "the queue there says so",
    Source.LOG: "the log there says so",
    Source.REPORT: "a report in your mailbox there says so",
    Source.NONE: "",
}
_POSTFIX_BEGIN, _POSTFIX_SAID = b"host ", b" said: "
"""Postfix: "host mx.example.org[192.0.2.1] said: 550 5.1.1 unknown (in reply to RCPT TO command)"."""


def there_text(verdict: Verdict, now: float) -> str:
    """The verdict in one line: "deferred there since 14:02: 451 4.7.1 Greylisted". now: epoch seconds."""
    heading = verdict.heading
    by, words = _said(verdict)
    if verdict.state is There.DELIVERED:
        return f"{by} said {words}" if by and words else heading
    if verdict.state in (There.LEFT, There.LEFT_UNWATCHED):
        return heading
    since = ""
    if verdict.state is There.DEFERRED and verdict.since is not None:
        since = f" since {_time_of_day(verdict.since, now)}"
    source = _SOURCES[verdict.source] if verdict.state is There.BOUNCED else ""
    origin = "; ".join(filter(None, (f"from {by}" if by and words else "", source)))
    return f"{heading}{since}{': ' if words else ''}{words}{f' ({origin})' if origin else ''}"


def _said(verdict: Verdict) -> tuple[str, str]:
    """The name of the server that said the words, "" if none but the relayhost itself has; and the words."""
    by, words = verdict.by, verdict.words
    server, is_quoted, quoted = words.removeprefix(_POSTFIX_BEGIN).partition(_POSTFIX_SAID)
    if is_quoted and words.startswith(_POSTFIX_BEGIN) and b" " not in server:
        by, words = server, quoted
    return _server_name(by), reply_text(words, MAX_WORDS)


def _server_name(by: bytes) -> str:
    """The name in a log's relay=, such as "mx.example.org[192.0.2.1]:25" or "mx.example.org. [192.0.2.1]".

    "" for the relayhost itself: a name without a dot, such as Postfix's "local", or a loopback address.
    """
    name, _, address = by.partition(b"[")
    name, address = name.strip().rstrip(b"."), address.partition(b"]")[0]
    if address.removeprefix(b"IPv6:").startswith((b"127.", b"::1")):
        return ""
    if not name:
        name = address
    return reply_text(name, 255) if b"." in name or b":" in name else ""


def _time_of_day(at: float, now: float) -> str:
    """The local time of day, with the date if it is not today's: "14:02"."""
    then = datetime.fromtimestamp(at).astimezone()
    is_today = then.date() == datetime.fromtimestamp(now).astimezone().date()
    return then.strftime("%H:%M" if is_today else "%Y-%m-%d %H:%M")
