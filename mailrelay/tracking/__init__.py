"""What has become of a message on the relayhost, after the mail server's 250: readers of what may be seen there.

Pure: no I/O, no clock, no randomness, no logging. The caller asks the questions over SSH and watches the time. Every text
read here was written by others: it is bounded, a malformed text raises nothing, and no words of a recipient or of another
mail server count as a line of a log, as an entry of a queue or as a state.

    queue_id    the queue id that the mail server names in its 250
    sighting    one thing seen of one recipient, and which of our recipients it is about
    listing     the queue of sendmail, Postfix or Exim
    server_log  lines of the logs of sendmail, Postfix, Exim and OpenSMTPD
    report      delivery reports (RFC 3464) in a mailbox there
    verdict     the state of a recipient there, from all that was seen
    schedule    when to ask next
    question    a question to the relayhost, and its answer
    followed    the recipients that are followed, and what was found of them
"""
