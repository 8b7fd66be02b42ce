"""The client's half of SMTP: replies of the mail server in, commands and content out, an outcome for every recipient.

Pure: no I/O, no clock, no randomness, no logging. The caller carries the bytes and watches the time. All decisions about a
conversation are made here, and can be tested without a socket.

    session      which command is sent next, and what the replies mean for which recipient (RFC 5321, 2920, 3030)
    opening      the greeting, and the replies to EHLO and HELO
    flight       what is sent together, and how many messages at once
    events       what a session reports to its caller
    transaction  what a session keeps of each message
    command      MAIL and RCPT as octets, safe against a second command in an argument
    extensions   the extensions that the mail server offers
    refused      refusals of mailrelay itself, or of an extension that was offered
    reply        the parser of replies, bounded
    content      dots and line ends
"""
