"""News of the kernel about the network and the clock: addresses and routes, suspend, changes of the time of day.

`monitor` listens, `rtnetlink` reads the kernel's messages (pure), `events` has the values that other packages get.
"""
