"""The submission server for the mail clients of this machine, built on aiosmtpd.

listening      opens the sockets, begins and ends           (listen, Listening)
sockets        opens all sockets of an address or none      (AddressTaken, CannotListen)
submission     one client's connection: lines in, replies out
commands       EHLO to QUIT, as aiosmtpd's SMTP class has them
server_state   what all connections have in common          (IntakePort: what the package needs of others)
reception      one content between the socket and the spool (Incoming: what it needs of others)
content        the octets between DATA and the lone dot     replies       what is said, and how it is written
transaction    MAIL and RCPT, checked                       parameters    what may follow an address
access         who may connect                              peer_account  asks the kernel for the owner of a socket
command_line   what a line is: a command, a mistake, no SMTP
forwarding     [[forward]]: no mail, but the same access    (Way: what it needs of others)
"""
