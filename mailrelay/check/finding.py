"""What a check found."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Finding:
    """One line. about: the relayhost, domain or address that it concerns, "" for this machine. ok: None where it was not
    asked, or cannot be known here. fix: the step, where it is not ok. Texts may be others' words: not escaped."""

    check: str
    ok: bool | None
    text: str
    fix: str = ""
    about: str = ""
