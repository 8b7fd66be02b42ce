"""What the kernel tells of network and clock: addresses and routes that come and go, sleep, a clock that was set.

`monitor` listens, `rtnetlink` reads the kernel's messages (pure), `events` are the values that others get.
"""
