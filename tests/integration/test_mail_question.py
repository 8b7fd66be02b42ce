"""The question about mail on a relayhost: what the queue, the log and the mailbox there say, through a real sshd."""

import asyncio
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from harness.account_there import AccountThere
from harness.mailboxes import LOGIN

from mailrelay.ssh import mail_question, remote_script
from mailrelay.ssh.interface import Fault, NotAnswered
from mailrelay.tracking.listing import Listed, NotPermitted, read_listing
from mailrelay.tracking.question import MAX_IDS, Answer, Output, Place, Question
from mailrelay.tracking.queue_id import Server
from mailrelay.tracking.report import Ours, read_reports
from mailrelay.tracking.sighting import Seen

ID = "4ABC1234567"
OTHER = "5FED1234567"
MARK = "0123456789abcdef" * 2
MESSAGE_ID = "one.message@laptop.example"
STAMP = "Nov 28 12:00:00 mx"


@pytest.fixture
def there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AccountThere]:
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    there = AccountThere(tmp_path)
    there.install("postqueue", ":")
    yield there
    there.stop()


async def ask(there: AccountThere, question: Question) -> Answer:
    async with there.connected() as connection:
        return await connection.ask(question)


def asked(place: Place | None = None, *ids: str) -> Question:
    return Question(ids or (ID,), (MESSAGE_ID,), since=time.time() - 3600, place=place)


def log_line(name: str, words: str = "250 taken") -> str:
    return (
        f"{STAMP} postfix/smtp[1]: {name}: to=<a@far.example>, relay=mx.far.example[192.0.2.1]:25, delay=1, "
        f"delays=1/0/0/0, dsn=2.0.0, status=sent ({words})\n"
    )


def report(message_id: str, recipient: str = "a@far.example", *, more: str = "") -> str:
    return (
        "From: MAILER-DAEMON\nSubject: Undelivered\n"
        'Content-Type: multipart/report;\n\treport-type=delivery-status; boundary="b"\n\n'
        "--b\nContent-Type: message/delivery-status\n\nReporting-MTA: dns; mx\n\n"
        f"Final-Recipient: rfc822; {recipient}\nAction: failed\nDiagnostic-Code: smtp; 550 no\n\n"
        f"--b\nContent-Type: text/rfc822-headers\n\nMessage-ID:\n <{message_id}>\n{more}\n--b--\n"
    )


def in_mbox(*messages: str) -> str:
    return "".join(f"From MAILER-DAEMON Sat Nov 28 12:00:00 2026\n{message}\n" for message in messages)


def recipients(answer: Answer) -> list[bytes]:
    assert answer.reports is not None
    found = read_reports(answer.reports, [Ours((ID,), message_id=MESSAGE_ID.encode())])
    assert all(one.seen is Seen.BOUNCED for one in found)
    return [one.recipient for one in found]


# The queue.


async def test_postfix_lists_our_messages_alone_and_what_a_recipient_holds_is_no_id(there: AccountThere) -> None:
    ours = f'{{"queue_name": "deferred", "queue_id": "{ID}", "recipients": [{{"address": "a@b"}}]}}'
    forged = '\\"queue_id\\": \\"' + ID + '\\"'
    others = f'{{"queue_name": "deferred", "queue_id": "{OTHER}", "recipients": [{{"address": "{forged}@b"}}]}}'
    there.install("postqueue", f"cat <<'X'\n{ours}\n{others}\nX\necho postqueue: warning: slow >&2")
    answer = await ask(there, asked())
    assert answer.server is Server.POSTFIX
    assert answer.listing == Output(f"{ours}\npostqueue: warning: slow\n".encode(), 0)
    assert answer.account == LOGIN
    assert abs(answer.seconds_ahead) < 60


async def test_a_refusal_comes_with_its_words_and_its_status(there: AccountThere) -> None:
    there.install("postqueue", "echo 'postqueue: fatal: User x(1) is not allowed to view the mail queue' >&2; exit 69")
    answer = await ask(there, asked())
    assert answer.listing is not None and answer.listing.status == 69
    assert isinstance(read_listing(answer.server, answer.listing.octets, answer.listing.status), NotPermitted)


async def test_exim_is_asked_for_our_ids_and_not_for_others_kinds(there: AccountThere) -> None:
    (there.programs / "postqueue").unlink()
    there.install("exim4", 'echo "$@"; exit 3')
    answer = await ask(there, asked(None, "1vO0Qk-0000000IYBn-2sPq", "1sWb3Y-000123-AB", ID))
    assert answer.server is Server.EXIM
    assert answer.listing == Output(b"-bp 1vO0Qk-0000000IYBn-2sPq 1sWb3Y-000123-AB\n", 3)
    assert (await ask(there, asked())).listing == Output(b"", 0)


async def test_a_queue_of_sendmail_that_may_not_be_seen_is_refused_with_status_0(there: AccountThere) -> None:
    (there.programs / "postqueue").unlink()
    there.install("sendmail", 'echo "$@" >>"$HOME/asked"; echo You are not permitted to see the queue')
    answer = await ask(there, asked(None, "5ASC000001004242", "5ASC000002004242"))
    ids = "-qI5ASC000001004242 -qI5ASC000002004242"
    assert (there.home / "asked").read_text().startswith(f"{ids} -bp -v\n")
    assert answer.server is Server.SENDMAIL
    # What is no listing of the submission queue is left out.
    assert answer.listing == Output(b"You are not permitted to see the queue\n", 0)
    assert isinstance(read_listing(answer.server, answer.listing.octets, 0), NotPermitted)


async def test_opensmtpd_says_that_only_root_may(there: AccountThere) -> None:
    (there.programs / "postqueue").unlink()
    there.install("smtpctl", "echo smtpctl: need root privileges >&2; exit 1")
    answer = await ask(there, asked())
    assert answer.server is Server.OPENSMTPD
    assert answer.listing == Output(b"smtpctl: need root privileges\n", 1)


async def test_a_command_of_the_person_lists_the_queue_as_it_stands(there: AccountThere) -> None:
    command = "printf '%s|' \"$HOME\" 'a  b' \\\\ $((6*7)); exit 5"
    answer = await ask(there, Question([ID], [], command=command))
    assert answer.server is Server.OTHER
    assert answer.listing == Output(f"{there.home}|a  b|\\|42|".encode(), 5)


async def test_the_mail_server_tries_again_what_was_asked_for(there: AccountThere) -> None:
    there.install("postqueue", '[ "$1" = -j ] || { echo "$@"; [ "$2" = ' + ID + " ] || exit 69; }")
    answer = await ask(there, Question([ID], [], retry=[ID, OTHER]))
    assert answer.retried == Output(f"-i {ID}\n-i {OTHER}\n".encode(), 69)
    assert (await ask(there, Question([ID], []))).retried is None
    (there.programs / "postqueue").unlink()
    there.install("exim", ":")
    assert (await ask(there, Question([ID], [], retry=[ID]))).retried is None


# The log.


async def test_of_the_log_only_lines_with_our_ids_come_and_later_only_new_ones(there: AccountThere) -> None:
    log = there.logs / "mail.log"
    old = log_line(OTHER) * 2000
    log.write_text(log_line(ID, "first") + old)
    first = await ask(there, asked())
    assert first.log == log_line(ID, "first").encode()
    with log.open("a") as file:
        file.write(log_line(ID, "second")[:-20])
    second = await ask(there, asked(first.place))
    assert second.log == log_line(ID, "second")[:-20].encode() + b"\n"
    with log.open("a") as file:
        file.write(log_line(ID, "second")[-20:] + old + log_line(OTHER, f"what another server says: {ID}"))
    # A line that was only half written comes whole the next time.
    third = await ask(there, asked(second.place))
    assert third.log == (log_line(ID, "second") + log_line(OTHER, f"what another server says: {ID}")).encode()
    assert (await ask(there, asked(third.place))).log == third.log.split(b"\n")[1] + b"\n"


@pytest.mark.parametrize("how", ["renamed", "copied and cut"])
async def test_a_log_that_was_rotated_is_read_to_its_end(there: AccountThere, how: str) -> None:
    log = there.logs / "mail.log"
    log.write_text(log_line(ID, "first") + log_line(OTHER) * 2000)
    first = await ask(there, asked())
    with log.open("a") as file:
        file.write(log_line(ID, "second"))
    if how == "renamed":
        log.rename(there.logs / "mail.log.1")
    else:
        shutil.copy(log, there.logs / "mail.log.1")
        os.truncate(log, 0)
    with log.open("a") as file:
        file.write(log_line(ID, "third"))
    expected = log_line(ID, "second") + log_line(ID, "third")
    second = await ask(there, asked(first.place))
    assert second.log == expected.encode()
    # Without a place, and where it is of a log that is gone: all there is.
    whole = log_line(ID, "first") + expected
    assert (await ask(there, asked())).log == whole.encode()
    assert (await ask(there, asked(Place("file 1 99999\n0 0")))).log == whole.encode()


async def test_a_log_to_which_nothing_was_written_since_is_not_the_log(there: AccountThere) -> None:
    stale, used = there.logs / "mail.log", there.logs / "maillog"
    stale.write_text(log_line(ID, "old"))
    os.utime(stale, (0, 0))
    assert (await ask(there, asked())).log == log_line(ID, "old").encode()
    used.write_text(log_line(ID, "new"))
    assert (await ask(there, asked())).log == log_line(ID, "new").encode()


async def test_exim_has_a_log_of_its_own(there: AccountThere) -> None:
    (there.programs / "postqueue").unlink()
    there.install("exim4", ":")
    name = "1vO0Qk-0000000IYBn-2sPq"
    (there.logs / "mail.log").write_text(log_line(name))
    (there.logs / "exim4").mkdir()
    (there.logs / "exim4/mainlog").write_text(f"2026-11-28 12:00:00 {name} Completed\n")
    assert (await ask(there, asked(None, name))).log == f"2026-11-28 12:00:00 {name} Completed\n".encode()


async def test_short_ids_are_not_searched_in_the_log(there: AccountThere) -> None:
    (there.logs / "mail.log").write_text(log_line(ID) * 10)
    assert (await ask(there, asked(None, "12"))).log == b""


async def test_where_no_log_may_be_read_there_is_none(there: AccountThere) -> None:
    there.install("journalctl", "exit 1")
    assert (await ask(there, asked())).log is None


JOURNAL = r"""
echo "$@" >>"$HOME/asked"
case " $* " in *" -n 1 "*) echo "1795869244.5 mx postfix/qmgr[1]: $1"; echo "-- cursor: s=ab;i=12;x='\$(id)"; exit;; esac
cat "$HOME/journal"
"""


async def test_the_journal_is_read_where_there_is_no_log_and_later_from_its_cursor_on(there: AccountThere) -> None:
    there.install("journalctl", JOURNAL)
    (there.home / "journal").write_text(log_line(ID) + log_line(OTHER))
    first = await ask(there, asked())
    assert first.log == log_line(ID).encode()
    await ask(there, asked(first.place))
    lines = (there.home / "asked").read_text().splitlines()
    common = "-q --no-pager --system -o short-unix"
    assert [line.partition(common)[2] for line in lines if " -n 1 " not in line] == [
        f" --since @{int(lines[1].partition('@')[2].split()[0])} SYSLOG_FACILITY=2",
        " --after-cursor s=ab;i=12;x='$(id) SYSLOG_FACILITY=2",
    ]


JOURNALD = Path("/usr/lib/systemd/systemd-journald")
WITH_JOURNALD = r"""
mount -t tmpfs none /run && mount -t tmpfs none /var/log || exit 1
mkdir -p /run/systemd/journal "/run/log/journal/$(cat /etc/machine-id)"
"$journald" >/dev/null 2>&1 &
log() { logger --socket-errors=on --socket /run/systemd/journal/dev-log -t "postfix/smtp[1]" "$@" 2>/dev/null; }
say() { until log -p "$@"; do sleep 0.05; done; }
seen() { until journalctl -q --system -o cat | grep -q "$1"; do sleep 0.05; done; }
say mail.info "$id: first"; say user.info "$id: of a user"; say mail.info "OTHER: of others"; seen "of others"
sh -c "$command" <"$first"
say mail.info "$id: second"; seen second
cursor=$(journalctl -q --system -n 1 --show-cursor -o cat | sed -n "s/^-- cursor: //p")
sed "s/^none$/journal $cursor/" "$first" >/run/next
say mail.info "$id: third"; seen third
sh -c "$command" </run/next
setpriv --reuid=nobody --regid=nogroup --clear-groups sh -c "$command" <"$first"
"""


@pytest.mark.skipif(os.getuid() != 0 or not JOURNALD.exists(), reason="needs root and systemd-journald")
async def test_a_real_journal_is_read_by_those_who_may(tmp_path: Path) -> None:
    first = tmp_path / "first"
    # No mail server of this machine is asked.
    first.write_bytes(mail_question.data(Question([ID], [], command=":", since=time.time() - 3600), MARK))
    done = await asyncio.to_thread(
        subprocess.run,
        ["unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child", "sh", "-c", WITH_JOURNALD],
        env={
            "PATH": os.environ["PATH"],
            "HOME": str(tmp_path),
            "journald": str(JOURNALD),
            "id": ID,
            "first": str(first),
            "command": mail_question.command(),
        },
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        timeout=50,
        check=False,
    )
    begin = f"\n{MARK} begin\n".encode()
    answers = [mail_question.parse(begin + part, MARK, 0.0) for part in done.stdout.split(begin)[1:]]
    logs = [answer.log if answer else answer for answer in answers]
    assert len(logs) == 3, done.stdout
    assert logs[0] is not None and [line.split(b": ")[-1] for line in logs[0].splitlines()] == [b"first"]
    assert logs[1] is not None and [line.split(b": ")[-1] for line in logs[1].splitlines()] == [b"third"]
    assert logs[2] is None


# The mailbox.


async def test_of_an_mbox_only_reports_with_our_marks_come_and_later_only_new_ones(there: AccountThere) -> None:
    plain = f"From: x\nSubject: report\n\n<{MESSAGE_ID}>\n>From here on\n"
    other = report("another.message@laptop.example")
    there.box.write_text(in_mbox(plain, report(MESSAGE_ID, "a@b"), other))
    first = await ask(there, asked())
    assert first.reports == in_mbox(report(MESSAGE_ID, "a@b")).encode()
    with there.box.open("a") as file:
        file.write(in_mbox(report(MESSAGE_ID, "c@d"))[:150])
    second = await ask(there, asked(first.place))
    assert recipients(second) == []
    with there.box.open("a") as file:
        file.write(in_mbox(report(MESSAGE_ID, "c@d"))[150:])
    # A report that was only half written comes whole the next time.
    assert recipients(await ask(there, asked(second.place))) == [b"c@d"]


async def test_an_mbox_that_a_mail_reader_has_changed_is_read_from_its_beginning(there: AccountThere) -> None:
    there.box.write_text(in_mbox(*["From: x\n\ntext\n"] * 9, report("x.y@z")))
    first = await ask(there, asked())
    there.box.write_text(in_mbox(report(MESSAGE_ID, "a@b"), *["From: x\n\nchanged text\n"] * 30))
    assert recipients(await ask(there, asked(first.place))) == [b"a@b"]
    there.box.write_text(in_mbox(report(MESSAGE_ID, "c@d")))
    assert recipients(await ask(there, asked(first.place))) == [b"c@d"]


async def test_reading_an_mbox_does_not_move_the_time_of_its_last_access(there: AccountThere) -> None:
    there.box.write_text(in_mbox(report(MESSAGE_ID)))
    os.utime(there.box, (1e9, 2e9))
    assert recipients(await ask(there, asked())) == [b"a@far.example"]
    assert there.box.stat().st_atime == 1e9


async def test_a_dd_without_noatime_does_too(there: AccountThere) -> None:
    there.install("dd", "exit 1")
    there.box.write_text(in_mbox("From: x\n\n", report(MESSAGE_ID, "a@b")))
    first = await ask(there, asked())
    assert recipients(first) == [b"a@b"]
    with there.box.open("a") as file:
        file.write(in_mbox(report(MESSAGE_ID, "c@d")))
    assert recipients(await ask(there, asked(first.place))) == [b"a@b", b"c@d"]


@pytest.mark.parametrize("place", ["in the home", "$MAIL"])
async def test_of_a_maildir_the_new_reports_come(there: AccountThere, place: str) -> None:
    maildir = there.home / "Maildir" if place == "in the home" else there.mail / "dir"
    for name in ("new", "cur", "tmp"):
        (maildir / name).mkdir(parents=True)
    there.start() if place == "in the home" else there.start(f"MAIL={maildir}")
    (maildir / "new/1").write_text(report(MESSAGE_ID, "a@b", more="From here\n"))
    (maildir / "cur/2:2,S").write_text(report(MESSAGE_ID, "c@d").removesuffix("\n"))
    (maildir / "cur/3 odd$(id)\nname").write_text(report("x.y@z"))
    (maildir / "tmp/4").write_text(report(MESSAGE_ID, "unfinished"))
    (maildir / "cur/5").write_text(report(MESSAGE_ID, "old@b"))
    os.utime(maildir / "cur/5", (1e9, 1e9))
    answer = await ask(there, asked())
    assert sorted(recipients(answer)) == [b"a@b", b"c@d"]
    for name in ("new/1", "cur/2:2,S"):
        os.utime(maildir / name, (time.time() - 1000,) * 2)
    assert recipients(await ask(there, asked(answer.place))) == []


async def test_an_mbox_that_is_not_made_yet_is_an_empty_one(there: AccountThere) -> None:
    assert (await ask(there, asked())).reports == b""


async def test_without_a_place_for_mail_there_is_no_mailbox(there: AccountThere) -> None:
    there.start(f"MAIL={there.home}/none/mbox LOGNAME=x")
    (there.mail / LOGIN).mkdir()
    assert (await ask(there, asked())).reports is None


async def test_mail_that_is_forwarded_may_be_elsewhere(there: AccountThere) -> None:
    (there.home / ".forward").write_text("me@elsewhere.example\n")
    there.box.write_text(in_mbox(report("x.y@z")))
    assert (await ask(there, asked())).reports is None
    there.box.write_text(in_mbox(report(MESSAGE_ID, "a@b")))
    assert recipients(await ask(there, asked())) == [b"a@b"]


async def test_a_huge_report_comes_with_its_beginning(there: AccountThere) -> None:
    huge = report(MESSAGE_ID, "a@b", more="x" * 70 + "\n" + ("y" * 70 + "\n") * 20000)
    there.box.write_text(in_mbox(huge, "From: x\n\n" + "z" * 3_000_000 + "\n", report(MESSAGE_ID, "c@d")))
    answer = await ask(there, asked())
    assert recipients(answer) == [b"a@b", b"c@d"]
    assert answer.reports is not None and len(answer.reports) < 300_000


@pytest.mark.parametrize("octets", [b"\0\xff\x1b[2J\r" * 1000, b"\nFrom \nFrom x\n" * 50, b"", b"From "])
async def test_odd_octets_in_log_and_mailbox_break_nothing(there: AccountThere, octets: bytes) -> None:
    marked = octets + b"\n" + MARK.encode() + b" answered\n"
    (there.logs / "mail.log").write_bytes(marked + log_line(ID).encode() + marked)
    there.box.write_bytes(marked + b"\n" + in_mbox(report(MESSAGE_ID, "a@b")).encode() + marked)
    answer = await ask(there, asked())
    assert answer.log is not None and log_line(ID).encode() in answer.log
    assert b"a@b" in recipients(answer)
    await ask(there, asked(answer.place))


# What may go wrong.


async def test_what_is_not_an_id_or_a_mark_reaches_no_shell(there: AccountThere) -> None:
    async with there.connected() as connection:
        for name in ("", "-f", "a b", "$(id)", "a\nb", "x" * 41):
            for question in (Question([name], []), Question([ID], [], retry=[name])):
                with pytest.raises(ValueError, match="queue ids"):
                    await connection.ask(question)
        for mark in ("short", "white space", "a\nb" * 9, "ümlaut-mark", "x" * 201):
            with pytest.raises(ValueError, match="mark"):
                await connection.ask(Question([ID], [mark]))
        with pytest.raises(ValueError, match="500"):
            await connection.ask(Question([ID] * (MAX_IDS + 1), []))
        with pytest.raises(NotAnswered, match="not one line"):
            await connection.ask(Question([ID], [], command="one\ntwo"))
        # A place is text of the relayhost.
        for place in ("file $(id) 0\n0 0", "", "\n", "file 1 2\n0 0\nmore", "journal a b\n0 0", "none\n-1 x"):
            assert (await connection.ask(asked(Place(place)))).account == LOGIN


async def test_marks_with_characters_of_a_shell_and_many_of_them_are_data(there: AccountThere) -> None:
    odd = "$(touch$IFS$HOME/x)`*?[a-z]'\"\\!~#&;|@b.example"
    marks = [odd, *(f"{number:0180}@laptop.example" for number in range(1500))]
    there.box.write_text(in_mbox(report(odd), report(marks[-1])))
    answer = await ask(there, Question([f"{ID}{number}" for number in range(MAX_IDS)], marks))
    assert answer.reports is not None
    assert answer.reports.count(b"Reporting-MTA") == 2
    assert list(there.home.iterdir()) == []


async def test_no_account_there_sees_ids_or_the_mark_in_a_list_of_processes(there: AccountThere) -> None:
    there.install("postqueue", 'ps -ww -eo args >"$HOME/ps"')
    there.install("grep", 'ps -ww -eo args >>"$HOME/ps"; exec /bin/grep "$@"')
    (there.logs / "mail.log").write_text(log_line(ID))
    assert (await ask(there, asked())).log
    seen = (there.home / "ps").read_text()
    assert "mailrelay ask" in seen
    assert ID not in seen and MESSAGE_ID not in seen


@pytest.mark.parametrize("forced", ["false", "echo This key is for mail alone; exit 1", "cat", "echo 220 hello"])
async def test_a_key_that_runs_no_command_of_ours_gives_no_answer(there: AccountThere, forced: str) -> None:
    there.start(ForceCommand=forced)
    async with there.connected() as connection:
        with pytest.raises(NotAnswered, match="is not complete") as caught:
            await connection.ask(asked())
        assert connection.is_up
    assert str(caught.value).isprintable()


async def test_a_server_that_opens_no_session_gives_no_answer(there: AccountThere) -> None:
    there.start(MaxSessions=0)
    async with there.connected() as connection:
        with pytest.raises(NotAnswered, match="opens no session for a question"):
            await connection.ask(asked())
        assert connection.is_up


async def test_a_relayhost_that_is_silent_gives_no_answer(there: AccountThere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_question, "TIMEOUT", 1.0)
    there.install("postqueue", "exec sleep 30")
    async with there.connected() as connection:
        with pytest.raises(NotAnswered, match="did not finish its answer about mail within 1 s"):
            await connection.ask(asked())
        assert connection.is_up


async def test_an_answer_without_end_is_broken_off(there: AccountThere, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mail_question, "MAX_ANSWER", 1_000_000)
    there.install("postqueue", "exec yes")
    async with there.connected() as connection:
        with pytest.raises(NotAnswered, match="has more than"):
            await connection.ask(asked())
        assert connection.is_up


async def test_a_connection_that_ends_meanwhile_is_a_fault(there: AccountThere) -> None:
    there.install("postqueue", "touch $HOME/started; exec sleep 30")
    async with there.connected() as connection:
        asking = asyncio.ensure_future(connection.ask(asked()))
        while not (there.home / "started").exists():
            await asyncio.sleep(0.01)
        connection._connection.abort()
        with pytest.raises(Fault):
            await asking


async def test_what_a_login_shell_prints_first_is_skipped(there: AccountThere) -> None:
    noise = "echo Welcome; printf 'begin answered'; echo mail >&2\n"
    for name in (".bashrc", ".zshenv"):
        (there.home / name).write_text(noise)
    assert (await ask(there, asked())).account == LOGIN


@pytest.mark.parametrize("by", ["login shell", "sh"])
@pytest.mark.parametrize("shell", ["sh", "bash", "dash", "zsh", "fish", "tcsh", "csh", "busybox"])
async def test_any_shell_answers_the_question(tmp_path: Path, shell: str, by: str) -> None:
    """by: the shell is the account's login shell, or the one called sh there."""
    if shutil.which(shell) is None:
        pytest.skip(f"there is no {shell}")
    if by == "sh" and shell in ("fish", "tcsh", "csh"):
        pytest.skip(f"{shell} is never called sh")
    programs = tmp_path / "bin"
    programs.mkdir()
    listing = f'{{"queue_id": "{ID}", "recipients": []}}'
    (programs / "postqueue").write_text(f"#!/bin/sh\necho '{listing}'\n")
    (programs / "postqueue").chmod(0o755)
    (tmp_path / "mbox").write_text(in_mbox(report("x.y@z"), report(MESSAGE_ID, "a@b")))
    if by == "sh":
        target = shutil.which(shell)
        (programs / "sh").write_text(f'#!/bin/sh\nexec {target} {"sh" if shell == "busybox" else ""} "$@"\n')
        if shell != "busybox":
            (programs / "sh").unlink()
            (programs / "sh").symlink_to(str(target))
        (programs / "sh").chmod(0o755)
    login = ["sh", "-c"] if by == "sh" else [shell, "sh", "-c"] if shell == "busybox" else [shell, "-c"]
    done = await asyncio.to_thread(
        subprocess.run,
        [*login, mail_question.command()],
        input=mail_question.data(asked(None, ID, OTHER), MARK),
        stdout=subprocess.PIPE,
        env={"HOME": str(tmp_path), "PATH": f"{programs}:{os.environ['PATH']}", "MAIL": str(tmp_path / "mbox")},
        timeout=30,
        check=False,
    )
    answer = mail_question.parse(done.stdout, MARK, time.time())
    assert answer is not None, done.stdout
    assert answer.listing == Output(f"{listing}\n".encode(), 0)
    assert isinstance(read_listing(answer.server, answer.listing.octets, 0), Listed)
    assert answer.reports == in_mbox(report(MESSAGE_ID, "a@b")).encode()


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
def test_shellcheck_finds_nothing_in_the_script() -> None:
    script = remote_script.text("mail_question.sh", {"MAX_REPORT": 1, "MAX_MAILBOX": 1})
    # Fields are split on purpose (SC2086, SC2046), and the script is one line (SC1075).
    checked = ["shellcheck", "--shell", "sh", "--format", "gcc", "--exclude", "SC2086,SC2046,SC1075", "-"]
    done = subprocess.run(checked, input=script, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout


def test_an_answer_that_is_cut_anywhere_is_none() -> None:
    lines = ["begin", "account me", "now 1795869244", "server postfix", "queue", "listed 0", "log", "logged file 1 2"]
    whole = "".join(f"\n{MARK} {line}\n" for line in (*lines, "mailbox", "last 0", "read", "answered")).encode()
    found = mail_question.parse(whole, MARK, 1795869244.0)
    assert found is not None
    assert (found.log, found.reports, found.place) == (b"", b"", Place("file 1 2\n0 1795869244"))
    assert all(mail_question.parse(whole[:end], MARK, 0.0) is None for end in range(len(whole)))
    assert mail_question.parse(whole.replace(b"now 1795869244", b"now x"), MARK, 0.0) is None


async def test_a_listing_that_hangs_does_not_hide_the_reports(
    there: AccountThere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mail_question, "LIST_SECONDS", 1)
    there.install("postqueue", "exec sleep 60")
    answer = await ask(there, asked())
    assert answer.listing == Output(b"", 124)
    assert answer.reports is not None
