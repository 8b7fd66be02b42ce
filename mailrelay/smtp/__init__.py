"""The client's half of SMTP: the remote's bytes in, ours out, and what became of every recipient.

Pure: no I/O, no clock, no randomness, no logging. Whoever owns the wire carries the bytes and watches the time;
everything that can be known about a conversation is decided here, and can be tested without a socket.

    session      what to say next, and what the answers mean for whom (RFC 5321, 2920, 3030)
    transaction  what a session keeps of each message on its way
    command      MAIL and RCPT as octets; nothing that could be read as a second command leaves here
    extensions   what the remote offers
    reply        the remote's replies, bounded
    content      dots and line ends
"""
