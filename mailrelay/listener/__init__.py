"""Mail comes in: a submission server for the mail clients of this machine, on aiosmtpd.

listening      opens the sockets, begins and ends           (listen, Listening)
sockets        all of an address or nothing                 (AddressTaken, CannotListen)
submission     one client's connection: lines in, replies out
commands       EHLO to QUIT, as aiosmtpd's SMTP class has them
server_state   what all connections have in common          (Intake: what the package needs of others)
reception      one content between the socket and the spool (Incoming: what it needs of others)
content        the octets between DATA and the lone dot     replies       what is said, and how it is written
transaction    MAIL and RCPT, checked                       parameters    what may follow an address
access         who may connect                              peer_account  the owner of a socket, asked of the kernel
forwarding     [[forward]]: no mail, but the same access    (Way: what it needs of others)
"""
