"""The command line of sendmail(1): options of every sendmail are understood or left out, and none costs an address."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from mailrelay.cli.sendmail_options import rewritten


@pytest.mark.parametrize(
    ("given_words", "options", "unknown"),
    [
        ("-ti", ["-t", "-i"], []),
        ("-it", ["-i", "-t"], []),
        ("-oi -t", ["-i", "-t"], []),
        ("-o i -om -oem -oeq -odb -odi -odq -oQ/dir", ["-i"], []),
        ("-f me -fyou", ["-f", "me", "-f", "you"], []),
        ("-r me -ryou -F Name -FName", ["-f", "me", "-f", "you", "-F", "Name", "-F", "Name"], []),
        ("-tfme", ["-t", "-f", "me"], []),
        ("-em -ep -eq -ew -ee -e m", [], []),
        ("-d -d0 -d8.11 -dx", [], []),
        ("-c -n -v -U -G -m -s -x -T -T5 -Q -E", [], []),
        ("-X /log -X/log -O A=b -OA=b -h 5 -h5 -L tag -Ltag -p smtp -psmtp:x -A c -Ac -Am -C file -Cfile", [], []),
        ("-M id -Mid -D log -a account -auuser -appass", [], []),
        ("-w 30 -w30 -H helper -S mail.example", [], []),
        ("-oMr local -oMa 127.0.0.1 -oMs host -oMxvalue", [], []),
        ("-q", ["-q"], []),
        ("-q15m -qf -qIid -qRaddr -qSx", ["-q"] * 5, []),
        ("-I", ["-bi"], []),
        ("-bp -b s -bi", ["-b", "p", "-b", "s", "-b", "i"], []),
        ("-B 8BITMIME -N never -R hdrs -V id", ["-B", "8BITMIME", "-N", "never", "-R", "hdrs", "-V", "id"], []),
        ("--read-recipients --from=me --from you", ["-t", "-f", "me", "-f", "you"], []),
        (
            "--wait --wait=3 --config file --config=file",
            ["--wait=", "--wait=3", "--config", "file", "--config=file"],
            [],
        ),
        ("-z -ytK --nonsense --host=x", ["-t"], ["-z", "-y", "-K", "--nonsense", "--host=x"]),
    ],
)
@pytest.mark.parametrize("place", ["before", "after", "between"])
def test_options_of_every_sendmail(given_words: str, options: list[str], unknown: list[str], place: str) -> None:
    words = given_words.split()
    line = {"before": [*words, "bob", "eve"], "after": ["bob", "eve", *words], "between": ["bob", *words, "eve"]}[place]
    assert rewritten(line) == ([*options, "--", "bob", "eve"], unknown)


def test_what_follows_two_dashes_is_an_address_and_a_single_dash_is_one() -> None:
    assert rewritten(["-t", "-", "--", "-x@example.org", "--"]) == (["-t", "--", "-", "-x@example.org", "--"], [])


def test_a_value_that_is_missing_is_named_and_an_empty_one_is_a_value() -> None:
    assert rewritten(["bob", "-f"]) == (["--", "bob"], ["-f"])
    assert rewritten(["bob", "-oi", "-h"]) == (["-i", "--", "bob"], ["-h"])
    assert rewritten(["-f", "", "bob"]) == (["-f", "", "--", "bob"], [])


LETTERS = "-abcdefghiopqtvwxyzABCFIMNOQRTVX0=@"


@given(st.lists(st.builds(str.__add__, st.sampled_from(("", "-", "-", "--")), st.text(LETTERS, max_size=4))))
@example(["-f", "a@b", "-oi", "-t", "--wait=3", "-bp"])
@example(["-B", "--"])
@example(["--in", "-z"])
def test_nothing_makes_it_fail_and_the_parser_gets_only_options_that_it_knows(words: list[str]) -> None:
    known, _ = rewritten(words)
    while (option := known.pop(0)) != "--":
        assert option.startswith("--") or option[:2] in {f"-{letter}" for letter in "tifFNRVBbq"}
        if option in {"-f", "-F", "-N", "-R", "-V", "-B", "-b", "--in", "--at"}:
            known.pop(0)
