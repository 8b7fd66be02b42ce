-- The spool. Times are epoch seconds. Addresses and the remote's words are BLOBs: bytes from outside, as they came.
-- The CHECKs repeat mail/lifecycle.py: a state that the table of states does not allow cannot be written.

CREATE TABLE message (
  id           INTEGER PRIMARY KEY,
  queue_id     TEXT    NOT NULL UNIQUE CHECK (length(queue_id) >= 8),
  arrival      REAL    NOT NULL,
  relayhost    TEXT    NOT NULL,
  sender       BLOB    NOT NULL,                 -- the reverse path; empty for <>
  body         TEXT    NOT NULL CHECK (body IN ('7BIT', '8BITMIME')),
  smtputf8     INTEGER NOT NULL CHECK (smtputf8 IN (0, 1)),
  ret          TEXT    NOT NULL CHECK (ret IN ('', 'FULL', 'HDRS')),
  envid        BLOB    NOT NULL,
  size         INTEGER NOT NULL CHECK (size >= 0),
  subject      TEXT    NOT NULL,
  attempts     INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  next_attempt REAL,                             -- null while an attempt is open, and when nothing is left to try
  retired      REAL                              -- null while a recipient is open or failed
) STRICT;

-- What is due: untried before tried, small before large, then by age; each of the four runs is one range of this index.
CREATE INDEX message_due ON message (relayhost, attempts > 0, size > 65536, next_attempt) WHERE next_attempt IS NOT NULL;
CREATE INDEX message_waiting ON message (arrival) WHERE next_attempt IS NOT NULL;
CREATE INDEX message_live ON message (id) WHERE retired IS NULL;
CREATE INDEX message_retired ON message (retired) WHERE retired IS NOT NULL;

-- Content lies apart, in pieces, so that neither a listing nor a large message costs more than it must.
-- `message` is the id of a message, or one that an incoming message has reserved: hence no foreign key.
CREATE TABLE content (
  message INTEGER NOT NULL,
  seq     INTEGER NOT NULL,
  data    BLOB    NOT NULL,
  PRIMARY KEY (message, seq)
) STRICT;

CREATE TRIGGER content_of_message AFTER DELETE ON message BEGIN
  DELETE FROM content WHERE message = old.id;
END;

-- Messages whose content a client is still sending: the ids that they reserve. What a crash leaves here is removed at the
-- next start.
CREATE TABLE incoming (
  message INTEGER PRIMARY KEY
) STRICT;

CREATE TABLE recipient (
  id        INTEGER PRIMARY KEY,
  message   INTEGER NOT NULL REFERENCES message ON DELETE CASCADE,
  address   BLOB    NOT NULL CHECK (length(address) > 0),
  notify    BLOB    NOT NULL,
  orcpt     BLOB    NOT NULL,
  state     TEXT    NOT NULL CHECK (state IN
              ('queued', 'deferred', 'held', 'sent', 'bounced', 'refused', 'expired', 'cancelled')),
  status    TEXT    NOT NULL DEFAULT '',         -- enhanced status code
  stage     TEXT    NOT NULL DEFAULT '',
  words     BLOB    NOT NULL DEFAULT x'',
  remote    INTEGER NOT NULL DEFAULT 0 CHECK (remote IN (0, 1)),  -- the words are the remote's own
  uncertain REAL,                                -- when an attempt ended that may have delivered it all the same
  changed   REAL    NOT NULL,
  successor TEXT    NOT NULL DEFAULT '',         -- queue id of the message that took this one's place for the recipient
  CHECK (successor = '' OR state = 'cancelled'),
  CHECK (state <> 'sent' OR (remote = 1 AND stage = 'content')),
  CHECK (state NOT IN ('bounced', 'refused') OR remote = 1),
  CHECK (state NOT IN ('deferred', 'expired') OR stage <> '')
) STRICT;

CREATE INDEX recipient_of_message ON recipient (message);
CREATE INDEX recipient_live ON recipient (state) WHERE state IN ('queued', 'deferred', 'held', 'bounced', 'expired');

-- No attempt is made unrecorded: an open row is what "active" means.
CREATE TABLE attempt (
  id          INTEGER PRIMARY KEY,
  message     INTEGER NOT NULL REFERENCES message ON DELETE CASCADE,
  node        TEXT    NOT NULL,                  -- the start of a daemon that opened it
  opened      REAL    NOT NULL,
  closed      REAL,
  interrupted INTEGER NOT NULL DEFAULT 0 CHECK (interrupted IN (0, 1)),
  dialled     REAL    NOT NULL DEFAULT 0,
  transacted  REAL    NOT NULL DEFAULT 0
) STRICT;

CREATE UNIQUE INDEX attempt_open ON attempt (message) WHERE closed IS NULL;
CREATE INDEX attempt_of_message ON attempt (message);

-- What an attempt made of each recipient: the message's own story.
CREATE TABLE outcome (
  attempt   INTEGER NOT NULL REFERENCES attempt ON DELETE CASCADE,
  recipient INTEGER NOT NULL REFERENCES recipient ON DELETE CASCADE,
  state     TEXT    NOT NULL,
  status    TEXT    NOT NULL,
  stage     TEXT    NOT NULL,
  words     BLOB    NOT NULL,
  PRIMARY KEY (attempt, recipient)
) STRICT, WITHOUT ROWID;

CREATE INDEX outcome_of_recipient ON outcome (recipient);

-- Who has been reached before: what a mistyped address is held against. Not for ever, see correspondents.py.
CREATE TABLE correspondent (
  address BLOB    PRIMARY KEY CHECK (length(address) > 0),  -- its domain in lower case
  domain  BLOB    NOT NULL,
  times   INTEGER NOT NULL DEFAULT 1 CHECK (times > 0),
  last    REAL    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX correspondent_of_domain ON correspondent (domain);
CREATE INDEX correspondent_last ON correspondent (last);

-- How the way to a relayhost stands. No row, or failures = 0: nothing is known to be wrong.
CREATE TABLE relayhost (
  name      TEXT    PRIMARY KEY,
  failures  INTEGER NOT NULL CHECK (failures >= 0),
  since     REAL,                                -- of the first failure in a row
  next_dial REAL,
  setup     INTEGER NOT NULL DEFAULT 0 CHECK (setup IN (0, 1)),  -- waits for the person
  cause     TEXT    NOT NULL DEFAULT '',
  text      TEXT    NOT NULL DEFAULT '',
  fix       TEXT    NOT NULL DEFAULT '',
  fixed     REAL,                                -- when the latest fault for the person ended
  CHECK ((failures = 0) = (next_dial IS NULL)),
  CHECK ((failures = 0) = (since IS NULL))
) STRICT, WITHOUT ROWID;

-- What the person is owed. Written in the commit that records the reason.
CREATE TABLE notice (
  id        INTEGER PRIMARY KEY,
  kind      TEXT    NOT NULL CHECK (kind IN ('failed', 'held', 'setup', 'delayed', 'resumed', 'relayed')),
  relayhost TEXT    NOT NULL,
  cause     TEXT    NOT NULL DEFAULT '',
  text      TEXT    NOT NULL DEFAULT '',
  fix       TEXT    NOT NULL DEFAULT '',
  message   INTEGER REFERENCES message ON DELETE CASCADE,
  created   REAL    NOT NULL,
  over      REAL,                                -- a setup fault or a delay: when it ended
  since     REAL    NOT NULL DEFAULT 0,          -- the arrival of the mail that waits longest for it
  waiting   INTEGER NOT NULL DEFAULT 0,          -- how many messages wait for it
  repeats   INTEGER NOT NULL DEFAULT 0,
  reminder  REAL,                                -- when it is to be told again
  CHECK ((kind IN ('setup', 'delayed', 'resumed')) = (message IS NULL)),
  CHECK ((kind IN ('setup', 'delayed') AND over IS NULL) = (reminder IS NOT NULL))
) STRICT;

-- One notice for one cause, however many mails wait for it.
CREATE UNIQUE INDEX notice_standing ON notice (kind, relayhost, cause) WHERE reminder IS NOT NULL;
CREATE INDEX notice_of_message ON notice (message);

CREATE TABLE notice_recipient (
  notice    INTEGER NOT NULL REFERENCES notice ON DELETE CASCADE,
  recipient INTEGER NOT NULL REFERENCES recipient ON DELETE CASCADE,
  PRIMARY KEY (notice, recipient)
) STRICT, WITHOUT ROWID;

CREATE INDEX notice_recipient_of_recipient ON notice_recipient (recipient);

CREATE TABLE notice_backend (
  notice   INTEGER NOT NULL REFERENCES notice ON DELETE CASCADE,
  backend  TEXT    NOT NULL CHECK (backend IN ('desktop', 'dsn', 'mailbox', 'command', 'urls')),
  told     REAL,
  tries    INTEGER NOT NULL DEFAULT 0,
  next_try REAL    NOT NULL,
  why      TEXT    NOT NULL DEFAULT '',          -- why the last try failed
  PRIMARY KEY (notice, backend)
) STRICT, WITHOUT ROWID;

CREATE INDEX notice_backend_owed ON notice_backend (backend, next_try) WHERE told IS NULL;
