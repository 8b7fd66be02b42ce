"""The fixtures of the tests in this directory."""

from harness.real_servers import postfix_package, relays, sinks, sshd

__all__ = ["postfix_package", "relays", "sinks", "sshd"]
