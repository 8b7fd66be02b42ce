-- A spool as version 6 made it from one of version 5: one message waits, with bare addresses in its header, one is sent and is
-- followed, one has failed; the relayhost waits for the person, and a content is half there. Rows of before have no checksums.

-- Table  attempt
CREATE TABLE attempt (
  id          INTEGER PRIMARY KEY,
  message     INTEGER NOT NULL REFERENCES message ON DELETE CASCADE,
  node        TEXT    NOT NULL,                  -- node id of the daemon that opened it, new at each start
  opened      REAL    NOT NULL,
  closed      REAL,
  interrupted INTEGER NOT NULL DEFAULT 0 CHECK (interrupted IN (0, 1)),
  dialled     REAL    NOT NULL DEFAULT 0,        -- seconds to dial the relayhost; 0 if the connection was open
  transacted  REAL    NOT NULL DEFAULT 0         -- seconds of the mail transaction
) STRICT;
INSERT INTO attempt VALUES(1,2,'1',1700000001.0,1700000000.0,0,0.0,0.0);
INSERT INTO attempt VALUES(2,3,'1',1700000001.0,1700000000.0,0,0.0,0.0);
-- Triggers and indices on  attempt
CREATE INDEX attempt_of_message ON attempt (message);
CREATE UNIQUE INDEX attempt_open ON attempt (message) WHERE closed IS NULL;

-- Table  content
CREATE TABLE content (
  message INTEGER NOT NULL,
  seq     INTEGER NOT NULL,
  data    BLOB    NOT NULL, checksum BLOB,
  PRIMARY KEY (message, seq)
) STRICT;
INSERT INTO content VALUES(3,0,X'52656365697665643A206279206C6F63616C686F737420286D61696C72656C61792920776974682045534D54502069642072376663766274316D683B0D0A095475652C203134204E6F7620323032332032323A31333A3230202B303030300D0A446174653A205475652C203134204E6F7620323032332032323A31333A3230202B303030300D0A4D6573736167652D49443A203C72376663766274316D682E6D61696C72656C6179406578616D706C652E6F72673E0D0A5375626A6563743A2061206C65747465720D0A0D0A68656C6C6F0D0A',NULL);
INSERT INTO content VALUES(1,0,X'5375626A6563743A2061206C65747465720D0A0D0A616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161616161',NULL);
INSERT INTO content VALUES(1,1,X'62626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262626262620D0A',NULL);
INSERT INTO content VALUES(4,0,X'68616C66206120636F6E74656E74',NULL);

-- Table  correspondent
CREATE TABLE correspondent (
  address BLOB    PRIMARY KEY CHECK (length(address) > 0),  -- with its domain in lower case
  domain  BLOB    NOT NULL,
  times   INTEGER NOT NULL DEFAULT 1 CHECK (times > 0),
  last    REAL    NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO correspondent VALUES(X'676F6E65406578616D706C652E6E6574',X'6578616D706C652E6E6574',1,1700000000.0);
-- Triggers and indices on  correspondent
CREATE INDEX correspondent_last ON correspondent (last);
CREATE INDEX correspondent_of_domain ON correspondent (domain);

-- Table  exchange
CREATE TABLE exchange (
  attempt    INTEGER PRIMARY KEY REFERENCES attempt ON DELETE CASCADE,
  token      TEXT    NOT NULL CHECK (length(token) = 32),
  first      INTEGER NOT NULL CHECK (first >= 0),
  recipients TEXT    NOT NULL,
  has_data   INTEGER NOT NULL CHECK (has_data IN (0, 1)),
  relays_dsn INTEGER NOT NULL CHECK (relays_dsn IN (0, 1))
) STRICT;

-- Table  followed
CREATE TABLE followed (
  recipient    INTEGER PRIMARY KEY REFERENCES recipient ON DELETE CASCADE,
  relayhost    TEXT NOT NULL,
  accepted     REAL NOT NULL,
  state        TEXT NOT NULL DEFAULT 'waiting' CHECK (state IN
                 ('waiting', 'deferred', 'delivered', 'bounced', 'left', 'left unwatched', 'not followed')),
  source       TEXT NOT NULL DEFAULT '' CHECK (source IN ('', 'queue', 'log', 'report')),
  words        BLOB NOT NULL DEFAULT x'',
  said_by      BLOB NOT NULL DEFAULT x'',
  since        REAL,
  changed      REAL NOT NULL,
  over         REAL,
  is_blind     INTEGER NOT NULL DEFAULT 0 CHECK (is_blind IN (0, 1)),  -- no bounce could be seen: no content is kept
  dealt_with   REAL,
  successor    TEXT NOT NULL DEFAULT '',
  retry_wanted REAL,
  retry_text   TEXT NOT NULL DEFAULT '',
  CHECK (dealt_with IS NULL OR over IS NOT NULL),
  CHECK (successor = '' OR dealt_with IS NOT NULL)
) STRICT;
INSERT INTO followed VALUES(2,'default',1700000000.0,'waiting','',X'',X'',NULL,1700000000.0,NULL,0,NULL,'',NULL,'');
-- Triggers and indices on  followed
CREATE INDEX followed_bounced ON followed (recipient) WHERE state = 'bounced' AND dealt_with IS NULL;
CREATE INDEX followed_deferred ON followed (relayhost, accepted) WHERE state = 'deferred' AND over IS NULL;
CREATE INDEX followed_open ON followed (relayhost, accepted) WHERE over IS NULL;
CREATE INDEX followed_retry ON followed (relayhost) WHERE retry_wanted IS NOT NULL;

-- Table  incoming
CREATE TABLE incoming (
  message INTEGER PRIMARY KEY
) STRICT;
INSERT INTO incoming VALUES(4);

-- Table  message
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
  retired      REAL,                             -- when no recipient was open or failed any more; null before
  bare_header  INTEGER NOT NULL DEFAULT 0 CHECK (bare_header IN (0, 1))  -- its header has addresses to be completed
, scheduled REAL, checksum BLOB) STRICT;
INSERT INTO message VALUES(1,'bxq0v1z9kd',1700000000.0,'default',X'61406578616D706C652E6F7267','7BIT',0,'',X'',522,'a letter',0,1700000000.0,NULL,1,1700000000.0,NULL);
INSERT INTO message VALUES(2,'3h8w6mpt2r',1700000000.0,'default',X'61406578616D706C652E6F7267','7BIT',0,'',X'',211,'a letter',1,NULL,1700000000.0,0,NULL,NULL);
INSERT INTO message VALUES(3,'zzyt5r0d1c',1700000000.0,'default',X'61406578616D706C652E6F7267','7BIT',0,'',X'',211,'a letter',1,NULL,NULL,0,NULL,NULL);
-- Triggers and indices on  message
CREATE TRIGGER content_of_message AFTER DELETE ON message BEGIN
  DELETE FROM content WHERE message = old.id;
END;
CREATE INDEX message_due ON message (relayhost, attempts > 0, size > 65536, next_attempt) WHERE next_attempt IS NOT NULL;
CREATE INDEX message_live ON message (id) WHERE retired IS NULL;
CREATE INDEX message_retired ON message (retired) WHERE retired IS NOT NULL;
CREATE INDEX message_waiting ON message (arrival) WHERE next_attempt IS NOT NULL;

-- Table  notice
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
INSERT INTO notice VALUES(1,'failed','default','','','',3,1700000000.0,NULL,0.0,0,0,NULL);
INSERT INTO notice VALUES(2,'setup','default','unreachable','port 25 is closed','start the mail server',NULL,1700000000.0,NULL,0.0,0,0,1700003600.0);
-- Triggers and indices on  notice
CREATE INDEX notice_of_message ON notice (message);
CREATE UNIQUE INDEX notice_open ON notice (kind, relayhost, cause) WHERE reminder IS NOT NULL;

-- Table  notice_backend
CREATE TABLE notice_backend (
  notice    INTEGER NOT NULL REFERENCES notice ON DELETE CASCADE,
  backend   TEXT    NOT NULL CHECK (backend IN ('desktop', 'dsn', 'mailbox', 'command', 'urls')),
  delivered REAL,
  tries     INTEGER NOT NULL DEFAULT 0,
  next_try  REAL    NOT NULL,
  why       TEXT    NOT NULL DEFAULT '', scheduled REAL,         -- why the last try failed
  PRIMARY KEY (notice, backend)
) STRICT, WITHOUT ROWID;
INSERT INTO notice_backend VALUES(1,'mailbox',NULL,0,1700000000.0,'',1700000000.0);
INSERT INTO notice_backend VALUES(2,'desktop',NULL,0,1700000000.0,'',1700000000.0);
INSERT INTO notice_backend VALUES(2,'mailbox',NULL,0,1700000000.0,'',1700000000.0);
-- Triggers and indices on  notice_backend
CREATE INDEX notice_backend_pending ON notice_backend (backend, next_try) WHERE delivered IS NULL;

-- Table  notice_recipient
CREATE TABLE notice_recipient (
  notice    INTEGER NOT NULL REFERENCES notice ON DELETE CASCADE,
  recipient INTEGER NOT NULL REFERENCES recipient ON DELETE CASCADE,
  PRIMARY KEY (notice, recipient)
) STRICT, WITHOUT ROWID;
INSERT INTO notice_recipient VALUES(1,3);
-- Triggers and indices on  notice_recipient
CREATE INDEX notice_recipient_of_recipient ON notice_recipient (recipient);

-- Table  outcome
CREATE TABLE outcome (
  attempt   INTEGER NOT NULL REFERENCES attempt ON DELETE CASCADE,
  recipient INTEGER NOT NULL REFERENCES recipient ON DELETE CASCADE,
  state     TEXT    NOT NULL,
  status    TEXT    NOT NULL,
  stage     TEXT    NOT NULL,
  description     BLOB    NOT NULL,
  PRIMARY KEY (attempt, recipient)
) STRICT, WITHOUT ROWID;
INSERT INTO outcome VALUES(1,2,'sent','2.0.0','content',X'32353020322E302E302074616B656E');
INSERT INTO outcome VALUES(2,3,'bounced','5.1.1','RCPT',X'35353020352E312E31206E6F20737563682075736572');
-- Triggers and indices on  outcome
CREATE INDEX outcome_of_recipient ON outcome (recipient);

-- Table  recipient
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
  uncertain REAL,                                -- when an attempt ended that may have delivered it
  changed   REAL    NOT NULL,
  successor TEXT    NOT NULL DEFAULT '', checksum BLOB,         -- queue id of the message that replaces this one for the recipient
  CHECK (successor = '' OR state = 'cancelled'),
  CHECK (state <> 'sent' OR (remote = 1 AND stage = 'content')),
  CHECK (state <> 'refused' OR remote = 1),
  CHECK (state <> 'bounced' OR remote = 1 OR length(description) > 0),
  CHECK (state NOT IN ('deferred', 'expired') OR stage <> '')
) STRICT;
INSERT INTO recipient VALUES(1,1,X'7761697473406578616D706C652E6E6574',X'',X'','queued','','',X'',0,NULL,1700000000.0,'',NULL);
INSERT INTO recipient VALUES(2,2,X'676F6E65406578616D706C652E6E6574',X'',X'','sent','2.0.0','content',X'32353020322E302E302074616B656E',1,NULL,1700000000.0,'',NULL);
INSERT INTO recipient VALUES(3,3,X'626F756E636564406578616D706C652E6E6574',X'',X'','bounced','5.1.1','RCPT',X'35353020352E312E31206E6F20737563682075736572',1,NULL,1700000000.0,'',NULL);
-- Triggers and indices on  recipient
CREATE INDEX recipient_live ON recipient (state) WHERE state IN ('queued', 'deferred', 'held', 'bounced', 'expired');
CREATE INDEX recipient_of_message ON recipient (message);

-- Table  relayhost
CREATE TABLE relayhost (
  name      TEXT    PRIMARY KEY,
  failures  INTEGER NOT NULL CHECK (failures >= 0),
  since     REAL,                                -- of the first failure in a row
  next_dial REAL,
  setup     INTEGER NOT NULL DEFAULT 0 CHECK (setup IN (0, 1)),  -- a setup fault
  cause     TEXT    NOT NULL DEFAULT '',
  text      TEXT    NOT NULL DEFAULT '',
  fix       TEXT    NOT NULL DEFAULT '',
  fixed     REAL, scheduled REAL, recording TEXT NOT NULL DEFAULT '' CHECK (recording IN ('', 'possible', 'impossible')), next_trial REAL NOT NULL DEFAULT 0,                                -- when the latest setup fault ended
  CHECK ((failures = 0) = (next_dial IS NULL)),
  CHECK ((failures = 0) = (since IS NULL))
) STRICT, WITHOUT ROWID;
INSERT INTO relayhost VALUES('default',1,1700000000.0,1700000060.0,1,'unreachable','port 25 is closed','start the mail server',NULL,1700000000.0,'',0.0);

PRAGMA user_version = 6;
