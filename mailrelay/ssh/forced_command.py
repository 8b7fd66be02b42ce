"""The forced command of a key that sends and follows mail: it runs recorders, shows and removes their records, and answers
the question about mail. It runs its own copy of the scripts, never a text of the client.

Promises: the mail server, and the command that lists the queue, are those of the line in authorized_keys. The values of the
client are tokens of 32 hexadecimal digits in the command, and data on the stdin of `mail_question.sh`.
"""

from mailrelay.endpoint import Tcp
from mailrelay.ssh import mail_question, recorder, remote_script


def forced_command(smtp: Tcp, *, list_queue: str = "", speak_smtp: str = "") -> str:
    """The command line, for any login shell. list_queue: the person's command, "" for the mail server's own program.
    speak_smtp: the mail path, "" for forwarding. Raises ValueError if a value cannot be quoted for every shell."""
    script = remote_script.text("forced_command.sh", {"NAMES": "[0-9a-f]" * 32, "MAX_WORDS": recorder.MAX_TOKENS + 1})
    words = (*recorder.scripts(), mail_question.script(), *recorder.mail_server(smtp), list_queue, speak_smtp)
    return remote_script.command_line(script, *map(remote_script.quoted, words))
