"""mailrelay: a local SMTP submission proxy that hands mail to your own server through SSH, and fails nothing in silence.

    mail client ──SMTP──▶ listener ──accept──▶ spool ──due──▶ relay ──SSH channel──▶ the server's own localhost:25
                             ▲ 250, or the       ▲ record       │ smtp.session: what to say
                             └ remote's word ────┴──────────────┘ mail.triage, mail.lifecycle: what it means
                                                 spool ──owed──▶ notify ──▶ the person

Three promises: a 250 follows the fsync of the message; a recipient is `sent` only when the remote's 2xx to the content
has been read; no fault of ours ever bounces a mail.

    mail      what a message is and what becomes of it (pure)      relay     mail goes out: schedule, deliver, dial
    smtp      the client's half of SMTP (pure)                     notify    the person hears
    listener  mail comes in                                        cli       the person speaks
    spool     mail rests: the only durable place, all SQL          demo      an embedded remote on loopback
    config    settings                                             service   builds all of it, starts and stops it
    dns       what the DNS says of mail and of hosts               check     the doctor: goes the way, sends nothing
    setup     settings, service unit and keys, as setup wants them
    late      what the daemon loads only when it needs it

`mail` and `smtp` do no I/O. `listener`, `spool`, `relay` and `notify` never import each other: `service` introduces them.
"""

__version__ = "0.1.0"
