"""The parts are those of the system tests."""

from system.conftest import postfix_package, relays, sinks, sshd

__all__ = ["postfix_package", "relays", "sinks", "sshd"]
