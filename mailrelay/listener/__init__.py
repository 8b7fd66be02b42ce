"""Mail comes in: a submission server for the mail clients of this machine.

listening    opens the sockets, begins and ends           (listen, Listening)
sockets      all of an address or nothing                 (AddressTaken, CannotListen)
submission   one client's dialogue
shared       what all dialogues have in common            (Intake: what the room needs of others)
transaction  MAIL and RCPT, checked                       parameters  what may follow an address
content      the octets between DATA and the lone dot     replies     what is said, and how it is written
forwarding   [[forward]]: no mail, but the same door   (Way: what it needs of others)
door         who may come in                              owner       whose a socket is, asked of the kernel
"""
