"""What is wrong with the facts of a story (`harness.fault_story`): a list of complaints, empty if the daemon did right.

Right is, whatever call failed and however:

- each recipient of a message with a 250 has it, or waits in the queue, or was refused by the mail server and the person was
  told;
- clients get no 5xx but the mail server's own, and each gets a reply; no content is altered; what arrives twice was
  being sent when the daemon ended;
- a daemon that goes on accepts and sends the next message, settles, and `status` says that it serves; any other has ended
  within ENDS_WITHIN by itself, with exit status 1 and without a traceback, and `status` is 2;
- the person was told, once and within TOLD_WITHIN, if the daemon ended or a client was refused;
- a second daemon on the same spool starts, delivers the rest and stops.
"""

import json
from collections.abc import Iterator

from harness.fault_story import ENDS_WITHIN, LETTERS, PROBE, REFUSAL, TOGETHER, TOLD_WITHIN, Facts
from mailrelay.mail.states import State

WAITING = {State.QUEUED, State.DEFERRED, State.HELD}


def complaints(facts: Facts) -> list[str]:
    """What is wrong, one sentence each."""
    found = [*_mail(facts), *_replies(facts), *_doubles(facts)]
    if facts.failed_call is None:
        found += _no_fault(facts)
    elif facts.failed_call.fault == "KILL":
        found += [] if facts.ended == -9 or facts.stopped == -9 else [f"killed, and ended with {facts.ended}"]
    else:
        found += [*_life(facts), *_telling(facts)]
    if facts.second:
        found.append(f"the second daemon {facts.second}")
    return found


def doubles(facts: Facts) -> int:
    """How many messages arrived more than once."""
    return len({name for (name, _), times in facts.arrived.items() if times > 1})


def _mail(facts: Facts) -> Iterator[str]:
    for name, code in facts.replies.items():
        for recipient in LETTERS[name].recipients if code == 250 else ():
            state = facts.states.get((name, recipient), "gone")
            if facts.arrived[name, recipient]:
                continue
            if state == State.BOUNCED and recipient in ("never", "refused"):
                if not _knows_of(facts, recipient):
                    yield f"{name} to {recipient} bounced, and the person was not told"
            elif state not in WAITING or recipient not in ("later", "never"):
                yield f"{name} to {recipient} had its 250, did not arrive, and is {state}"
    for name in facts.altered:
        yield f"{name} arrived altered"


def _knows_of(facts: Facts, recipient: str) -> bool:
    address = f"{recipient}-{facts.run}@"
    return any(address in json.dumps(notice) for _, notice in facts.told) and any(
        address in text for text in facts.reports
    )


def _replies(facts: Facts) -> Iterator[str]:
    for line in facts.refusals:
        if line.startswith("5") and REFUSAL[4:] not in line:
            yield f"a client got {line}"
    for name, code in facts.replies.items():
        if code == -1:
            yield f"the client of {name} waited in vain"


def _doubles(facts: Facts) -> Iterator[str]:
    # The messages of TOGETHER are on their way at once; the others go one after the other.
    in_flight = len(TOGETHER) if facts.ended is not None or facts.stopped is None else 0
    if (count := doubles(facts)) > in_flight:
        yield f"{count} messages arrived twice: {[key for key, times in facts.arrived.items() if times > 1]}"


def _no_fault(facts: Facts) -> Iterator[str]:
    if facts.ended is not None or facts.stopped != 0:
        yield f"no call failed, and the daemon ended ({facts.ended}, {facts.stopped}): {facts.said}"
    if not facts.settled:
        yield "no call failed, and the daemon did not settle"


def _life(facts: Facts) -> Iterator[str]:
    if "Traceback" in facts.said + facts.logged:
        yield f"a traceback: {facts.said}{facts.logged}"
    level, status = facts.status
    if facts.ended is None:
        yield from _going_on(facts)
    elif facts.ended != 1:
        yield f"the daemon ended with status {facts.ended}: {facts.said}"
    elif level != 2:
        yield f"the daemon had ended, and `status` was {level}: {status}"
    elif facts.failed_call and facts.ended_at - facts.failed_call.at > ENDS_WITHIN:
        yield f"the daemon ended after {facts.ended_at - facts.failed_call.at:.1f} s"


def _going_on(facts: Facts) -> Iterator[str]:
    level, status = facts.status
    if not facts.ready:
        yield f"the daemon neither listens nor ends: {facts.said}"
    if facts.stopped not in (0, 1):
        yield f"the daemon did not end when it was stopped ({facts.stopped}): {facts.said}"
    if not facts.settled:
        yield "the daemon goes on, and mail or notices do not"
    if PROBE.name in facts.replies:
        if facts.replies[PROBE.name] != 250:
            yield f"the daemon goes on, and answers {facts.replies[PROBE.name]} to the next message: {facts.refusals}"
        elif not facts.arrived_before[PROBE.name, "alice"]:
            yield "the daemon goes on, and does not send the next message"
        if '"serving": true' not in status:
            yield f"the daemon goes on, and `status` is {level}: {status}"


def _telling(facts: Facts) -> Iterator[str]:
    assert facts.failed_call is not None
    if facts.ended is None and not any(line.startswith("4") for line in facts.refusals):
        return
    after = [at - facts.failed_call.at for at, notice in facts.told if notice["kind"] == "spool"]
    if not after:
        yield f"the person was not told; replies {facts.refusals}, ended {facts.ended}: {facts.said}"
    elif after[0] > TOLD_WITHIN:
        yield f"the person was told after {after[0]:.1f} s"
    elif len(after) > 1:
        yield f"the person was told {len(after)} times of one fault"
