"""Recognises replies that refuse mailrelay and not this message: because of mailrelay's name or address, a missing login or
TLS, or a command.

Every message would get such a reply. So it is a setup fault of the relayhost, and no message fails by it.

Promises: a reply that concerns the sender, the recipient, relaying or the content is no setup fault, and neither is an
unknown reply: its 5xx stays a refusal, which the client may get. Only the code, the enhanced status code and the words
outside of addresses count. The words are those of Postfix, sendmail, Exim, OpenSMTPD, qmail, Exchange, Haraka and others; a
test lists them.
"""

import ipaddress
import re
from typing import Protocol

from mailrelay.mail.outcome import Cause, Reply, Stage
from mailrelay.mail.printable import printable

MEAN_NOTHING_ELSE = frozenset({530, 535, 538})
"""Codes that mean a missing login or TLS, and nothing else (RFC 3207 section 4, RFC 4954 section 6)."""

_STAGES = frozenset({Stage.GREETING, Stage.EHLO, Stage.MAIL, Stage.RCPT, Stage.DATA, Stage.CONTENT})

# Addresses are replaced before words are looked for: <tls@example.org> is a mailbox.
_ADDRESS = re.compile(rb"<[^<>\s]*@[^<>\s]*>|[^\s<>@]+@[^\s<>@]+")
# So are URLs and host names: https://example.org/login wants no login.
_URL = re.compile(rb"\b[a-z]+://\S+|(?<![\w.<\[-])(?:[\w-]+\.)+[a-z]{2,}(?![\w\]])", re.IGNORECASE)
_ABOUT_THE_MAIL = re.compile(
    rb"(?:sender|recipient)(?: e?-?mail)? address|\bauthenticated sender|sender (?:is|was) not|send as|\brelay(?:ing)?\b"
    rb"|\bdomain of\b|\bspf\b|\bsender policy\b|\bdkim\b|\bdmarc\b|\b5\.7\.(?:2\d|[15]\d\d)\b|\bresolver\."
    rb"|user (?:unknown|not found|doesn)|no such|mailbox|\bspam\b|\brecipients?\b|has blocked"
    rb"|\b(?:this|that|the|mailing|distribution) (?:list|group)\b|\bmailing lists?\b|\bmembers?\b"
    rb"|\bto (?:this|that) (?:e?-?mail )?(?:address|user|account|alias|destination|domain)"
    rb"|\bmessages? must\b|\bpgp\b|\bs/mime\b|attachment|\bfrom address\b|\bmail from <>"
    rb"|\bsender authentication\b|\b(?:this|the) sender\b|\bto send to\b|\bweb ?(?:page|mail|site|interface)\b|\bactivate"
    rb"|\b(?:send|sending) (?:e?-?mail |messages? )?(?:as|on behalf)\b"
    rb"|\bto send (?:e?-?mail |messages? )?(?:from|for)\b(?! th(?:is|e)\b| your\b| here\b| localhost\b)",
    re.IGNORECASE,
)
# The mail server quotes the reply of another mail server, which it has asked about an address.
_QUOTED = re.compile(
    rb"\bsaid: |call-?(?:out|back)\b|undeliverable address|unverified address"
    rb"|(?:sender|recipient|address) verif|verif\w* (?:failed )?for\b",
    re.IGNORECASE,
)
_TEMPORARY = re.compile(
    rb"gr[ae]y ?-?list|try(?:ing)? again|\blater\b|\bretry\b|temporar|too (?:many|much)|\b(?:rate|limit|exceed)",
    re.IGNORECASE,
)
_HELO = re.compile(
    rb"(?<![\w.-])(?:helo|ehlo)(?![\w=-]|\.\w)|(?:send|say|need|required?) hello|introduce yourself", re.IGNORECASE
)
_WANTED = rb"(?:must|need(?:s|ed)?|requir\w*|mandatory|first|before|please|use)"
_TLS = rb"(?:starttls|tls|ssl|encrypt(?:ed|ion)|secure connection)"
_TLS_WANTED = re.compile(
    rb"\b%b\b.*\b%b\b|\b%b\b.*\b%b\b|\b(?:unencrypted|clear-?text|plain-?text) (?:connection|session)"
    % (_WANTED, _TLS, _TLS, _WANTED),
    re.IGNORECASE,
)
_LOGIN = rb"(?:authenticat\w*|auth|authori[sz](?:e|ation)|log ?in)"
_LOGIN_WANTED = re.compile(
    rb"\b%b\b.*\b%b\b|\b%b\b.*\b%b\b|\bnot authenticated\b|\bunauthenticated (?:client|connection|sender|session|user)"
    % (_WANTED, _LOGIN, _LOGIN, _WANTED),
    re.IGNORECASE,
)
_CLIENT = re.compile(
    rb"\bclient (?:host|ip)\b|\bclient does not have permission|\byour (?:ip|host|client|server)\b"
    rb"|(?<![\d.])127\.0\.0\.1(?!\.?\d)|(?<![\w:])::1(?![\w:])",
    re.IGNORECASE,
)
_IN_BRACKETS = re.compile(rb"\[(?:ipv6:)?([\da-f:.]+)\]", re.IGNORECASE)
_INTERNAL = [ipaddress.ip_network(one) for one in ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "fc00::/7")]
_POSTFIX = re.compile(rb"(?:[45]\.\d+\.\d+ )?(?:<[^<>]*>: )?(?:helo command|client host) rejected: ", re.IGNORECASE)
_DENIED = re.compile(
    rb"reject|denied|refused|blocked|blacklist|blocklist|banned|listed|permission"
    rb"|not (?:allowed|permitted|accepted|welcome|authori[sz]ed)",
    re.IGNORECASE,
)
_ACCESS_DENIED = re.compile(rb"access denied", re.IGNORECASE)
_DOMAIN = re.compile(rb"\bdomain\b", re.IGNORECASE)
_NO_HOSTNAME = re.compile(rb"cannot find your (?:reverse )?hostname", re.IGNORECASE)
_COMMAND = re.compile(
    rb"(?:unknown|invalid|bad|illegal|disabled?) (?:smtp )?command|command (?:is )?(?:unknown|invalid|disabled|not )"
    rb"|recogni[sz]e|implement|unsupported|not supported|sequence|out of order|\bverb\b|\bfirst\b",
    re.IGNORECASE,
)


def cause_of(stage: Stage, reply: Reply, *, accepted: bool) -> Cause | None:
    """Which setup fault the reply means, None if it means none.

    accepted: the mail server has accepted something in this conversation before: a message or, if stage is RCPT, another
    recipient. So it does accept mail of ours, and the reply concerns this message.
    """
    if accepted or reply.code < 400 or reply.code == 421 or stage not in _STAGES:
        return None
    words = _ADDRESS.sub(b"<>", reply.text)
    if reply.code in MEAN_NOTHING_ELSE:
        return Cause.TLS_WANTED if reply.code == 538 or _TLS_WANTED.search(words) else Cause.LOGIN_WANTED
    if stage is Stage.CONTENT or (reply.code < 500 and _TEMPORARY.search(words)):
        return None
    # Postfix puts any text behind these words, and says itself what it concerns.
    if not _POSTFIX.match(words) and (_ABOUT_THE_MAIL.search(words) or _QUOTED.search(words)):
        return None
    words = _URL.sub(b"*", words)
    return _by_words(reply.code, words) or _by_code(stage, reply, words)


def _by_words(code: int, words: bytes) -> Cause | None:
    """The setup fault that the words of a reply name, at any stage."""
    if _HELO.search(words):
        return Cause.HELO_REFUSED
    denied = _DENIED if code >= 500 else _ACCESS_DENIED
    if _NO_HOSTNAME.search(words) or (_names_this_client(words) and denied.search(words)):
        return Cause.CLIENT_REFUSED
    # With "domain", it is the sender's domain that must be authenticated (SPF, DKIM).
    is_about_domain = _DOMAIN.search(words)
    if _TLS_WANTED.search(words) and not is_about_domain:
        return Cause.TLS_WANTED
    return Cause.LOGIN_WANTED if _LOGIN_WANTED.search(words) and not is_about_domain else None


def _names_this_client(words: bytes) -> bool:
    """Whether the reply is about mailrelay as the SMTP client. A reply with a public IP address may be quoted from the
    recipient's mail server, which refuses our mail server."""
    if not _CLIENT.search(words):
        return False
    return bool(_POSTFIX.match(words)) or not any(_is_public(found[1]) for found in _IN_BRACKETS.finditer(words))


def _is_public(address: bytes) -> bool:
    try:
        found = ipaddress.ip_address(address.decode("ascii"))
    except ValueError:
        return False
    return not (found.is_loopback or found.is_link_local or any(found in network for network in _INTERNAL))


def _by_code(stage: Stage, reply: Reply, words: bytes) -> Cause | None:
    """The setup fault that the code means at this stage, if the words name none."""
    if stage is Stage.EHLO and (reply.code in (501, 504) or (reply.code in (550, 553) and not _DENIED.search(words))):
        return Cause.HELO_REFUSED
    if stage in (Stage.GREETING, Stage.EHLO):
        return None
    # Enhanced codes other than x.3.x (system) and x.5.x (protocol) concern an address or a policy.
    if reply.status.split(".")[1] not in ("0", "3", "5"):
        return None
    # 503: bad sequence of commands. To MAIL, 521: the host accepts no mail (RFC 7504); 502: not implemented.
    if (
        reply.code == 503
        or (reply.code in (502, 521) and stage is Stage.MAIL)
        or (reply.code in (500, 502, 504, 521) and _COMMAND.search(words))
    ):
        return Cause.COMMAND_REFUSED
    return None


class MailServerSettings(Protocol):
    """The settings of a relayhost that say how its mail server is reached and greeted."""

    @property
    def smtp(self) -> object: ...
    @property
    def command(self) -> str: ...
    @property
    def helo(self) -> str: ...


def fix(cause: Cause, settings: MailServerSettings) -> str:
    """The fix of a setup fault; for a cause that is not in SETUP_REPLIES, a general one. Escaped."""
    return printable(_fix(cause, settings.command or str(settings.smtp), settings))


def _fix(cause: Cause, server: str, settings: MailServerSettings) -> str:
    through_command = "" if settings.command else ', or set command = "/usr/sbin/sendmail -bs" for this relayhost'
    match cause:
        case Cause.HELO_REFUSED:
            return (
                f"The mail server ({server}) refuses the name {settings.helo}, by which mailrelay introduces itself. "
                'Set helo for this relayhost to a name that it accepts, as in helo = "mail.example.org"; often its own name '
                "is one."
            )
        case Cause.LOGIN_WANTED:
            return (
                f"The mail server ({server}) wants a login. It must take mail from its own host without one: permit "
                f"127.0.0.1 there (Postfix: mynetworks and permit_mynetworks; Exim: relay_from_hosts){through_command}."
            )
        case Cause.TLS_WANTED:
            return (
                f"The mail server ({server}) wants TLS. It must take mail from its own host without TLS (Postfix: "
                f"smtpd_tls_security_level = may){through_command}."
            )
        case Cause.CLIENT_REFUSED:
            return (
                f"The mail server ({server}) refuses connections from its own host: permit 127.0.0.1 there (Postfix: "
                f"mynetworks and permit_mynetworks; Exim: relay_from_hosts){through_command}."
            )
        case Cause.COMMAND_REFUSED:
            return (
                f"The server ({server}) does not take the commands by which mail is sent. Set smtp for this relayhost to "
                f"a mail server that does{through_command}."
            )
    return f"This is the reply of the mail server ({server}). See its log; it must take mail from its own host."
