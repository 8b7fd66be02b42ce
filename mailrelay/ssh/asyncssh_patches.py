"""Saves two round trips of a login that the library has no option for; over a satellite they take longer than the mail.

The library first asks the server for its methods, though keys are all that we have to offer. Then it asks for each key
whether the server would take a signature with it, which RFC 4252 section 7 leaves to the client: a signature that costs
nobody anything may as well come at once.

Promises: a library in which these things have other names logs in as it likes.
Never: a person who has to confirm or touch something for a key that the server may not want, while there is another key.
"""

import contextlib
from typing import Any

from asyncssh import SSHClientConnection, SSHKeyPair, auth


def offer_keys_alone(connection: SSHClientConnection) -> None:
    """When authentication begins: do not ask for the methods ("none", RFC 4252 section 5.2)."""
    connection._auth_methods = [b"publickey"]


with contextlib.suppress(AttributeError):
    _AskedFirst = auth._ClientPublicKeyAuth

    class _SignedAtOnce(_AskedFirst):
        _sign = _AskedFirst._send_signed_request

        async def send_request(self, *args: bytes, key: Any = None, trivial: bool = True) -> None:
            pair = getattr(self, "_keypair", None)
            # Those that have not been tried yet, and a certificate that is tried by a second name.
            is_last = not (getattr(self._conn, "_client_keys", True) or getattr(self._conn, "_saved_rsa_key", None))
            if key is None and pair is not None and (is_last or _is_free(pair)):
                # Where it cannot sign, the server may not even want it.
                with contextlib.suppress(Exception):
                    await self._sign()
                    return
            await super().send_request(*args, key=key, trivial=trivial)

    auth._client_auth_handlers[b"publickey"] = _SignedAtOnce


def _is_free(pair: SSHKeyPair) -> bool:
    """Whether a signature takes nothing but a moment: an agent's key and one of a token may need the person."""
    return pair.get_key_type() == "local" and not pair.use_executor
