"""The submission server for the mail clients of this machine, built on aiosmtpd.

listening      starts, changes and stops                     (listen, Listening)
sockets        the listening sockets, by address             (Sockets, AddressTaken, CannotListen)
activation     sockets that a service manager has opened
submission     one client's connection: octets in, commands run
connection     one client's connection: its phase, and replies out
commands       EHLO to QUIT, as methods of aiosmtpd's SMTP class
first_step     runs a command without a task as long as it does not wait
server_state   shared by all connections                     (IntakePort: what the package needs of others)
reception      one content between the socket and the spool  (Incoming: what it needs of others)
content        the octets between DATA and the lone dot      replies       the listener's own replies, and their encoding
transaction    MAIL and RCPT, checked                        parameters    the ESMTP parameters of MAIL and RCPT
access         which accounts may connect                    peer_account  asks the kernel for the owner of a socket
command_line   tells a command from an error and from another protocol
forwarding     [[forward]]: no mail, but the same access     (OpenStream: what it needs of others)
"""
