"""The options that select messages, for the listing and for every command that acts on messages (`mail.selection`).

    @filters              adds --from, --to, --subject, --since, --state and --relayhost, which the command gets as `Filter`
    @filters_with(…)      the same, with other help texts for --from and --to

An empty text is wrong usage: where a script uses a variable that is not set, it would select everything.
"""

from collections.abc import Callable
from functools import update_wrapper

import click

from mailrelay.cli.since import Command, since_option
from mailrelay.mail.quantity import number_of_messages
from mailrelay.mail.selection import Filter
from mailrelay.mail.states import STATE_WORDS


def _checked_texts(context: click.Context, option: click.Parameter, given: tuple[str, ...]) -> tuple[str, ...]:
    """The texts without blanks around them. Raises BadParameter if one is empty."""
    texts = tuple(text.strip() for text in given)
    if "" in texts:
        raise click.BadParameter("the text is empty; leave the option out to select everything", context, option)
    return texts


def filters_with(senders: str, recipients: str) -> Callable[[Callable[..., object]], Callable[..., object]]:
    """A decorator that adds the options to a command, whose function gets them as `wanted`. senders, recipients: the
    help texts of --from and --to."""
    options = (
        _text_option("--from", "senders", "TEXT", senders),
        _text_option("--to", "recipients", "TEXT", recipients),
        _text_option("--subject", "subjects", "TEXT", "Select by the subject, in the same way as --from."),
        since_option("Select what came in since then"),
        click.option(
            "--state",
            "states",
            multiple=True,
            type=click.Choice(STATE_WORDS, case_sensitive=False),
            metavar="STATE",
            help="Select by the state of a recipient, such as deferred, held or failed.",
        ),
        _text_option("--relayhost", "relayhosts", "NAME", "Select by the relayhost: its name, or a pattern."),
    )

    def with_options(function: Callable[..., object]) -> Callable[..., object]:
        def command(
            *args: object,
            senders: tuple[str, ...],
            recipients: tuple[str, ...],
            subjects: tuple[str, ...],
            since: float | None,
            states: tuple[str, ...],
            relayhosts: tuple[str, ...],
            **others: object,
        ) -> object:
            wanted = Filter(senders, recipients, subjects, since, states, relayhosts)
            return function(*args, wanted=wanted, **others)

        update_wrapper(command, function)
        for option in reversed(options):
            option(command)
        return command

    return with_options


def _text_option(name: str, parameter: str, metavar: str, what: str) -> Callable[[Command], Command]:
    return click.option(name, parameter, multiple=True, callback=_checked_texts, metavar=metavar, help=what)


filters = filters_with(
    "Select by the reverse path: a part of it, or a pattern such as *@example.org; <> for the null one.",
    "Select by a recipient, in the same way as --from.",
)


def nothing_text(queued: int) -> str:
    """A listing without messages. queued: how many there are that do not fit the filters."""
    if queued:
        return f"none of {number_of_messages(queued)} fits the filters"
    return "the queue is empty"
