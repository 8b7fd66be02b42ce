"""mailrelay: a local SMTP submission proxy. It hands mail to the person's own server through SSH, and reports every failure.

    mail client ──SMTP──▶ listener ──▶ intake ──accept──▶ spool ──due──▶ relay ──▶ ssh ──channel──▶ the mail server
                                         ▲                  ▲              │ smtp.session: the SMTP commands
                                         └───── result ─────┴─── record ───┘ mail.triage, mail.lifecycle: the new states
                                                          spool ──pending notices──▶ notify ──▶ the person

Three promises: a 250 follows the fsync of the message; a recipient is `sent` only when the mail server's 2xx reply to the
content has been read; no fault of this computer, the network or the settings makes a message bounce.

    mail      messages, states, outcomes, notices (pure)       daemon    starts and stops the parts; signals
    smtp      the client side of SMTP (pure)                   intake    takes over messages from the listener
    listener  receives mail from clients                       ports     what the parts may ask of the spool
    spool     the durable store; all SQL                       config    settings
    relay     decides when to dial and sends mail              control   actions of the person, for commands
    ssh       the SSH connection to a relayhost                cli       commands
    network   changes of the network and the clock             setup     writes settings, service unit and keys
    notify    delivers notices to the person                   check     examines the setup, sends nothing
    dns       looks up DNS records                             demo      an SSH and mail server, to try mailrelay
    tracking  what became of mail on the relayhost (pure)
    lazy      loads modules when they are first needed         submission  the settings about bare addresses
    parts     builds the parts, and changes them at a reload   idle      the end of a daemon without work
    page      a local page for the person (`mailrelay web`)

`mail`, `smtp` and `tracking` do no I/O. `listener`, `spool`, `relay`, `ssh`, `network` and `notify` do not import each
other, but for the values of `ssh.interface`, which `relay` uses. `parts` connects them.
"""

__version__ = "0.1.0"
