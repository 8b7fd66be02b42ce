"""`mailrelay queue resend`: mail that was refused, failed or is held, sent again without being written again.

    queue resend ID                  to the same recipients, as it is
    queue resend ID --to ADDRESS…    to these in place of all who failed
    queue resend ID --from ADDRESS   with another reverse path, and so maybe by another relayhost; <> for none

A new message goes out, octet for octet the old one: another `--from` changes nothing that its readers see. Recipients of the
old one who failed, were refused or held become cancelled in the same commit, and what was still to be told of them is not
told any more; all others are left alone. A refused message can be sent again for a week.
"""

import os
from collections.abc import Sequence

import click

from mailrelay.cli import Failed, load_settings
from mailrelay.cli.addresses import BadAddress, addresses
from mailrelay.cli.replace import fixable, succeed
from mailrelay.mail.draft import readdressed
from mailrelay.mail.lifecycle import Act


@click.command()
@click.argument("queue_id", metavar="ID")
@click.option("--to", "words", multiple=True, metavar="ADDRESS", help="To this one in place of all who failed.")
@click.option("--from", "reverse_path", metavar="ADDRESS", help="With another reverse path; <> for none.")
def command(queue_id: str, words: Sequence[str], reverse_path: str | None) -> None:
    """Send mail that was refused, failed or is held again, as a new message."""
    settings = load_settings()
    to = [address for word in words for address in _addresses("--to", word)]
    sender = None if reverse_path is None else _sender(reverse_path)
    old, content = fixable(settings, queue_id, Act.RESEND)
    envelope = readdressed(
        old.envelope,
        old.envelope.sender if sender is None else sender,
        to or [recipient.address for recipient in old.envelope.recipients],
    )
    succeed(settings, old, Act.RESEND, envelope, content)


def _addresses(option: str, word: str) -> list[bytes]:
    try:
        found = addresses(os.fsencode(word))
    except BadAddress as error:
        raise Failed(f"{option}: {error}", 2) from None
    if not found:
        raise Failed(f"{option} names nobody; give an address", 2)
    return found


def _sender(word: str) -> bytes:
    if word.strip() == "<>":
        return b""
    found = _addresses("--from", word)
    if len(found) > 1:
        raise Failed("--from is one address", 2)
    return found[0]
