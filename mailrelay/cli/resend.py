"""`mailrelay queue resend`: sends a message again that was refused, failed (also on the relayhost) or is held.

    queue resend ID…                  to the same recipients
    queue resend ID… --to ADDRESS…    to these in place of all that failed
    queue resend ID… --from ADDRESS   with another reverse path, and so perhaps through another relayhost; <> for none
    queue resend --all                all that failed
    queue resend FILTERS              those that the filters select; without an id, --to and --from are filters, too

A new message is queued with the same content, octet for octet: `--from` changes nothing that its readers see. In the same
commit, recipients of the old message that failed, were refused or held become cancelled, and their pending notices are
cancelled too. Those that have bounced on the relayhost stay sent, and are dealt with. All other recipients stay as they are.
A refused message can be sent again for a week, and one that has bounced there for as long, if its space is not needed.

Each message is a commit of its own: where the spool becomes full, those before are queued. Without an id, held messages are
left as they are, unless --state names them: what the person holds back does not go out with what failed.
"""

import os
from collections.abc import Sequence

import click

from mailrelay.cli.addresses import BadAddress, addresses
from mailrelay.cli.base import NO_DAEMON, Failed, load_shared, say
from mailrelay.cli.bulk import check_choice, is_or_are, report_unchanged
from mailrelay.cli.filters import filters_with
from mailrelay.cli.queue_ids import queue_ids
from mailrelay.cli.terminal import put
from mailrelay.cli.waiting import waiting_for
from mailrelay.config import Settings
from mailrelay.control.acts import Done
from mailrelay.control.bulk import select
from mailrelay.control.errors import CONTROL_ERRORS, SpoolError
from mailrelay.control.replacement import Replaced, replace, replaceable
from mailrelay.control.system import Queue
from mailrelay.mail.address import is_address
from mailrelay.mail.draft import readdressed
from mailrelay.mail.lifecycle import Act
from mailrelay.mail.printable import printable
from mailrelay.mail.quantity import number_of_messages
from mailrelay.mail.selection import EVERYTHING, Filter


@click.command("resend")
@click.argument("ids", nargs=-1, metavar="[ID...]", shell_complete=queue_ids)
@click.option(
    "--all", "everything", is_flag=True, help="Send all messages that failed; with filters, only those that fit."
)
@filters_with(
    "With ids: use this other reverse path; <> for none. Else: select by the reverse path.",
    "With ids: send to this address instead of the old ones. Else: select by a recipient.",
)
def command(ids: Sequence[str], everything: bool, wanted: Filter) -> int:
    """Send a failed, refused or held message again, if need be to another address.

    So also one that has bounced on the relayhost. Without ids, --to and --from select messages, like the other filters.
    """
    settings, queue = load_shared()
    if not ids:
        check_choice(ids, everything=everything, wanted=wanted)
        return _resend_selected(settings, queue, wanted)
    new_addresses = Filter(senders=wanted.senders, recipients=wanted.recipients)
    check_choice(ids, everything=everything, wanted=EVERYTHING if wanted == new_addresses else wanted)
    if len(wanted.senders) > 1:
        raise Failed("--from takes one address", 2)
    to = [address for word in wanted.recipients for address in _addresses("--to", word)]
    sender = _sender(wanted.senders[0]) if wanted.senders else None
    done = _resend(settings, queue, ids, to, sender)
    for failure in filter(None, (*done.failures, done.error)):
        say(failure)
    if done.lacks_daemon:
        say(NO_DAEMON)
    return 1 if done.failures or done.error else 0


def _resend_selected(settings: Settings, queue: Queue, wanted: Filter) -> int:
    with waiting_for("the spool"):
        selected = select(queue, wanted, Act.RESEND)
    done = _resend(settings, queue, selected.ids, [], None)
    if done.changed:
        put(f"{number_of_messages(len(done.changed))} {is_or_are(len(done.changed))} sent again")
    if not selected.ids and (wanted.senders or wanted.recipients):
        say("without ids, --to and --from select messages; to send a message to another address, give its id")
    return report_unchanged(selected, done)


def _resend(settings: Settings, queue: Queue, ids: Sequence[str], to: Sequence[bytes], sender: bytes | None) -> Done:
    """Sends messages again, and prints a line for each. An error of the spool ends it.

    to: the new recipients, none for the old ones. sender: the new reverse path, None for the old one.
    """
    changed, failures, error, lacks_daemon = [], [], "", False
    for at, given in enumerate(ids):
        try:
            with waiting_for("the spool"):
                old, new = _resend_one(settings, queue, given, to, sender)
        except SpoolError as reason:
            error = f"{reason}; not done: {len(ids) - at} of {len(ids)} messages" if len(ids) > 1 else str(reason)
            break
        except (Failed, *CONTROL_ERRORS) as reason:
            failures.append(str(reason))
        else:
            put(f"{old} is replaced by {new.queue_id}")
            changed.append(old)
            lacks_daemon |= not new.daemon_runs
    return Done(changed, failures, lacks_daemon, error=error)


def _resend_one(
    settings: Settings, queue: Queue, given: str, to: Sequence[bytes], sender: bytes | None
) -> tuple[str, Replaced]:
    """The whole id of the message, and what replaced it."""
    old, content = replaceable(queue, given, Act.RESEND)
    bad = next((one.address for one in old.envelope.recipients if not is_address(one.address)), None)
    if bad is not None and not to:
        raise Failed(f"<{printable(bad)}> is not an address; name all recipients of {old.queue_id} with --to ADDRESS")
    envelope = readdressed(
        old.envelope,
        old.envelope.sender if sender is None else sender,
        to or [recipient.address for recipient in old.envelope.recipients],
    )
    return old.queue_id, replace(settings, queue, old, Act.RESEND, envelope, content)


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
