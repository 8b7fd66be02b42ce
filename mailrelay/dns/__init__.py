"""What the DNS says of mail and of hosts. The only room that imports dnspython, in one file.

    answer.py     what a question is, and an answer        resolver.py   asks, through dnspython
    spf.py        may this address send for that domain    dmarc.py      what a domain asks to be done with mail that fails
    sshfp.py      host keys that a domain publishes        reverse.py    the name of an address, and blacklists

All but `resolver` is pure: it asks through a `LookUp`, a function that each test can write.
"""
