"""Under tox, what is tested is the wheel as it was installed, not the checkout that lies around it."""

import os
import subprocess
import sys
from importlib import resources
from pathlib import Path

import pytest

import mailrelay

CHECKOUT = Path(__file__).parents[2]


@pytest.mark.skipif("TOX_ENV_NAME" not in os.environ, reason="outside of tox the checkout is what is tested")
def test_neither_the_tests_nor_the_programs_that_they_start_import_the_checkout() -> None:
    ours = Path(mailrelay.__file__)
    argv = [sys.executable, "-c", "import mailrelay; print(mailrelay.__file__)"]
    theirs = subprocess.run(argv, cwd=CHECKOUT, capture_output=True, text=True, check=True).stdout.strip()
    assert not ours.is_relative_to(CHECKOUT / "mailrelay")
    assert theirs == str(ours)


def test_the_package_says_that_it_is_typed() -> None:
    assert resources.files("mailrelay").joinpath("py.typed").is_file()
