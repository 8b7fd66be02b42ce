"""`mailrelay queue resend`: sends a message that was refused, failed or is held again, without writing it again.

    queue resend ID                  to the same recipients
    queue resend ID --to ADDRESS…    to these in place of all that failed
    queue resend ID --from ADDRESS   with another reverse path, and so perhaps through another relayhost; <> for none

A new message is queued with the same content, octet for octet: `--from` changes nothing that its readers see. In the same
commit, recipients of the old message that failed, were refused or held become cancelled, and their pending notices are
cancelled too. All other recipients stay as they are. A refused message can be sent again for a week.
"""

import os
from collections.abc import Sequence

import click

from mailrelay.cli.addresses import BadAddress, addresses
from mailrelay.cli.base import NO_DAEMON, Failed, load_settings, say
from mailrelay.cli.terminal import put
from mailrelay.cli.waiting import waiting_for
from mailrelay.control.replacement import replace, replaceable
from mailrelay.mail.address import is_address
from mailrelay.mail.draft import readdressed
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.printable import printable


@click.command("resend")
@click.argument("queue_id", metavar="ID")
@click.option(
    "--to", "recipients", multiple=True, metavar="ADDRESS", help="Send it to this address instead of the old ones."
)
@click.option("--from", "reverse_path", metavar="ADDRESS", help="Use another reverse path; <> for none.")
def command(queue_id: str, recipients: Sequence[str], reverse_path: str | None) -> None:
    """Send a failed, refused or held message again, if need be to another address."""
    settings = load_settings()
    to = [address for word in recipients for address in _addresses("--to", word)]
    sender = None if reverse_path is None else _sender(reverse_path)
    with waiting_for("the spool"):
        old, content = replaceable(settings, queue_id, Act.RESEND)
    bad = next((one.address for one in old.envelope.recipients if not is_address(one.address)), None)
    if bad is not None and not to:
        raise Failed(f"<{printable(bad)}> is not an address; name all recipients of {old.queue_id} with --to ADDRESS")
    envelope = readdressed(
        old.envelope,
        old.envelope.sender if sender is None else sender,
        to or [recipient.address for recipient in old.envelope.recipients],
    )
    with waiting_for("the spool"):
        new = replace(settings, old, Act.RESEND, envelope, content)
    put(f"{old.queue_id} is replaced by {new.queue_id}")
    if not new.daemon_runs:
        say(NO_DAEMON)


def _addresses(option: str, word: str) -> list[bytes]:
    try:
        found = addresses(os.fsencode(word))
    except BadAddress as error:
        raise Failed(f"{option}: {error}", 2) from None
    if not found:
        raise Failed(f"{option} is empty; give an address", 2)
    return found


def _sender(word: str) -> bytes:
    if word.strip() == "<>":
        return b""
    found = _addresses("--from", word)
    if len(found) > 1:
        raise Failed("--from takes one address", 2)
    return found[0]
