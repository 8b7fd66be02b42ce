"""The form that mends a message: from the message to the fields, and from the changed fields to the new message. Pure.

    mend_form(message, content, act, meant)     the fields, from the message
    mend.with_entered(form)                     the fields with the person's changes
    mended_message(mend, old, content, limit)   the envelope and the content to send in place of the old ones

Promises: no recipient is lost. The form is refused if the recipients to replace are no longer those that it was made for. A
recipient is left out only if the person has emptied its field.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass

from mailrelay.mail.address import BadPath, is_address, parse_path
from mailrelay.mail.draft import readdressed
from mailrelay.mail.envelope import Envelope, Message
from mailrelay.mail.lifecycle import ACT_TABLE, Act, State
from mailrelay.mail.overview import Listed, ListedRecipient
from mailrelay.mail.printable import printable
from mailrelay.mail.sender_refusal import is_sender_refused
from mailrelay.page.editing import Editable, editable, names_address, with_address, with_source, with_subject, with_text
from mailrelay.page.forms import Form

MAX_TO_FIELDS = 30
"""Recipients with a field of their own, at most. A message to more recipients has no such fields, and is sent to the same
ones."""


class InvalidForm(ValueError):
    """The form cannot be sent as it is. Its text is for the person: a sentence without a full stop."""


@dataclass(frozen=True, slots=True)
class ToField:
    """A recipient in the form. was: its address in the message. given: the text of the field, at first the same. meant: the
    suggestion, an address that may have been meant, "" if there is none. Printable text."""

    was: str
    given: str
    meant: str = ""


@dataclass(frozen=True, slots=True)
class Mend:
    """The form. editable: what of the content it can change. sender: "" for the null reverse path. subject, text, source: of
    the fields with these names.

    to: the recipients, each with a field; () if there are more than MAX_TO_FIELDS. count: the number of recipients that are
    replaced. in_header: whether a changed address is also changed in the header (`editing.with_address`). can_correct:
    whether the header has an address that can be changed. is_sender_refused: whether the mail server has refused the
    sender.
    """

    editable: Editable
    sender: str
    to: tuple[ToField, ...]
    count: int
    subject: str
    text: str
    source: str
    in_header: bool
    can_correct: bool
    is_sender_refused: bool

    def with_entered(self, form: Form) -> "Mend":
        """The form with the person's input. `ToField.was` comes from the input, too: `mended_message` compares it."""
        fields = {one.was: one for one in self.to}
        to = tuple(
            ToField(was, given, fields[was].meant if was in fields else "")
            for was, given in zip(form.all("was"), form.all("to"), strict=False)
        )
        return dataclasses.replace(
            self,
            sender=form.one("sender") if "sender" in form else self.sender,
            subject=form.one("subject") if "subject" in form else self.subject,
            text=form.one("text") if "text" in form else self.text,
            source=form.one("source") if "source" in form else self.source,
            to=to,
            in_header="in_header" in form,
        )

    def with_suggestion(self, was: str) -> "Mend":
        """The form with the suggestion in the field of the recipient `was`."""
        to = tuple(ToField(one.was, one.meant, one.meant) if one.was == was and one.meant else one for one in self.to)
        return dataclasses.replace(self, to=to)


def mend_form(message: Listed, content: bytes, act: Act, meant: Mapping[bytes, bytes]) -> Mend:
    """The form of a message. act: RESEND or EDIT. meant: suggestions, by the address of the recipient."""
    concerned = [to for to in message.recipients if _is_concerned(to, act)]
    found = editable(content)
    fields = [ToField(_shown(to.address), _shown(to.address), _shown(meant.get(to.address, b""))) for to in concerned]
    return Mend(
        found,
        _shown(message.sender),
        tuple(fields) if len(fields) <= MAX_TO_FIELDS else (),
        len(concerned),
        found.subject,
        found.text or "",
        found.source or "",
        in_header=True,
        can_correct=not found.is_signed
        and any(
            names_address(content, address)
            for address in (message.sender, *(to.address for to in concerned[:MAX_TO_FIELDS]))
        ),
        is_sender_refused=any(is_sender_refused(to.stage, to.status, to.description) for to in concerned),
    )


def mended_message(mend: Mend, old: Message, content: bytes, limit: int) -> tuple[Envelope, bytes]:
    """The envelope and the content that the form makes of the message `old` and its content. limit: octets of a content.

    Raises InvalidForm.
    """
    was = {_shown(to.address): to.address for to in old.envelope.recipients}
    if len(was) > MAX_TO_FIELDS:
        corrected = {address: address for address in was.values()}
    elif {one.was for one in mend.to} != set(was):
        raise InvalidForm("The message has changed since this page was shown; look at it again, then send it")
    else:
        corrected = {was[one.was]: _corrected(was[one.was], one) for one in mend.to if one.given.strip()}
    if not corrected:
        raise InvalidForm("There is no recipient; give at least one address")
    sender = old.envelope.sender
    if mend.sender != _shown(sender):
        sender = b"" if mend.sender.strip() in ("", "<>") else _address(mend.sender)
    changed = _changed(mend, content)
    if mend.can_correct and mend.in_header:
        for before, after in ((old.envelope.sender, sender), *corrected.items()):
            if before != after and after:
                changed = with_address(changed, before, after)
    if len(changed) > max(limit, len(content)):
        raise InvalidForm(f"The message is larger than listen.max_message_size allows ({limit} octets)")
    envelope = readdressed(old.envelope, sender, list(corrected.values()))
    if not changed.isascii():
        envelope = dataclasses.replace(envelope, body=b"8BITMIME")
    return envelope, changed


def _changed(mend: Mend, content: bytes) -> bytes:
    """The content with the subject and text, or the source, of the form."""
    try:
        if mend.editable.source is not None:
            return with_source(content, mend.source)
    except ValueError as error:
        raise InvalidForm(str(error).capitalize()) from None
    if mend.editable.text is None:
        return content
    return with_text(with_subject(content, mend.subject), mend.text)


def _is_concerned(to: ListedRecipient, act: Act) -> bool:
    """Whether a recipient is replaced by the act."""
    return to.has_bounced_there or (to.state in list(State) and (State(to.state), act) in ACT_TABLE)


def _shown(address: bytes) -> str:
    return printable(address)


def _corrected(was: bytes, field: ToField) -> bytes:
    """The address in the field of the recipient `was`. Raises InvalidForm."""
    # The text in the field may be escaped, so an unchanged field stands for the octets of the address.
    if field.given == field.was and is_address(was):
        return was
    return _address(field.given)


def _address(given: str) -> bytes:
    """The address in a field. Raises InvalidForm."""
    text = given.strip().removeprefix("<").removesuffix(">")
    try:
        address, rest = parse_path(b"<%s>" % text.encode("utf-8", "replace"), smtputf8=True, null=False)
    except BadPath as error:
        raise InvalidForm(f"{text or 'An empty text'} is not an address: {error}") from None
    if rest:
        raise InvalidForm(f"{text} is more than one address; a field takes one")
    return address
