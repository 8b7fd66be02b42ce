"""The fixtures of the tests in this directory."""

from harness.real_servers import exim, postfix, postfix_package, relays, sendmail, sinks, sshd, token

__all__ = ["exim", "postfix", "postfix_package", "relays", "sendmail", "sinks", "sshd", "token"]
