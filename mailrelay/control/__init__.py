"""What the person can do to the queue and see of it, without a terminal. `cli` prints what these functions return.

    listing.py       the messages of the queue               acts.py         retry, hold, release, cancel, drop
    records.py       messages as JSON records                enqueue.py      puts a message in the spool
    details.py       one message: timeline, content          replacement.py  replaces a message by another one
    following.py     one message, until it is settled        status.py       fine, late or failed, and why
    daemon.py        does it run; wakes, reloads it          errors.py       what these functions raise
    log_file.py      lines of commands in the log
    client_file.py   where the system's mailrelay is        system.py      asks it, in place of a spool
    system_answers.py  its answers                          wire.py        values as JSON
    terms.py         its settings, for `sendmail`

All functions work while the daemon does not run. Each change is one commit, and wakes the daemon afterwards. Settings, ids
and messages are arguments; nothing here prints, asks, or ends the process. SQL stays in `spool`.

Never: asyncio, SSH, or anything else that is slow to import.
"""
