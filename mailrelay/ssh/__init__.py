"""The SSH connection to a relayhost, and changes to authorized_keys there. Only this package and the `demo` import asyncssh.

interface           the connection as the relay sees it; imports no SSH library
dial                connects: reads ssh_config, logs in to each hop
connection, channel, greeting, flow_control     an open connection and its byte streams
recorder            a record, on the relayhost, of what the mail server says in a conversation
hop_connection, authentication, agent, tcp, proxy_command       the login to one hop
progress, errors, login_advice      why it failed, and the fix
ssh_config, hops, identities, known_hosts, certificate, ignored_directives      the person's own files
host_key_scan, mail_path, restriction_probe, authorized_keys        for the commands `trust`, `setup` and `check`
randomart, asyncssh_patches, library_search
"""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec, PathFinder
from types import ModuleType


class _BeforeAsyncssh:
    """Finds asyncssh, and has `library_search` installed before its code runs, whoever imports it.

    Never: an import in `find_spec`. Python calls it with a lock for all imports: another thread that imports something would
    wait for this one, and this one for it."""

    def find_spec(
        self, name: str, path: Sequence[str] | None = None, _target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != "asyncssh":
            return None
        sys.meta_path.remove(self)
        spec = PathFinder.find_spec(name, path)
        if spec is not None and spec.loader is not None:
            run = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                # Late: it loads modules that a daemon without mail does not need.
                from mailrelay.ssh import library_search  # noqa: PLC0415

                library_search.install()
                run(module)

            spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


if "asyncssh" not in sys.modules:
    sys.meta_path.insert(0, _BeforeAsyncssh())
