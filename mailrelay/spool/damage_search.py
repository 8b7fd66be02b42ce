"""Runs the search for damage (`inspection`) beside the other work of the spool."""

import asyncio
import contextlib
from pathlib import Path

import apsw

from mailrelay.spool import inspection
from mailrelay.spool.database import connect, keep_log, translate


async def find_damage(directory: Path) -> list[str]:
    """`inspection.findings` of the spool in `directory`, on a connection and a thread of its own: it holds up nothing.

    Cancelling it ends the search. Raises SpoolError.
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

    finding = asyncio.get_running_loop().run_in_executor(None, find)
    try:
        return await asyncio.shield(finding)
    except asyncio.CancelledError:
        while not finding.done():
            # Again and again: an interrupt that comes before the search begins has no effect.
            with contextlib.suppress(apsw.ConnectionClosedError):
                db.interrupt()
            await asyncio.wait((finding,), timeout=0.1)
        raise
    except apsw.Error as error:
        raise translate(error) from None
