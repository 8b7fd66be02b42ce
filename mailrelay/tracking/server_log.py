"""Lines of the log of a mail server: sendmail, Postfix, Exim, OpenSMTPD, through syslog, the journal or a file of their own.

Promises: only LF ends a line. A line counts only if all of its fields stand where the server writes them, from the beginning
on. So no address of a recipient and no reply of another server, whatever it holds, makes or changes an event. An id counts
only in the place of the id. Lines that do not count are passed over.

Never: delivered, without a line that says so of this recipient.
"""

import re
from collections.abc import Collection
from dataclasses import dataclass

from mailrelay.tracking.queue_id import Server, is_safe, queue_id_in
from mailrelay.tracking.sighting import MAX_RECIPIENT, Seen, Sighting, bounded

MAX_LINE = 16 * 1024
"""Octets of a line. A longer one is passed over: no server writes one."""


@dataclass(frozen=True, slots=True)
class LogRead:
    """What a part of a log says, oldest first.

    removed: ids that have left the queue.
    """

    sightings: tuple[Sighting, ...]
    removed: frozenset[str]


_QUOTED = rb'"(?:[^"\\]|\\.)*+"'
_MAILBOX = rb"(?:" + _QUOTED + rb'|[^<>"])*+'
_IN_ANGLES = rb"<(" + _MAILBOX + rb")>"
_STAMP = (
    rb"(?:[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,9})?"
    rb"|\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(?:[.,]\d{1,9})?(?:Z|[+-]\d\d:?\d\d)?"
    rb"|[A-Z][a-z]{2} \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,9})? [A-Z]{2,5}"
    rb"|\d{9,11}\.\d{1,9})"
)
_SYSLOG = re.compile(_STAMP + rb" [^\s:\[\]<>=]{1,255} ([A-Za-z][\w./-]{0,80})(?:\[\d{1,10}\])?: (.*)", re.DOTALL)
"""Classic and RFC 3339 lines of syslog daemons, and `journalctl -o` short, short-iso, -precise, -full and -unix."""


def read_log(log: bytes, ids: Collection[str]) -> LogRead:
    """What `log` says of these queue ids. The first and last line may be incomplete."""
    sightings: list[Sighting] = []
    removed: set[str] = set()
    wanted = {name.encode("ascii"): name for name in ids if is_safe(name)}
    for line in log.split(b"\n"):
        if not line or len(line) > MAX_LINE:
            continue
        for event in _events(line.removesuffix(b"\r"), wanted):
            if isinstance(event, Sighting):
                sightings.append(event)
            else:
                removed.add(event.queue_id)
    return LogRead(tuple(sightings), frozenset(removed))


@dataclass(frozen=True, slots=True)
class _Removed:
    queue_id: str


_Event = Sighting | _Removed
_Wanted = dict[bytes, str]


def _events(line: bytes, wanted: _Wanted) -> list[_Event]:
    if found := _SYSLOG.fullmatch(line):
        program, text = found[1], found[2]
        if _POSTFIX_PROGRAM.fullmatch(program):
            return _postfix(program, text, wanted)
        if _SENDMAIL_PROGRAM.fullmatch(program):
            return _sendmail(text, wanted)
        if program == b"smtpd":
            return _opensmtpd(text, wanted)
        return _exim(_EXIM_STAMP.sub(b"", text), wanted) if program.startswith(b"exim") else []
    stamped = _EXIM_STAMP.match(line)
    return _exim(line[stamped.end() :], wanted) if stamped else []


# Postfix.

_POSTFIX_PROGRAM = re.compile(rb"postfix[\w.-]{0,40}(?:/[a-z-]{1,30}){1,3}")
_POSTFIX_DELIVERY = re.compile(
    rb"([0-9A-Za-z]{6,24}): to=" + _IN_ANGLES + rb"(?:, orig_to=" + _IN_ANGLES + rb")?"
    rb", relay=([^,=<>]{1,300})(?:, conn_use=\d{1,10})?, delay=[\d.]{1,20}, delays=[\d./]{1,80}"
    rb", dsn=[245]\.\d{1,3}\.\d{1,3}, status=([a-z]{1,20}) \((.*)",
    re.DOTALL,
)
_POSTFIX_REMOVED = re.compile(rb"([0-9A-Za-z]{6,24}): removed")
_POSTFIX_STATUS = {
    b"sent": Seen.DELIVERED,
    b"deferred": Seen.DEFERRED,
    b"bounced": Seen.BOUNCED,
    b"expired": Seen.BOUNCED,
}


def _postfix(program: bytes, text: bytes, wanted: _Wanted) -> list[_Event]:
    if found := _POSTFIX_DELIVERY.fullmatch(text):
        name, seen = wanted.get(found[1]), _POSTFIX_STATUS.get(found[5])
        if name is None or seen is None:
            return []
        final, recipient, relay = found[2], found[3] or found[2], found[4]
        return [_sighting(name, recipient, seen, found[6].removesuffix(b")"), by=relay, final=final)]
    if found := _POSTFIX_REMOVED.fullmatch(text):
        return [_Removed(wanted[found[1]])] if found[1] in wanted and program.endswith(b"/qmgr") else []
    return []


# sendmail: one line may name several recipients.

_SENDMAIL_PROGRAM = re.compile(rb"sendmail|sm-[a-z-]{1,20}")
_SENDMAIL_ID = rb"([0-9A-Za-z]{8,30})"
_SENDMAIL_ADDRESS = rb"(?:<" + _MAILBOX + rb">|(?:" + _QUOTED + rb'|[^,<>"\s])++)'
_SENDMAIL_OTHER_FIELD = rb"(?:, (?!relay=|dsn=|reply=|stat=)[a-z]{1,20}=[^,=]{0,300})*+"
_SENDMAIL_DELIVERY = re.compile(
    _SENDMAIL_ID + rb": to=(" + _SENDMAIL_ADDRESS + rb"(?:," + _SENDMAIL_ADDRESS + rb")*+)"
    rb"(?:, ctladdr=(" + _SENDMAIL_ADDRESS + rb")(?: \(\d{1,10}/\d{1,10}\))?)?"
    rb", delay=[\d:+]{1,30}(?:, xdelay=[\d:+]{1,30})?, mailer=[\w*-]{1,40}"
    + _SENDMAIL_OTHER_FIELD
    + rb"(?:, relay=([^,=]{0,300}))?"
    + _SENDMAIL_OTHER_FIELD
    + rb", dsn=([245])\.\d{1,3}\.\d{1,3}, (?:reply=(.*?), )?stat=(.*)",
    re.DOTALL,
)
_SENDMAIL_EACH = re.compile(_SENDMAIL_ADDRESS)
_SENDMAIL_SENT = re.compile(rb"Sent(?: \((.*?)\)?)?", re.DOTALL)
_SENDMAIL_DONE = re.compile(_SENDMAIL_ID + rb": done; delay=[\d:+]{1,30}(?:, .*)?", re.DOTALL)


def _sendmail(text: bytes, wanted: _Wanted) -> list[_Event]:
    if found := _SENDMAIL_DELIVERY.fullmatch(text):
        name = wanted.get(found[1])
        judged = _sendmail_judged(found[5], found[6], found[7])
        if name is None or judged is None:
            return []
        seen, words = judged
        control, relay = found[3] or b"", found[4] or b""
        return [
            _sighting(name, recipient, seen, words, by=relay, final=final)
            for recipient, final in (_sendmail_pair(one, control) for one in _SENDMAIL_EACH.findall(found[2]))
        ]
    if (found := _SENDMAIL_DONE.fullmatch(text)) and found[1] in wanted:
        return [_Removed(wanted[found[1]])]
    return []


def _sendmail_judged(status: bytes, reply: bytes | None, stat: bytes) -> tuple[Seen, bytes] | None:
    """The class of dsn= decides, which stands before the words of another server. `reply` ends at the first ", stat=", which
    may be one of those words; then the words end there."""
    if status == b"2":
        sent = _SENDMAIL_SENT.fullmatch(stat) if reply is None else None
        return (Seen.DELIVERED, sent[1] or b"Sent") if sent else None
    words = stat.removeprefix(b"Deferred: ") if reply is None else reply
    return (Seen.DEFERRED if status == b"4" else Seen.BOUNCED), words


def _sendmail_pair(address: bytes, control: bytes) -> tuple[bytes, bytes]:
    """Our recipient, and what sendmail made of it. For a program or file, ctladdr= names the recipient that led to it."""
    final = address[1:-1] if address.startswith(b"<") else address
    is_mailbox = not final.startswith((b'"|', b"|", b"/", b'"/'))
    return (final if is_mailbox or not control else control.removeprefix(b"<").removesuffix(b">")), final


# Exim: its own file has its own time, syslog adds one.

_EXIM_STAMP = re.compile(rb"\A\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d{1,6})?(?: [+-]\d{4})?(?: \[\d{1,10}\])? ")
_EXIM_ID = rb"([0-9A-Za-z]{6}-[0-9A-Za-z]{6,11}-[0-9A-Za-z]{2,4})"
_EXIM_EVENT = re.compile(_EXIM_ID + rb" (=>|->|>>|==|\*\*) (.*)", re.DOTALL)
_EXIM_FIELD = rb"(?= [A-Z]{1,4}=|: |\Z)"
_EXIM_PLAIN = re.compile(rb'([^\s<>":]+)(?: <([^\s<>"]+)>)?' + _EXIM_FIELD + rb"(.*)", re.DOTALL)
_EXIM_WITH_QUOTED = re.compile(rb"([^<>]{1,1000}) <(" + _QUOTED + rb'@[^\s<>"]+)>' + _EXIM_FIELD + rb"(.*)", re.DOTALL)
_EXIM_SEEN = {
    b"=>": Seen.DELIVERED,
    b"->": Seen.DELIVERED,
    b">>": Seen.DELIVERED,
    b"==": Seen.DEFERRED,
    b"**": Seen.BOUNCED,
}
_EXIM_CONFIRMATION = re.compile(rb' C="((?:[^"\\]|\\.)*+)"', re.DOTALL)
_EXIM_HOST = re.compile(rb" H=(\S{1,255})(?: \[([0-9A-Fa-f.:]{1,45})\])?")
_EXIM_ERROR = re.compile(
    rb".*?: (?:SMTP error from remote mail server after [^:]{0,80}(?::<[^>]*>)?: )?(.*)", re.DOTALL
)
_EXIM_COMPLETED = re.compile(_EXIM_ID + rb" Completed(?: QT=\S{1,20})?")


def _exim(text: bytes, wanted: _Wanted) -> list[_Event]:
    if found := _EXIM_EVENT.fullmatch(text):
        name, addresses = wanted.get(found[1]), _exim_addresses(found[3])
        if name is None or addresses is None:
            return []
        recipient, final, rest = addresses
        seen = _EXIM_SEEN[found[2]]
        host = _EXIM_HOST.search(rest)
        by = b"%s [%s]" % (host[1], host[2]) if host and host[2] else host[1] if host else b""
        return [_sighting(name, recipient, seen, _exim_words(seen, rest), by=by, final=final)]
    if (found := _EXIM_COMPLETED.fullmatch(text)) and found[1] in wanted:
        return [_Removed(wanted[found[1]])]
    return []


def _exim_addresses(text: bytes) -> tuple[bytes, bytes, bytes] | None:
    """Our recipient, the final address, and the fields after them. Exim writes the final address without its quotes, so one
    with spaces counts only where the original address follows in quotes and is the same."""
    if found := _EXIM_WITH_QUOTED.fullmatch(text):
        original = found[2]
        local, _, domain = original.rpartition(b"@")
        unquoted = re.sub(rb"\\(.)", rb"\1", local[1:-1], flags=re.DOTALL) + b"@" + domain
        if found[1] == unquoted or not re.search(rb"\s", found[1]):
            return original, found[1], found[3]
    elif found := _EXIM_PLAIN.fullmatch(text):
        return found[2] or found[1], found[1], found[3]
    return None


def _exim_words(seen: Seen, rest: bytes) -> bytes:
    if seen is Seen.DELIVERED:
        confirmed = _EXIM_CONFIRMATION.search(rest)
        return re.sub(rb"\\(.)", rb"\1", confirmed[1], flags=re.DOTALL) if confirmed else b"delivered"
    error = _EXIM_ERROR.fullmatch(rest)
    # Exim writes the line ends of a reply as \n.
    return (error[1] if error else rest).replace(b"\\n", b" ")


# OpenSMTPD: an evpid is the id of the message and eight digits for the recipient.

_OPENSMTPD_DELIVERY = re.compile(
    rb"[0-9a-f]{16} m[td]a delivery evpid=([0-9a-f]{8})[0-9a-f]{8} from="
    + _IN_ANGLES
    + rb" to="
    + _IN_ANGLES
    + rb" rcpt="
    + _IN_ANGLES
    + rb'(?: user=[^\s"=]{1,64})?(?: source="[^"]{0,100}")?(?: relay="([^"]{0,300})")?(?: user=[^\s"=]{1,64})?'
    rb' delay=[\w.]{1,20} result="?(Ok|TempFail|PermFail|Expired)"? stat="?(.*)',
    re.DOTALL,
)
_OPENSMTPD_SEEN = {
    b"Ok": Seen.DELIVERED,
    b"TempFail": Seen.DEFERRED,
    b"PermFail": Seen.BOUNCED,
    b"Expired": Seen.BOUNCED,
}


def _opensmtpd(text: bytes, wanted: _Wanted) -> list[_Event]:
    found = _OPENSMTPD_DELIVERY.fullmatch(text)
    if found is None or found[1] not in wanted:
        return []
    final, original = found[3], found[4]
    recipient = original if original != b"-" else final
    words = found[7].removesuffix(b'"')
    return [_sighting(wanted[found[1]], recipient, _OPENSMTPD_SEEN[found[6]], words, by=found[5] or b"", final=final)]


# All of them.

_ADDRESS_OF_RELAY = re.compile(rb".*\[((?:IPv6:)?[0-9A-Fa-f.:]{2,50})\](?::\d{1,5})?", re.DOTALL)
_REPLY_CODE = re.compile(rb"2\d\d[ -]")
_FILTER_REPLY = re.compile(rb".{0,200}?: 2\d\d (2\.\d{1,3}\.\d{1,3} Ok: queued as [0-9A-Za-z]{6,24})", re.DOTALL)


def _sighting(name: str, recipient: bytes, seen: Seen, words: bytes, *, by: bytes, final: bytes) -> Sighting:
    """A server on the same host that names a new id has the message now; the reply of a distant one ends our view."""
    next_id = _next_id(words) if seen is Seen.DELIVERED and _is_local(by) else ""
    if next_id == name:
        next_id = ""
    return Sighting(
        name,
        recipient[:MAX_RECIPIENT],
        Seen.HANDED_ON if next_id else seen,
        bounded(words),
        by=by[:300],
        final=final[:MAX_RECIPIENT] if final != recipient else b"",
        next_id=next_id,
    )


def _is_local(relay: bytes) -> bool:
    """Whether the address of the relay, which the server writes itself, is of the loopback."""
    found = _ADDRESS_OF_RELAY.fullmatch(relay)
    address = found[1].removeprefix(b"IPv6:") if found else relay.partition(b" ")[0]
    return address.startswith(b"127.") or address == b"::1"


def _next_id(words: bytes) -> str:
    text = words[4:] if _REPLY_CODE.match(words) else words
    # A content filter passes on the reply that the server gave it.
    passed_on = _FILTER_REPLY.fullmatch(text)
    found = queue_id_in(passed_on[1] if passed_on else text)
    return found.id if found and found.server is not Server.OTHER else ""
