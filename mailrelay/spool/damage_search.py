"""Runs the search for damage (`inspection`) while the spool does its other work."""

import asyncio
import contextlib
from pathlib import Path

import apsw

from mailrelay.spool import inspection
from mailrelay.spool.database import connect, keep_log, translate


async def find_damage(directory: Path) -> list[str]:
    """`inspection.findings` of the spool in `directory`, on a connection and a thread of its own.

    Other work does not wait for it. Cancelling it ends the search. Raises SpoolError.
    """
    db = connect(directory, create=False)
    keep_log(db)

    def find() -> list[str]:
        try:
            return inspection.findings(db)
        except apsw.InterruptError:
            return []
        finally:
            db.close()

    search = asyncio.get_running_loop().run_in_executor(None, find)
    try:
        return await asyncio.shield(search)
    except asyncio.CancelledError:
        while not search.done():
            # Repeated, because an interrupt before the search begins has no effect.
            with contextlib.suppress(apsw.ConnectionClosedError):
                db.interrupt()
            await asyncio.wait((search,), timeout=0.1)
        raise
    except apsw.Error as error:
        raise translate(error) from None
