"""Mail goes out.

    scheduler       when to dial, and how many conversations to hold   plan            the decisions of the scheduler (pure)
    connector       the connection                                     dial_policy     when to dial again (pure)
    fault           why the relayhost cannot be used                   doubt           whether a connection still works
    conversations   opens conversations, judges their ends             jobs            messages and probes for them
    delivery        runs one conversation                              rounds          recipients of the next transaction
    claims          takes due messages out of the spool                waiters         clients that wait for a result
    results         records what became of them                        fallback        which relayhosts send for another one
    reach           whether the relayhost can be reached

`listener`, `spool`, `network` and `notify` are not imported here: what is needed of them comes in as Protocols of a few
methods. Of `ssh` only `interface` is imported.
"""
