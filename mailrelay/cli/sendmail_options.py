"""The command line of sendmail(1), as sendmail 8.17, Postfix, Exim, msmtp, ssmtp and busybox document it.

    rewritten(args)   the options that have a meaning here, each as an argument of its own, then -- and the addresses; and
                      the options that are not known
    notify, ret, envid, body
                      the values of -N, -R, -V and -B as SMTP has them; they raise ValueError with a sentence

A program that is made for another sendmail gives options that have no meaning here. They are left out. An option that no
sendmail documents is left out too, and named: it must not cost the mail.

Flags may be combined (`-ti`), values may be attached (`-fADDRESS`) or be the next argument. Options may follow addresses,
as in Postfix. Pure.
"""

from collections.abc import Sequence

_KEPT_FLAGS = frozenset("tiI")
"""Options that have a meaning here, without a value; -I becomes -bi."""
_IGNORED_FLAGS = frozenset("GUcmnsvx")
_KEPT_VALUES = frozenset("fFNRVBb")
"""Options that have a meaning here, with a value, attached or in the next argument."""
_IGNORED_VALUES = frozenset("ACDHLMOSXaehoprw")
"""Two of them are ignored only in part: -r ADDRESS becomes -f, and -oi becomes -i (`_valued`). -a is the account of msmtp;
-H, -S and -w are busybox's."""
_ATTACHED_VALUES = frozenset("dqTQE")
"""Options whose value, if there is one, is attached. All but -q are ignored."""
_EXIM = frozenset({"Ma", "Maa", "Mai", "Mas", "Mi", "Mm", "Mr", "Ms", "Mt"})
"""Values of -o that Exim documents with another argument after them, such as `-oMr PROTOCOL`."""
_LONG = frozenset({"--help", "--version", "--wait", "--config", "--in", "--at"})
_LONG_WITH_VALUE = frozenset({"--config", "--in", "--at"})
"""Those of _LONG whose value may be the next argument."""
_OTHER_NAMES = {"--read-recipients": "-t", "--from": "-f"}
"""Long options of msmtp."""

_NOTIFY = {b"SUCCESS", b"FAILURE", b"DELAY"}
_MAX_ENVID = 100
"""Octets of xtext (RFC 3461 section 4.4)."""
_XTEXT = {code: f"+{code:02X}" for code in range(128) if not 33 <= code <= 126 or code in b"+="}


def rewritten(args: Sequence[str]) -> tuple[list[str], list[str]]:
    """The arguments for the parser, and the options that are not known, each as it was given."""
    options: list[str] = []
    addresses: list[str] = []
    unknown: list[str] = []
    left = list(args)
    while left:
        word = left.pop(0)
        if word == "--":
            addresses += left
            break
        if word.startswith("--"):
            _long(word, left, options, unknown)
        elif word.startswith("-") and word != "-":
            _short(word, left, options, unknown)
        else:
            addresses.append(word)
    return [*options, "--", *addresses], unknown


def _long(word: str, left: list[str], options: list[str], unknown: list[str]) -> None:
    name, equals, value = word.partition("=")
    short = _OTHER_NAMES.get(name)
    if short == "-t":
        options.append(short)
    elif short is not None and (equals or left):
        options += [short, value if equals else left.pop(0)]
    elif name == "--wait":
        # The parser would take the word after a bare --wait as its value.
        options.append(f"--wait={value}")
    elif name in _LONG:
        options.append(word)
        if name in _LONG_WITH_VALUE and not equals and left:
            options.append(left.pop(0))
    else:
        unknown.append(word)


def _short(word: str, left: list[str], options: list[str], unknown: list[str]) -> None:
    at = 1
    while at < len(word):
        letter, rest = word[at], word[at + 1 :]
        at += 1
        if letter in _KEPT_FLAGS:
            options += ["-bi"] if letter == "I" else [f"-{letter}"]
        elif letter in _KEPT_VALUES or letter in _IGNORED_VALUES:
            if rest or left:
                value = rest or left.pop(0)
                _valued(letter, value, options)
                if letter == "o" and value in _EXIM and left:
                    left.pop(0)
            else:
                unknown.append(f"-{letter}")
            return
        elif letter in _ATTACHED_VALUES:
            if letter == "q":
                options.append("-q")
            return
        elif letter not in _IGNORED_FLAGS:
            unknown.append(f"-{letter}")


def _valued(letter: str, value: str, options: list[str]) -> None:
    if letter == "o":
        options += ["-i"] if value == "i" else []
    elif letter == "r":
        options += ["-f", value]
    elif letter in _KEPT_VALUES:
        options += [f"-{letter}", value]


def notify(words: str) -> bytes:
    """NOTIFY (RFC 3461 section 4.1); b"" if not given."""
    found = words.upper().encode("ascii", "replace")
    if found not in (b"", b"NEVER") and not _NOTIFY.issuperset(found.split(b",")):
        raise ValueError("-N is never, or one or more of success,failure,delay")
    return found


def ret(word: str) -> bytes:
    """RET (RFC 3461 section 4.3); b"" if not given."""
    if word.upper() not in ("", "FULL", "HDRS"):
        raise ValueError("-R is full or hdrs")
    return word.upper().encode("ascii")


def envid(name: str) -> bytes:
    """ENVID (RFC 3461 section 4.4); b"" if not given."""
    xtext = name.translate(_XTEXT)
    if not xtext.isascii() or len(xtext) > _MAX_ENVID:
        raise ValueError(f"-V is at most {_MAX_ENVID} ASCII characters")
    return xtext.encode("ascii")


def body(word: str) -> bytes:
    """BODY (RFC 6152); b"" if not given."""
    if word.upper() not in ("", "7BIT", "8BITMIME"):
        raise ValueError("-B is 7BIT or 8BITMIME")
    return word.upper().encode("ascii")
