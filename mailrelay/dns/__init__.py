"""DNS records that concern mail and SSH hosts. The only package that imports dnspython, in `resolver`.

    lookup.py     the interface of a DNS query, and its result   resolver.py   the implementation, with dnspython
    spf.py        whether an address may send for a domain       dmarc.py      the policy for mail that fails authentication
    sshfp.py      host keys that a domain publishes              reverse.py    the names of an address, and blacklists

All modules but `resolver` are pure: they query the DNS through a `LookUp`, a function that a test can replace.
"""
