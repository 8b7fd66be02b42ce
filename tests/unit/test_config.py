"""Settings: what is read, and the one line that each mistake gets."""

import os
import pwd
from pathlib import Path

import pytest

from mailrelay import config
from mailrelay.config import Forward, Listen, Notify, Queue, Relayhost, Settings, SettingsError
from mailrelay.endpoint import Tcp, Unix

ENVIRON = {"HOME": "/home/me", "HERE": "/here", "XDG_RUNTIME_DIR": "/run/user/1000", "NOWHERE": ""}
LEAST = 'relayhost.default.ssh = "me@mail.example.org"\n'


def parse(text: str) -> Settings:
    return config.parse(text, "config.toml", ENVIRON)


def relayhost(text: str) -> Relayhost:
    return parse(f'[relayhost.default]\nssh = "me@mail.example.org"\n{text}').relayhosts[0]


def complaint(text: str) -> str:
    with pytest.raises(SettingsError) as error:
        parse(text)
    return str(error.value)


def test_one_line_is_enough() -> None:
    assert parse(LEAST) == Settings(
        listen=Listen(),
        relayhosts=(Relayhost(name="default", ssh="me@mail.example.org", ssh_config=Path("/home/me/.ssh/config")),),
        queue=Queue(directory=Path("/home/me/.local/state/mailrelay")),
        notify=Notify(),
    )
    assert parse(config.EXAMPLE) == parse(LEAST)


def test_the_defaults_are_those_that_are_written_down() -> None:
    documented = """
        [listen]
        address = "localhost:7777"
        answer_within = "8s"
        allow_users = ["self"]
        max_message_size = "50MB"
        max_connections = 100
        [relayhost.default]
        ssh = "me@mail.example.org"
        ssh_config = "~/.ssh/config"
        smtp = "localhost:25"
        command = ""
        senders = ["*"]
        linger = "30s"
        channels = 8
        backlog_channels = 64
        [queue]
        directory = "$XDG_STATE_HOME/mailrelay"
        retry = ["1m", "2m", "5m", "15m", "30m", "1h"]
        delay_notice_after = "15m"
        expire_after = "5d"
        keep_sent = "7d"
        max_size = "2GB"
        [notify]
        desktop = true
        dsn = true
        mailbox = ""
        command = []
        urls = []
    """
    assert parse(documented) == parse(LEAST)


@pytest.mark.parametrize(
    "name", ["[127.0.0.1]", "[IPv6:::1]", "localhost", "mail.example.org", "xn--bcher-kva.example"]
)
def test_a_name_for_ehlo_is_a_domain_name_or_an_address_literal(name: str) -> None:
    (relayhost,) = parse(f"relayhost.a = {{ssh='a', helo='{name}'}}").relayhosts
    assert relayhost.helo == name


def test_who_names_a_number_of_channels_gets_no_more_for_a_long_queue_either() -> None:
    for channels in (1, 8, 100):
        (relayhost,) = parse(f"relayhost.a = {{ssh='a', channels={channels}}}").relayhosts
        assert (relayhost.channels, relayhost.backlog_channels) == (channels, channels)


def test_every_setting_can_be_set() -> None:
    everything = """
        [listen]
        address = "unix:$XDG_RUNTIME_DIR/mailrelay"
        answer_within = "1.5s"
        allow_users = ["self", "www-data", 1000]
        max_message_size = "1.5MiB"
        max_connections = 1
        [relayhost.home]
        ssh = "home"
        ssh_config = "$HERE/ssh_config"
        smtp = "[::1]:2525"
        command = "sendmail -bs"
        senders = ["*@example.org", "me@example.net"]
        linger = "always"
        channels = 1
        [relayhost.work]
        ssh = "ssh://me@work.example.net:2222"
        linger = "0s"
        [queue]
        directory = "/var/spool/mailrelay"
        retry = ["90s", "1w"]
        delay_notice_after = "1h"
        expire_after = "2w"
        keep_sent = "0s"
        max_size = "1TB"
        [notify]
        desktop = false
        dsn = false
        mailbox = "~/Mail/failed"
        command = ["~/bin/tell me", "--now", "$HERE"]
        urls = ["ntfy://topic"]
        [[forward]]
        listen = "localhost:8888"
        relayhost = "work"
        to = "192.168.1.5:80"
        [[forward]]
        listen = "unix:~/imap"
        relayhost = "home"
        to = "unix:/run/dovecot/$imap"
    """
    assert parse(everything) == Settings(
        listen=Listen(
            address=Unix("/run/user/1000/mailrelay"),
            answer_within=1.5,
            allow_users=("self", "www-data", "1000"),
            max_message_size=1_572_864,
            max_connections=1,
        ),
        relayhosts=(
            Relayhost(
                name="home",
                ssh="home",
                ssh_config=Path("/here/ssh_config"),
                smtp=Tcp("::1", 2525),
                command="sendmail -bs",
                senders=("*@example.org", "me@example.net"),
                linger=float("inf"),
                channels=1,
                backlog_channels=1,
            ),
            Relayhost(
                name="work",
                ssh="ssh://me@work.example.net:2222",
                ssh_config=Path("/home/me/.ssh/config"),
                linger=0.0,
            ),
        ),
        queue=Queue(
            directory=Path("/var/spool/mailrelay"),
            retry=(90.0, 604_800.0),
            delay_notice_after=3600.0,
            expire_after=1_209_600.0,
            keep_sent=0.0,
            max_size=10**12,
        ),
        notify=Notify(
            desktop=False,
            dsn=False,
            mailbox=Path("/home/me/Mail/failed"),
            command=("/home/me/bin/tell me", "--now", "$HERE"),
            urls=("ntfy://topic",),
        ),
        forwards=(
            Forward(listen=Tcp("localhost", 8888), relayhost="work", to=Tcp("192.168.1.5", 80)),
            # What is there is there: nothing of this machine's environment is in it.
            Forward(listen=Unix("/home/me/imap"), relayhost="home", to=Unix("/run/dovecot/$imap")),
        ),
    )


@pytest.mark.parametrize(("names", "meant"), [(["a"], "a"), (["default"], "default"), (["a", "default"], "default")])
def test_a_forward_goes_by_the_only_relayhost_or_the_default_one(names: list[str], meant: str) -> None:
    relayhosts = "".join(f"relayhost.{name}.ssh = 'h'\n" for name in names)
    (forward,) = parse(f"{relayhosts}[[forward]]\nlisten = 'localhost:8888'\nto = '[::1]:143'").forwards
    assert forward == Forward(listen=Tcp("localhost", 8888), relayhost=meant, to=Tcp("::1", 143))


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0.0),
        ("500ms", 0.5),
        ("8s", 8.0),
        ("15m", 900.0),
        ("1.5h", 5400.0),
        ("5d", 432_000.0),
        ("2w", 1_209_600.0),
    ],
)
def test_a_duration_is_a_number_and_a_unit(text: str, seconds: float) -> None:
    assert relayhost(f'linger = "{text}"').linger == seconds


@pytest.mark.parametrize(
    ("text", "octets"),
    [("1B", 1), ("10kB", 10_000), ("10KB", 10_000), ("50MB", 50_000_000), ("0.1MB", 100_000), ("64KiB", 65_536)],
)
def test_a_size_is_a_number_and_a_unit(text: str, octets: int) -> None:
    assert parse(f'{LEAST}listen.max_message_size = "{text}"').listen.max_message_size == octets


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("/a b", "/a b"),
        ("~", "/home/me"),
        ("~/a/~", "/home/me/a/~"),
        ("$HERE/a", "/here/a"),
        ("${HERE}a$HERE", "/herea/here"),
        ("$XDG_CONFIG_HOME/a", "/home/me/.config/a"),
        ("$HOME/$$", "/home/me/$$"),
    ],
)
def test_home_and_variables_are_expanded_in_paths(text: str, path: str) -> None:
    assert relayhost(f'ssh_config = "{text}"').ssh_config == Path(path)


def test_nothing_is_expanded_outside_of_paths() -> None:
    assert relayhost('command = "$HERE/sendmail ~"').command == "$HERE/sendmail ~"


def test_an_xdg_directory_counts_only_where_it_is_absolute() -> None:
    for value, directory in (("/state", "/state/mailrelay"), ("state", "/home/me/.local/state/mailrelay")):
        settings = config.parse(LEAST, "config.toml", ENVIRON | {"XDG_STATE_HOME": value})
        assert settings.queue.directory == Path(directory)


@pytest.mark.parametrize("text", ["localhost:7777", "127.0.0.1:0", "127.255.0.9:25", "[::1]:65535", "unix:/run/m"])
def test_the_listener_may_be_anywhere_that_only_this_machine_reaches(text: str) -> None:
    assert str(parse(f'{LEAST}listen.address = "{text}"').listen.address) == text


@pytest.mark.parametrize(
    "text",
    [
        "0.0.0.0:7777",
        "[::]:7777",
        "192.0.2.1:25",
        "127.0.0.256:25",
        "mail.example.org:25",
        "localhost.evil:25",
        "localhost",
        ":7777",
        "7777",
        "localhost:65536",
        "localhost:١",
        "::1:7777",
        "[127.0.0.1]:25",
        "unix:relative",
        "unix:",
        "unix:/" + "x" * 107,
        "",
    ],
)
def test_the_listener_is_nowhere_else(text: str) -> None:
    assert complaint(f'{LEAST}listen.address = "{text}"').startswith("config.toml: listen.address: ")


def test_relayhosts_keep_the_order_of_the_file() -> None:
    text = '[relayhost.b]\nssh = "b"\n[relayhost.a]\nssh = "a"\n[relayhost.c]\nssh = "c"\n'
    assert [found.name for found in parse(text).relayhosts] == ["b", "a", "c"]


MISTAKES = [
    ("", "relayhost: at least one is needed; write: "),
    ("[relayhost]", "relayhost: at least one is needed"),
    ("relayhost = 5", "relayhost: expected a table, found 5; write [relayhost]"),
    ('relayhost.ssh = "me@a"', "relayhost.ssh: a relayhost has a name; write [relayhost.default] and ssh below it"),
    ("[relayhost.default]", "relayhost.default.ssh: missing; for example: "),
    ('[relayhost."a b"]\nssh = "me@a"', "relayhost: 'a b' is not a name; write up to 64 of A-Z a-z 0-9 _ -"),
    (LEAST + "submission.from = 'me'", "submission.from: 'me' is not a whole address; write for example "),
    (LEAST + "submission.from = 'Me <me@a>'", "submission.from: 'Me <me@a>' is not a whole address; "),
    (LEAST + "submission.local = 'root'", "submission.local: 'root' is not a whole address; "),
    (LEAST + "submission.domain = 'me@a.example'", "submission.domain: 'me@a.example' is not a domain; write "),
    (LEAST + "submission.domain = 'a b'", "submission.domain: 'a b' is not a domain; "),
    (LEAST + "submission.form = 'me@a'", 'submission.form: no such setting; did you mean "from"?'),
    ("listn = 5", 'listn: no such setting; did you mean "listen"?'),
    ("zzz = 5", "zzz: no such setting; there are listen, submission, relayhost, queue, notify, forward"),
    ("[queue]\nexpire = '5d'", 'queue.expire: no such setting; did you mean "expire_after"?'),
    ("[relayhost.a]\nssh='a'\nsender = []", 'relayhost.a.sender: no such setting; did you mean "senders"?'),
    ("[relayhost.a]\nname='a'", "relayhost.a.name: no such setting; there are ssh, "),
    ("[relayhost.a]\nsmtp_port=25", 'relayhost.a.smtp_port: no such setting; did you mean "smtp"?'),
    (
        LEAST + "forward = 5",
        "forward: must be a list of tables; write [[forward]] with two brackets, and its settings below it",
    ),
    (LEAST + "[forward]\nto='a:80'", "forward: must be a list of tables; write [[forward]] with two brackets"),
    (LEAST + "forward = [5]", "forward[1]: expected a table, found 5; write [[forward]], and its settings below it"),
    (LEAST + "[[forward]]\nto='a:80'", """forward[1].listen: missing; for example: listen = "localhost:8888\""""),
    (LEAST + "[[forward]]\nlisten='localhost:1'", """forward[1].to: missing; for example: to = "localhost:80\""""),
    (
        LEAST + "forward = [{to='a:80', listen='0.0.0.0:80'}]",
        "forward[1].listen: '0.0.0.0:80' is not an address to listen on; ",
    ),
    (
        LEAST + "forward = [{to='a', listen='localhost:1'}]",
        "forward[1].to: 'a' is not a target; write for example \"localhost:80\"",
    ),
    (LEAST + "forward = [{to='unix:~/a', listen='localhost:1'}]", "forward[1].to: 'unix:~/a' is not a target; "),
    (LEAST + "forward = [{to=80, listen='localhost:1'}]", "forward[1].to: expected text in quotes, found 80"),
    (LEAST + "forward = [{form='a'}]", "forward[1].form: no such setting; there are listen, relayhost, to"),
    (
        LEAST + "forward = [{to='a:1', listen='localhost:1'}, {to='a:1', listen='localhost:2', relayhost='work'}]",
        "forward[2].relayhost: no relayhost 'work'; there are default",
    ),
    (
        "relayhost = {a={ssh='a'}, b={ssh='b'}}\nforward = [{to='a:1', listen='localhost:1'}]",
        "forward[1].relayhost: no relayhost 'default'; there are a, b",
    ),
    ("[[listen]]", "listen: expected a table, found a list; write [listen]"),
    ("queue = 'x'", "queue: expected a table, found 'x'; write [queue]"),
    (
        "listen.answer_within = 8",
        "listen.answer_within: 8 is not a duration; write a number and one of ms s m h d w, from",
    ),
    ("listen.answer_within = '8'", "listen.answer_within: '8' is not a duration"),
    ("listen.answer_within = '8 s'", "listen.answer_within: '8 s' is not a duration"),
    ("listen.answer_within = '8x'", "listen.answer_within: '8x' is not a duration"),
    ("listen.answer_within = '-8s'", "listen.answer_within: '-8s' is not a duration"),
    ("listen.answer_within = '٣s'", "listen.answer_within: '٣s' is not a duration"),
    ("listen.answer_within = 'always'", "listen.answer_within: 'always' is not a duration"),
    ("listen.answer_within = '6m'", """listen.answer_within: '6m' is out of range; from "0s" to "5m\""""),
    (
        "listen.max_message_size = 50",
        "listen.max_message_size: 50 is not a size; write a number and one of kB MB GB KiB MiB GiB",
    ),
    ("listen.max_message_size = '50mb'", "listen.max_message_size: '50mb' is not a size"),
    ("listen.max_message_size = '0B'", "listen.max_message_size: '0B' is out of range; from"),
    ("listen.max_message_size = '1TB'", "listen.max_message_size: '1TB' is out of range; from"),
    ("listen.max_connections = '9'", "listen.max_connections: expected a whole number, found '9'"),
    ("listen.max_connections = true", "listen.max_connections: expected a whole number, found true"),
    ("listen.max_connections = 1.5", "listen.max_connections: expected a whole number, found 1.5"),
    ("listen.max_connections = 0", "listen.max_connections: 0 is out of range; at least 1"),
    ("listen.max_connections = 99999", "listen.max_connections: 99999 is out of range; at most 10000"),
    ("listen.auth = 'off'", 'listen.auth: expected "refuse" or "ignore", found \'off\''),
    ("listen.auth = false", 'listen.auth: expected "refuse" or "ignore", found false'),
    ("listen.allow_users = 'self'", "listen.allow_users: expected a list in brackets, found 'self'"),
    ("listen.allow_users = []", "listen.allow_users: the list is empty; at least one entry is needed"),
    ("listen.allow_users = [true]", "listen.allow_users: expected text in quotes, found true"),
    ("listen.max_connections = 0x" + "f" * 5000, "listen.max_connections: a number of many digits is out of range; "),
    ("listen.address = 0x" + "f" * 5000, "listen.address: expected text in quotes, found a number of many digits"),
    ("listen.allow_users = [0x" + "f" * 5000 + "]", "listen.allow_users: "),
    ("listen.allow_users = ['" + "9" * 5000 + "']", "listen.allow_users: '9999"),
    ("listen.allow_users = ['a b']", "listen.allow_users: 'a b' is not an account; write a name, a uid,"),
    ("relayhost.a.ssh = ''", "relayhost.a.ssh: '' is not an SSH destination"),
    ("relayhost.a.ssh = '-oProxyCommand=x'", "relayhost.a.ssh: '-oProxyCommand=x' is not an SSH destination"),
    ("relayhost.a.ssh = 'me@a -p 22'", "relayhost.a.ssh: 'me@a -p 22' is not an SSH destination"),
    ("relayhost.a.ssh = 5", "relayhost.a.ssh: expected text in quotes, found 5"),
    ("relayhost.a = {ssh='a', smtp='localhost'}", "relayhost.a.smtp: 'localhost' is not a host and port"),
    ("relayhost.a = {ssh='a', smtp='localhost:0'}", "relayhost.a.smtp: 'localhost:0' is not a host and port"),
    ("relayhost.a = {ssh='a', smtp='::1:25'}", "relayhost.a.smtp: '::1:25' is not a host and port"),
    ("relayhost.a = {ssh='a', smtp=25}", "relayhost.a.smtp: expected text in quotes, found 25"),
    ('relayhost.a = {ssh="a", command="a\\nb"}', "relayhost.a.command: 'a\\nb' has characters that cannot be printed"),
    ("relayhost.a = {ssh='a', senders=[]}", "relayhost.a.senders: the list is empty"),
    ("relayhost.a = {ssh='a', senders=['@a.org']}", "relayhost.a.senders: '@a.org' is not a sender pattern; "),
    ("relayhost.a = {ssh='a', linger='forever'}", "relayhost.a.linger: 'forever' is not a duration; "),
    (
        "relayhost.a = {ssh='a', linger='99w'}",
        """relayhost.a.linger: '99w' is out of range; from "0s" to "52w", or "always\"""",
    ),
    (
        "relayhost.a = {ssh='a', helo='my laptop'}",
        "relayhost.a.helo: 'my laptop' is neither a domain name nor an address",
    ),
    (
        "relayhost.a = {ssh='a', helo=''}",
        "relayhost.a.helo: '' is neither a domain name nor an address literal; write for",
    ),
    ("relayhost.a = {ssh='a', helo='127.0.0.1'}", "relayhost.a.helo: '127.0.0.1' is neither a domain name nor"),
    ("relayhost.a = {ssh='a', helo='[256.0.0.1]'}", "relayhost.a.helo: '[256.0.0.1]' is neither a domain name nor"),
    (
        "relayhost.a = {ssh='a', helo='[::1]'}",
        "relayhost.a.helo: '[::1]' is neither a domain name nor an address literal",
    ),
    (
        "relayhost.a = {ssh='a', helo='bücher.example'}",
        "relayhost.a.helo: 'bücher.example' is neither a domain name nor",
    ),
    (
        "relayhost.a = {ssh='a', helo='a..b'}",
        "relayhost.a.helo: 'a..b' is neither a domain name nor an address literal",
    ),
    ("relayhost.a = {ssh='a', helo=1}", "relayhost.a.helo: expected text in quotes, found 1"),
    ("relayhost.a = {ssh='a', channels=0}", "relayhost.a.channels: 0 is out of range; at least 1"),
    (
        "relayhost.a = {ssh='a', ssh_config=''}",
        "relayhost.a.ssh_config: '' is not an absolute path; begin it with / or ~/",
    ),
    ("queue.directory = 'spool'", "queue.directory: 'spool' is not an absolute path"),
    ("queue.directory = '~you/spool'", "queue.directory: '~you/spool' is not an absolute path"),
    ("queue.directory = '$NOWHERE/spool'", "queue.directory: $NOWHERE is not set; write the path itself"),
    ("queue.directory = 5", "queue.directory: expected text in quotes, found 5"),
    ("queue.retry = []", "queue.retry: the list is empty"),
    ("queue.retry = ['1m', '0s']", """queue.retry: '0s' is out of range; from "1s" to "1w\""""),
    ("queue.retry = '1m'", "queue.retry: expected a list in brackets, found '1m'"),
    ("queue.max_size = '1MB'", "queue.max_size: smaller than listen.max_message_size"),
    ("notify.desktop = 'yes'", "notify.desktop: expected true or false, found 'yes'"),
    ("notify.dsn = 2020-01-01", "notify.dsn: expected true or false, found 2020-01-01"),
    ("notify.mailbox = true", "notify.mailbox: expected text in quotes, found true"),
    ("notify.command = 'notify-send'", "notify.command: expected a list in brackets, found 'notify-send'"),
    ("notify.command = ['']", "notify.command: the first word is empty"),
    ("notify.command = ['bin/tell']", "notify.command: 'bin/tell' is not an absolute path"),
    ("notify.urls = ['secret']", 'notify.urls: one entry is not a URL; write "scheme://…"'),
    ("a b = 5", "Expected '=' after a key in a key/value pair (at line 1, column 3); settings are TOML, such as: "),
    ("x = 1\nx = 2\n", "Cannot overwrite a value (at line 2, column 6); settings are TOML"),
    ("x = 2020-13-01", "settings are TOML"),
    ("x = " + "1" * 5000, "settings are TOML"),
    ("x = " + "[" * 5000, "nested too deeply"),
]


@pytest.mark.parametrize(("text", "line"), MISTAKES, ids=[line[:50] for _, line in MISTAKES])
def test_a_mistake_gets_one_line_with_file_key_fault_and_what_is_allowed(text: str, line: str) -> None:
    said = complaint(text)
    assert said.startswith("config.toml: ")
    assert line in said
    assert said.isprintable()


@pytest.mark.parametrize("environ", [{}, {"HOME": ""}])
def test_without_home_the_directory_of_the_account_counts(environ: dict[str, str]) -> None:
    settings = config.parse(LEAST, "config.toml", environ)
    assert settings.queue.directory == Path(pwd.getpwuid(os.getuid()).pw_dir) / ".local/state/mailrelay"


def test_a_home_that_is_not_known_is_what_the_error_says(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SettingsError, match=r"queue\.directory: the home directory is not known; set HOME"):
        config.parse(LEAST, "config.toml", {"HOME": "relative"})
    monkeypatch.setattr(os, "getuid", lambda: 4_000_000_000)
    with pytest.raises(SettingsError, match="the home directory is not known; set HOME"):
        config.parse(LEAST, "config.toml", {})


def test_a_password_in_a_url_is_not_repeated() -> None:
    assert "hunter2" not in complaint(f'{LEAST}notify.urls = ["mailto //hunter2"]')


def test_a_long_value_is_not_repeated_whole() -> None:
    assert len(complaint(f'{LEAST}queue.directory = "{"x" * 9000}"')) < 300


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "config.toml"
    path.write_text(LEAST)
    path.chmod(0o600)
    return path


def refusal(path: Path | None) -> str:
    with pytest.raises(SettingsError) as error:
        config.load(path)
    assert str(error.value).isprintable()
    return str(error.value)


def test_a_file_is_read(file: Path) -> None:
    assert config.load(file).relayhosts[0].ssh == "me@mail.example.org"


def test_a_byte_order_mark_is_no_mistake(file: Path) -> None:
    file.write_bytes(b"\xef\xbb\xbf" + LEAST.encode())
    assert config.load(file).relayhosts[0].ssh == "me@mail.example.org"


def test_a_missing_file_is_answered_with_the_line_that_makes_one(tmp_path: Path) -> None:
    path = tmp_path / "config.toml"
    assert refusal(path).startswith(f"{path} does not exist; run `mailrelay setup [USER@]HOST`, or write it")
    assert refusal(path).endswith(config.EXAMPLE)


def test_a_mistake_in_a_file_names_the_file(file: Path) -> None:
    file.write_text("[queue]\nretry = 5\n" + LEAST)
    assert refusal(file).startswith(f"{file}: queue.")


@pytest.mark.parametrize("mode", [0o620, 0o602, 0o666])
def test_a_file_that_others_can_write_is_refused_with_the_command_that_fixes_it(file: Path, mode: int) -> None:
    file.chmod(mode)
    assert refusal(file) == f"{file} can be written by other users; remove their access: chmod go-w '{file}'"


@pytest.mark.parametrize("mode", [0o770, 0o777])
def test_a_file_in_a_directory_that_others_can_write_is_refused(file: Path, mode: int) -> None:
    file.parent.chmod(mode)
    assert (
        refusal(file) == f"{file.parent} can be written by other users; remove their access: chmod go-w '{file.parent}'"
    )


def test_a_sticky_directory_is_good_enough(file: Path) -> None:
    file.parent.chmod(0o1777)
    assert config.load(file).relayhosts


def test_a_link_into_a_directory_that_others_can_write_is_refused(file: Path, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir()
    target = file.rename(tmp_path / "open" / "real.toml")
    file.symlink_to(target)
    assert config.load(file).relayhosts
    target.parent.chmod(0o777)
    assert refusal(file).startswith(f"{target.parent} can be written by other users")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a file away")
def test_a_file_or_directory_of_another_user_is_refused(file: Path) -> None:
    os.chown(file, 12345, -1)
    assert refusal(file) == f"{file} belongs to user 12345; it must be yours: chown 0 '{file}'"
    os.chown(file, 0, -1)
    os.chown(file.parent, 12345, -1)
    assert refusal(file).startswith(f"{file.parent} belongs to user 12345")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads every file")
def test_an_unreadable_file_is_refused(file: Path) -> None:
    file.chmod(0)
    assert (
        refusal(file)
        == f"{file} cannot be read: Permission denied; allow your account to read it, or name another file"
    )


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "fifo", 0o600)
    for path in (tmp_path / "fifo", Path("/dev/null")):
        assert refusal(path) == f"{path} is not a file; name a file with --config or MAILRELAY_CONFIG"
    assert "cannot be read: Is a directory; " in refusal(tmp_path)


def test_a_path_through_a_file_or_a_circle_of_links_is_refused(file: Path) -> None:
    (file.parent / "circle").symlink_to("circle")
    assert "cannot be read: Not a directory" in refusal(file / "config.toml")
    assert "cannot be read: Too many levels" in refusal(file.parent / "circle")


def test_text_that_is_not_utf_8_is_refused_with_its_line(file: Path) -> None:
    file.write_bytes(b'a = 1\nb = "\xff"\n')
    assert refusal(file) == f"{file}: line 2 is not UTF-8 text; save the file as UTF-8"


def test_a_file_beyond_all_reason_is_not_read(file: Path) -> None:
    file.write_bytes(b"#" * (config.MAX_FILE + 1))
    assert "larger than 1 MiB" in refusal(file)


def test_a_file_name_cannot_write_on_the_terminal(tmp_path: Path) -> None:
    assert "\\x1b[31m\\n" in refusal(tmp_path / "\x1b[31m\n")


def test_the_default_path_follows_the_environment(monkeypatch: pytest.MonkeyPatch, file: Path) -> None:
    monkeypatch.setenv("HOME", "/home/me")
    monkeypatch.delenv("MAILRELAY_CONFIG", raising=False)
    monkeypatch.delenv("XDG_CONFIG_HOME", raising=False)
    assert config.default_path() == Path("/home/me/.config/mailrelay/config.toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", "/etc/xdg")
    assert config.default_path() == Path("/etc/xdg/mailrelay/config.toml")
    monkeypatch.setenv("MAILRELAY_CONFIG", str(file))
    assert config.load(None).relayhosts[0].name == "default"


def test_the_addresses_of_submission_are_whole_or_empty() -> None:
    for sender, domain, local in (
        ("", "", ""),
        ("me@example.org", "example.org", '"a b"@example.org'),
        ("tarō@bücher.example", "bücher.example", "me@[192.0.2.1]"),
    ):
        text = f"{LEAST}[submission]\nfrom = '{sender}'\ndomain = '{domain}'\nlocal = '{local}'\n"
        assert parse(text).submission == config.Submission(sender=sender, domain=domain, local=local)
    assert parse(LEAST).submission == config.Submission()


def names(text: str) -> list[str]:
    return [one.name for one in parse(text).relayhosts]


def test_a_fallback_without_senders_takes_only_what_no_other_takes() -> None:
    assert names("[relayhost.b]\nssh='b'\n[relayhost.a]\nssh='a'\nfallback=['b']") == ["a", "b"]
    assert names("[relayhost.b]\nssh='b'\nsenders=['*']\n[relayhost.a]\nssh='a'\nfallback=['b']") == ["b", "a"]
    circle = parse("[relayhost.b]\nssh='b'\nfallback=['a']\n[relayhost.a]\nssh='a'\nfallback=['b']").relayhosts
    assert [(one.name, one.fallback) for one in circle] == [("b", ("a",)), ("a", ("b",))]
    three = "[relayhost.a]\nssh='a'\nfallback=['c','b']\n[relayhost.b]\nssh='b'\n[relayhost.c]\nssh='c'"
    assert parse(three).relayhosts[0].fallback == ("c", "b")


@pytest.mark.parametrize(
    ("fallback", "said"),
    [
        ("'b'", "relayhost.a.fallback: expected a list in brackets, found 'b'"),
        ("[1]", "relayhost.a.fallback: expected text in quotes, found 1"),
        ("['a']", "relayhost.a.fallback: a is this relayhost itself; name another one"),
        ("['gone']", "relayhost.a.fallback: no relayhost 'gone'; there are a, b"),
        ("['b', 'b']", "relayhost.a.fallback: b stands in it twice; name it once"),
    ],
)
def test_a_fallback_is_another_relayhost_and_named_once(fallback: str, said: str) -> None:
    assert complaint(f"[relayhost.a]\nssh='a'\nfallback={fallback}\n[relayhost.b]\nssh='b'") == f"config.toml: {said}"


@pytest.mark.parametrize("value", ["auto", "off"])
def test_whether_conversations_are_recorded_is_one_of_two_words(value: str) -> None:
    assert relayhost(f'record = "{value}"').record == value


@pytest.mark.parametrize("value", ["on", "", "Auto", "off "])
def test_another_word_for_the_record_is_refused(value: str) -> None:
    assert complaint(f'{LEAST}relayhost.default.record = "{value}"') == (
        f"""config.toml: relayhost.default.record: expected "auto" or "off", found '{value}'"""
    )


@pytest.mark.parametrize("value", ["auto", "off", "sudo -n mailq | tail"])
def test_mail_is_followed_there_with_the_command_as_it_is_written(value: str) -> None:
    assert relayhost(f'track = "{value}"').track == value


@pytest.mark.parametrize("value", ["", "  "])
def test_a_command_of_blanks_cannot_list_the_queue(value: str) -> None:
    assert complaint(f'{LEAST}relayhost.default.track = "{value}"').startswith(
        'config.toml: relayhost.default.track: expected "auto", "off" or a command that lists the queue, found '
    )


def test_the_socket_for_everyone_is_a_unix_socket_or_none() -> None:
    def everyone(text: str) -> Unix | None:
        return parse(f'{LEAST}listen.everyone = "{text}"').listen.everyone

    assert everyone("unix:/run/mailrelay/all") == Unix("/run/mailrelay/all")
    assert everyone("unix:$XDG_RUNTIME_DIR/all") == Unix("/run/user/1000/all")
    assert everyone("") is None
    assert complaint(f'{LEAST}listen.everyone = "localhost:25"') == (
        "config.toml: listen.everyone: 'localhost:25' is not a UNIX socket; write for example"
        ' "unix:/run/mailrelay/smtp"'
    )


def test_what_names_at_least_one_is_read_in_its_order() -> None:
    assert relayhost('senders = ["*@b.example", "*@a.example"]').senders == ("*@b.example", "*@a.example")
    assert complaint(f"{LEAST}relayhost.default.senders = []") == (
        "config.toml: relayhost.default.senders: the list is empty; at least one entry is needed"
    )
