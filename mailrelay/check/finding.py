"""The result of one check."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line of output. check: the name of the check. about: the relayhost, domain or address that was checked, "" for
    this machine. ok: None if the check was not made or its result cannot be known here. fix: what the person can do, where
    ok is not True. Texts may quote other hosts and are not escaped."""

    check: str
    ok: bool | None
    text: str
    fix: str = ""
    about: str = ""
