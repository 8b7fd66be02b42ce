"""`mailrelay web`: a local page in the browser to mend refused mail, and to see the queue and each message.

    server.py        listens on 127.0.0.1, opens the browser, ends the page when it has no reader
    entry.py         the one-time token
    guard.py         who may use the page: Host, Origin, cookie, form token, headers
    same_account.py  asks the kernel for the owner of a connection
    app.py           the routes; site.py has what they share
    messages.py      the queue, and the form that changes many messages
    message.py       one message, and the form that mends it
    forms.py         reads the fields of a form or of a query
    views.py         messages, recipients and filters as the templates show them
    standing.py      the status in one sentence, and the problems
    mend_form.py     the fields of the form that mends a message; editing.py changes the content
    content.py       text, HTML and attachments of a message
    story.py         the picture of the time of one message; days.py: of the last days
    progress.py      the progress of the messages that are being sent
    templates/       Jinja2, with autoescape; static/: one style sheet and one script

The page is a process of its own. It reads and changes the spool through `control`, as the commands do, with or without a
daemon.

Promises: nothing is loaded from other hosts; every action is a form that works without script; no other account of this
computer (on Linux) and no other web site reads or changes anything.
"""
