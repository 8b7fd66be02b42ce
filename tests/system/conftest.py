"""The fixtures of the tests in this directory."""

from harness.real_servers import postfix, postfix_package, relays, sendmail, sinks, sshd, token

__all__ = ["postfix", "postfix_package", "relays", "sendmail", "sinks", "sshd", "token"]
