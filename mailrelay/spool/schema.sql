-- The spool. Times are epoch seconds. Addresses and replies are BLOBs: bytes from outside, as they came.
-- A checksum is null in rows of formats before 5 only (checksums.py). `scheduled` is when the time beside it was set: it shows
-- what a wrong clock has set (clock.py); null in rows of formats before 5.
-- The CHECKs repeat the states of mail/states.py and what each state requires (mail/lifecycle.py).

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
  size         INTEGER NOT NULL CHECK (size >= 0),  -- octets of content
  subject      TEXT    NOT NULL,
  attempts     INTEGER NOT NULL DEFAULT 0 CHECK (attempts >= 0),
  next_attempt REAL,                             -- null while an attempt is open, and when nothing is left to try
  retired      REAL,                             -- when no recipient needed the daemon or the person any more; null before
  bare_header  INTEGER NOT NULL DEFAULT 0 CHECK (bare_header IN (0, 1)),  -- its header has addresses to be completed
  scheduled    REAL,                             -- when next_attempt was set
  checksum     BLOB,                             -- of what is sent, and the number of recipients
  send_time    REAL,                             -- not sent before (mail/send_time.py); its age counts from it. Null: at once
  by_clock     INTEGER NOT NULL DEFAULT 0 CHECK (by_clock IN (0, 1)),  -- send_time stays when the clock is set
  fallback_for TEXT    NOT NULL DEFAULT '',      -- the relayhost in whose place `relayhost` has taken it (fallback.py)
  owner        INTEGER                           -- uid of the account that submitted it; null for the spool's own account
) STRICT;

-- Due messages: untried before tried, then small before large, then the longest due. Each of the four combinations of
-- untried or tried and small or large is one range of this index.
CREATE INDEX message_due ON message (relayhost, attempts > 0, size > 65536, next_attempt) WHERE next_attempt IS NOT NULL;
CREATE INDEX message_waiting ON message (coalesce(send_time, arrival)) WHERE next_attempt IS NOT NULL;
CREATE INDEX message_fallback ON message (relayhost) WHERE fallback_for <> '' AND next_attempt IS NOT NULL;
CREATE INDEX message_live ON message (id) WHERE retired IS NULL;
CREATE INDEX message_retired ON message (retired) WHERE retired IS NOT NULL;

-- Content has a table of its own, so that a listing does not read it, and is stored in pieces, so that a large message is
-- never in memory as a whole. `message` is the id of a message, or of an incoming one: hence no foreign key.
CREATE TABLE content (
  message INTEGER NOT NULL,
  seq     INTEGER NOT NULL,
  data    BLOB    NOT NULL,
  checksum BLOB,
  PRIMARY KEY (message, seq)
) STRICT;

CREATE TRIGGER content_of_message AFTER DELETE ON message BEGIN
  DELETE FROM content WHERE message = old.id;
END;

-- The reserved ids of messages whose content a client is still sending. Rows that a crash leaves are removed at the next
-- start, with their content.
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
  description BLOB  NOT NULL DEFAULT x'',        -- the reply, or our own text
  remote    INTEGER NOT NULL DEFAULT 0 CHECK (remote IN (0, 1)),  -- whether `description` is a reply of the mail server
  uncertain REAL,                                -- when the first attempt ended that may have delivered it
  changed   REAL    NOT NULL,
  successor TEXT    NOT NULL DEFAULT '',         -- queue id of the message that replaces this one for the recipient
  checksum  BLOB,                                -- of what is sent
  CHECK (successor = '' OR state = 'cancelled'),
  CHECK (state <> 'sent' OR (remote = 1 AND stage = 'content')),
  CHECK (state <> 'refused' OR remote = 1),
  CHECK (state <> 'bounced' OR remote = 1 OR length(description) > 0),
  CHECK (state NOT IN ('deferred', 'expired') OR stage <> '')
) STRICT;

CREATE INDEX recipient_of_message ON recipient (message);
CREATE INDEX recipient_live ON recipient (state) WHERE state IN ('queued', 'deferred', 'held', 'bounced', 'expired');

-- An attempt has a row here from before it begins. A message with an open row (`closed` is null) is active.
CREATE TABLE attempt (
  id          INTEGER PRIMARY KEY,
  message     INTEGER NOT NULL REFERENCES message ON DELETE CASCADE,
  node        TEXT    NOT NULL,                  -- node id of the daemon that opened it, new at each start
  opened      REAL    NOT NULL,
  closed      REAL,
  interrupted INTEGER NOT NULL DEFAULT 0 CHECK (interrupted IN (0, 1)),
  dialled     REAL    NOT NULL DEFAULT 0,        -- seconds to dial the relayhost; 0 if the connection was open
  transacted  REAL    NOT NULL DEFAULT 0,        -- seconds of the mail transaction
  relayhost   TEXT    NOT NULL DEFAULT ''        -- by which it was made; '' in rows of formats before 7
) STRICT;

CREATE UNIQUE INDEX attempt_open ON attempt (message) WHERE closed IS NULL;
CREATE INDEX attempt_of_message ON attempt (message);

-- Where the replies to an attempt stand in the record that the relayhost keeps of the conversation (exchanges.py). Rows of
-- attempts that have ended: their replies were not read.
CREATE TABLE exchange (
  attempt    INTEGER PRIMARY KEY REFERENCES attempt ON DELETE CASCADE,
  token      TEXT    NOT NULL CHECK (length(token) = 32),
  first      INTEGER NOT NULL CHECK (first >= 0),  -- replies before the one to MAIL
  recipients TEXT    NOT NULL,                   -- keys, in the order of RCPT
  has_data   INTEGER NOT NULL CHECK (has_data IN (0, 1)),
  relays_dsn INTEGER NOT NULL CHECK (relays_dsn IN (0, 1)),
  held       REAL                                -- until then the record is being read, and the message is not due
) STRICT;

-- Recipients that are followed on the relayhost after they were sent, and what was found of them there (followed.py).
CREATE TABLE followed (
  recipient    INTEGER PRIMARY KEY REFERENCES recipient ON DELETE CASCADE,
  relayhost    TEXT NOT NULL,                    -- by which it was sent
  accepted     REAL NOT NULL,                    -- when the mail server replied to the content
  state        TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN
                 ('waiting', 'deferred', 'delivered', 'bounced', 'left', 'left unwatched', 'not followed')),
  source       TEXT NOT NULL DEFAULT '' CHECK (source IN ('', 'queue', 'log', 'report')),
  words        BLOB NOT NULL DEFAULT x'',
  said_by      BLOB NOT NULL DEFAULT x'',        -- the server whose words these are
  since        REAL,                             -- as the mail server says, by our clock; null if it does not
  changed      REAL NOT NULL,                    -- when `state` was last changed
  over         REAL,                             -- when nobody asked about it any more; null while it is followed
  is_blind     INTEGER NOT NULL DEFAULT 0 CHECK (is_blind IN (0, 1)),  -- no bounce could be seen: no content is kept
  dealt_with   REAL,                             -- when the person dealt with its bounce
  successor    TEXT NOT NULL DEFAULT '',         -- queue id of the message that replaces this one for it
  retry_wanted REAL,                             -- when the person asked that the mail server try again; null once that was told
  retry_text   TEXT NOT NULL DEFAULT '',         -- what the mail server was told, or why not
  CHECK (dealt_with IS NULL OR over IS NOT NULL),
  CHECK (successor = '' OR dealt_with IS NOT NULL)
) STRICT;

CREATE INDEX followed_open ON followed (relayhost, accepted) WHERE over IS NULL;
CREATE INDEX followed_retry ON followed (relayhost) WHERE retry_wanted IS NOT NULL;
-- Those that need the person.
CREATE INDEX followed_bounced ON followed (recipient) WHERE state = 'bounced' AND dealt_with IS NULL;
CREATE INDEX followed_deferred ON followed (relayhost, accepted) WHERE state = 'deferred' AND over IS NULL;

-- The outcome of each attempt for each recipient.
CREATE TABLE outcome (
  attempt   INTEGER NOT NULL REFERENCES attempt ON DELETE CASCADE,
  recipient INTEGER NOT NULL REFERENCES recipient ON DELETE CASCADE,
  state     TEXT    NOT NULL,
  status    TEXT    NOT NULL,
  stage     TEXT    NOT NULL,
  description     BLOB    NOT NULL,
  PRIMARY KEY (attempt, recipient)
) STRICT, WITHOUT ROWID;

CREATE INDEX outcome_of_recipient ON outcome (recipient);

-- Addresses that mail was sent to before, to find mistyped ones. Only the latest are kept, see correspondents.py.
CREATE TABLE correspondent (
  address BLOB    PRIMARY KEY CHECK (length(address) > 0),  -- with its domain in lower case
  domain  BLOB    NOT NULL,
  times   INTEGER NOT NULL DEFAULT 1 CHECK (times > 0),
  last    REAL    NOT NULL
) STRICT, WITHOUT ROWID;

CREATE INDEX correspondent_of_domain ON correspondent (domain);
CREATE INDEX correspondent_last ON correspondent (last);

-- The state of the relayhosts. No row, or failures = 0: no fault is known.
CREATE TABLE relayhost (
  name      TEXT    PRIMARY KEY,
  failures  INTEGER NOT NULL CHECK (failures >= 0),
  since     REAL,                                -- of the first failure in a row
  next_dial REAL,
  setup     INTEGER NOT NULL DEFAULT 0 CHECK (setup IN (0, 1)),  -- a setup fault
  cause     TEXT    NOT NULL DEFAULT '',
  text      TEXT    NOT NULL DEFAULT '',
  fix       TEXT    NOT NULL DEFAULT '',
  fixed     REAL,                                -- when the latest setup fault ended
  scheduled REAL,                                -- when next_dial was set
  recording  TEXT NOT NULL DEFAULT '' CHECK (recording IN ('', 'possible', 'impossible')),  -- mail.recorded.RecordingState
  next_trial REAL NOT NULL DEFAULT 0,            -- when to find out again whether it records
  stand_in   TEXT NOT NULL DEFAULT '',           -- the fallback that sends its mail during its fault; '' for none
  CHECK ((failures = 0) = (next_dial IS NULL)),
  CHECK ((failures = 0) = (since IS NULL))
) STRICT, WITHOUT ROWID;

-- Notices, written in the commit that records their reason.
CREATE TABLE notice (
  id        INTEGER PRIMARY KEY,
  kind      TEXT    NOT NULL CHECK (kind IN ('failed', 'held', 'setup', 'delayed', 'resumed', 'relayed')),
  relayhost TEXT    NOT NULL,
  cause     TEXT    NOT NULL DEFAULT '',
  text      TEXT    NOT NULL DEFAULT '',
  fix       TEXT    NOT NULL DEFAULT '',
  message   INTEGER REFERENCES message ON DELETE CASCADE,
  created   REAL    NOT NULL,
  over      REAL,                                -- when it was closed or cancelled
  since     REAL    NOT NULL DEFAULT 0,          -- the earliest arrival of the messages that the fault or delay concerns
  waiting   INTEGER NOT NULL DEFAULT 0,          -- the number of these messages
  repeats   INTEGER NOT NULL DEFAULT 0,
  reminder  REAL,                                -- when an open notice is repeated; null if it is not open
  CHECK ((kind IN ('setup', 'delayed', 'resumed')) = (message IS NULL)),
  CHECK ((kind IN ('setup', 'delayed') AND over IS NULL) = (reminder IS NOT NULL))
) STRICT;

-- One open notice for one cause, however many messages it concerns.
CREATE UNIQUE INDEX notice_open ON notice (kind, relayhost, cause) WHERE reminder IS NOT NULL;
CREATE INDEX notice_of_message ON notice (message);

CREATE TABLE notice_recipient (
  notice    INTEGER NOT NULL REFERENCES notice ON DELETE CASCADE,
  recipient INTEGER NOT NULL REFERENCES recipient ON DELETE CASCADE,
  PRIMARY KEY (notice, recipient)
) STRICT, WITHOUT ROWID;

CREATE INDEX notice_recipient_of_recipient ON notice_recipient (recipient);

-- A notice is pending for a backend while `delivered` is null and the notice is not over.
CREATE TABLE notice_backend (
  notice    INTEGER NOT NULL REFERENCES notice ON DELETE CASCADE,
  backend   TEXT    NOT NULL CHECK (backend IN ('desktop', 'dsn', 'mailbox', 'command', 'urls')),
  delivered REAL,
  tries     INTEGER NOT NULL DEFAULT 0,
  next_try  REAL    NOT NULL,
  why       TEXT    NOT NULL DEFAULT '',         -- why the last try failed
  scheduled REAL,                                -- when next_try was set
  PRIMARY KEY (notice, backend)
) STRICT, WITHOUT ROWID;

CREATE INDEX notice_backend_pending ON notice_backend (backend, next_try) WHERE delivered IS NULL;
