"""Mail goes out.

    scheduler       when to dial, and how many conversations to hold   plan            the decisions of the scheduler (pure)
    connector       the connection, and the known fault                dial_policy     when to dial again (pure)
    conversations   opens conversations, judges their ends             doubt           whether a connection still works
    delivery        runs one conversation                              jobs            messages and probes for it
    claims          takes due messages out of the spool                rounds          recipients of the next transaction
    results         records what became of them                        waiters         clients that wait for a result

`listener`, `spool`, `network` and `notify` are not imported here: what is needed of them comes in as Protocols of a few
methods. Of `ssh` only `interface` is imported.
"""
