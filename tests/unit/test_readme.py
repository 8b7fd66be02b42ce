"""The README is short, its commands are those that exist, and every link in what is written for people leads somewhere."""

import os
import re
from pathlib import Path

import pytest
from harness.readme import DOCS, PAGES, README, ROOT, headings, section, slug

from mailrelay import config

LINK = r"(?<!!)\[[^\]]*\]\(([^)\s]+)\)"


def test_the_readme_is_short_and_has_no_line_of_more_than_a_screen() -> None:
    lines = README.splitlines()
    assert len(lines) <= 160
    assert max(len(line) for line in lines if not line.startswith("|")) <= 140


def test_ci_runs_what_the_readme_says() -> None:
    (command,) = re.findall(r"```sh\n(.*?)\n```", section(README, "Tests"), re.DOTALL)
    assert (ROOT / ".ci" / "run").read_text("utf-8").splitlines()[-1] == command


def test_the_one_line_that_is_enough_is_enough() -> None:
    (line,) = re.findall(r"```toml\n(.*?)\n```", section(README, "First mail in five minutes"))
    assert line == config.EXAMPLE
    assert config.parse(line, "README", dict(os.environ)).relayhosts[0].name == "default"


def test_the_readme_leads_to_every_page() -> None:
    targets = {target.partition("#")[0] for target in re.findall(LINK, README)}
    pages = {str(page.relative_to(ROOT)) for page in PAGES if page.name != "README.md" or page.parent != ROOT}
    assert pages <= targets


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_every_link_leads_to_a_file_or_a_heading(page: Path) -> None:
    for target in re.findall(LINK, page.read_text("utf-8")):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        found = (page.parent / path).resolve() if path else page
        assert found.exists(), target
        assert found.is_relative_to(ROOT), target
        if anchor:
            assert anchor in map(slug, headings(found.read_text("utf-8"))), target


@pytest.mark.parametrize(
    "page", [*DOCS, *(page for page in PAGES if "contrib" in page.parts)], ids=lambda page: page.stem
)
def test_every_page_begins_with_one_sentence_that_says_what_it_answers(page: Path) -> None:
    title, blank, *rest = page.read_text("utf-8").splitlines()
    assert title.startswith("# ")
    assert blank == ""
    sentence = " ".join(rest[: rest.index("")])
    assert re.fullmatch(r"This page answers [^.]*\.", sentence), sentence
    assert max((len(line) for line in rest if not line.startswith("|")), default=0) <= 140
