#!/usr/bin/env python3
"""Builds the Debian package `mailrelay`: `python3 contrib/debian/build.py [--output DIR]`. Prints the path of the package.

The package has mailrelay and its libraries in an environment of their own in /usr/lib/mailrelay, made for the Python that
Debian has on this machine, and around it what belongs to a system (README.md beside this file has the list). The build needs
no root, and of Debian dpkg, python3 and python3-venv. pip fetches the libraries.

Promises: the same files, libraries and SOURCE_DATE_EPOCH give the same octets; PIP_CONSTRAINT fixes the libraries. Nothing
outside of the output and a temporary directory is written.
"""

import argparse
import gzip
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from email.message import Message
from email.parser import HeaderParser
from email.utils import formatdate
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
NAME = "mailrelay"
LIBRARY = f"usr/lib/{NAME}"
DOC = f"usr/share/doc/{NAME}"
UNITS = "usr/lib/systemd/user"

FILES = (
    ("mailrelay/setup/mailrelay.service", UNITS, 0o644),
    ("contrib/systemd/mailrelay-watchdog.*", UNITS, 0o644),
    ("contrib/shell/*", "usr/bin", 0o755),
    ("contrib/networkmanager/*", "usr/lib/NetworkManager/dispatcher.d", 0o755),
    ("contrib/completions/mailrelay", "usr/share/bash-completion/completions", 0o644),
    ("contrib/completions/_mailrelay", "usr/share/zsh/vendor-completions", 0o644),
    ("contrib/completions/mailrelay.fish", "usr/share/fish/vendor_completions.d", 0o644),
    ("contrib/clients/*", f"{DOC}/examples", 0o644),
    ("README.md", DOC, 0o644),
    ("docs/*.md", f"{DOC}/docs", 0o644),
    # The system-wide service, as far as there are such files. The scripts of the package restart and stop its units.
    ("mailrelay/setup/system/*.service", "usr/lib/systemd/system", 0o644),
    ("mailrelay/setup/system/*.socket", "usr/lib/systemd/system", 0o644),
    ("mailrelay/setup/system/*.sysusers", "usr/lib/sysusers.d/mailrelay.conf", 0o644),
    ("mailrelay/setup/system/*.tmpfiles", "usr/lib/tmpfiles.d/mailrelay.conf", 0o644),
)
"""Files of the repository, as patterns, the directory or the `.conf` in the package, and the mode."""
COMPRESSED = (
    ("CHANGELOG.md", f"{DOC}/changelog.gz"),
    *(
        (f"contrib/man/{page}", f"usr/share/man/man{page[-1]}/{page}.gz")
        for page in ("mailrelay.1", "mailrelay-queue.1", "mailrelay.toml.5", "mailrelay-sendmail.8")
    ),
)
COMMAND = f"""\
#!/{LIBRARY}/bin/python3 -I
from mailrelay.__main__ import main
main()
"""
CONTROL = """\
Package: mailrelay
Version: {version}
Architecture: {architecture}
Maintainer: {maintainer}
Installed-Size: {size}
Depends: {python}, libc6 (>= {libc})
Recommends: openssh-client, ca-certificates
Suggests: network-manager, libnotify-bin
Section: mail
Priority: optional
Description: mail submission for your own computer, through SSH to your own server
 Mail clients send to localhost:7777. mailrelay puts the message on disk, opens
 an SSH connection to your own server when it is needed, and hands the message
 to the mail server there. Refused, late and broken mail is told at once.
 .
 This package has its Python libraries with it. They get no updates from
 Debian: build and install the package again for that.
"""
COPYRIGHT = """\
Format: https://www.debian.org/doc/packaging-manuals/copyright-format/1.0/
Upstream-Name: mailrelay
Comment: The libraries in /usr/lib/mailrelay are taken from PyPI as they are.
 Their licences are named below as their metadata name them, and their texts
 are in the directories *.dist-info there.

Files: *
Copyright: {holder}
License: Expat
{licence}
"""


def main() -> None:
    """Builds the package that the command line describes."""
    options = _options()
    os.umask(0o022)
    with tempfile.TemporaryDirectory(prefix="mailrelay-debian-") as scratch:
        tree = Path(scratch) / "tree"
        tree.mkdir()
        pip = options.pip or _pip(options.python, Path(scratch))
        _environment(tree, options.python, options.wheel or _wheel(pip, Path(scratch)), pip)
        _copies(tree)
        _write(tree / "usr/bin/mailrelay", COMMAND, 0o755)
        _texts(tree, options)
        _control(tree, options)
        for path in sorted(tree.rglob("*"), reverse=True):
            os.utime(path, (options.epoch, options.epoch), follow_symlinks=False)
        os.utime(tree, (options.epoch, options.epoch))
        options.output.mkdir(parents=True, exist_ok=True)
        made = options.output / f"{NAME}_{options.version}_{options.architecture}.deb"
        compression = ("-Zgzip", "-z1") if options.quick else ("-Zxz",)
        argv = ["dpkg-deb", "--root-owner-group", "--uniform-compression", *compression, "--build", tree, made]
        environ = os.environ | {"SOURCE_DATE_EPOCH": str(options.epoch)}
        subprocess.run(argv, check=True, stdout=subprocess.DEVNULL, env=environ)
    print(made)


def _options() -> argparse.Namespace:
    said = re.search(r'^__version__ = "(.*)"', (ROOT / "mailrelay/__init__.py").read_text("utf-8"), re.MULTILINE)
    assert said
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--output", type=Path, default=ROOT / "dist", help="a directory; default: dist")
    parser.add_argument("--revision", default="1", help="the Debian revision; default: 1")
    parser.add_argument("--python", type=Path, default=Path("/usr/bin/python3"), help="default: /usr/bin/python3")
    parser.add_argument("--wheel", type=Path, help="of mailrelay; default: built from this checkout")
    parser.add_argument("--pip", type=Path, help="a Python that has pip; default: one made with python3-venv")
    parser.add_argument("--quick", action="store_true", help="compress little, for tests")
    options = parser.parse_args()
    if shutil.which("dpkg-deb") is None:
        parser.error("there is no dpkg-deb; run this on Debian or a relative of it")
    options.python = options.python.resolve()
    options.package = _owner(options.python)
    if not options.package:
        parser.error(f"{options.python} is of no Debian package; name one that is with --python")
    options.version = f"{said[1]}-{options.revision}"
    options.architecture = _output("dpkg", "--print-architecture")
    options.epoch = int(os.environ.get("SOURCE_DATE_EPOCH") or (ROOT / "CHANGELOG.md").stat().st_mtime)
    name, address = os.environ.get("DEBFULLNAME", "Local build"), os.environ.get("DEBEMAIL", "root@localhost")
    options.maintainer = f"{name} <{address}>"
    return options


def _output(*argv: str) -> str:
    return subprocess.run(argv, check=True, capture_output=True, text=True).stdout.strip()


def _owner(path: Path) -> str:
    """The package to depend on for this Python; "" if it is of none. "-minimal" has only a part of its library."""
    found = subprocess.run(["dpkg-query", "--search", path], check=False, capture_output=True, text=True)
    return found.stdout.partition(":")[0].removesuffix("-minimal")


def _pip(python: Path, scratch: Path) -> Path:
    """A Python that has pip."""
    subprocess.run([python, "-m", "venv", scratch / "pip"], check=True)
    return scratch / "pip/bin/python"


def _wheel(pip: Path, scratch: Path) -> Path:
    """A wheel of this checkout."""
    argv = [pip, "-m", "pip", "wheel", "-q", "--no-deps", "-w", scratch / "wheel", ROOT]
    subprocess.run(argv, check=True)
    return next((scratch / "wheel").glob("*.whl"))


def _environment(tree: Path, python: Path, wheel: Path, pip: Path) -> None:
    """The environment with mailrelay and its libraries, as it will be at its place."""
    place = tree / LIBRARY
    subprocess.run([python, "-m", "venv", "--without-pip", place], check=True)
    argv = [pip, "-m", "pip", "--python", place / "bin/python", "install", "-q", "--no-compile", "--only-binary=:all:"]
    subprocess.run([*argv, f"{wheel.resolve()}[apprise]"], check=True)
    for path in place.iterdir():
        if path.name not in ("bin", "lib", "pyvenv.cfg"):
            # Headers, what the wheel has for other places (it is copied below), and a link of venv.
            path.unlink() if path.is_symlink() or path.is_file() else shutil.rmtree(path)
    for path in (place / "bin").iterdir():
        path.unlink()
    for name, target in (("python3", python), ("python", "python3")):
        (place / "bin" / name).symlink_to(target)
    version = python.name.removeprefix("python")
    _write(place / "pyvenv.cfg", f"home = {python.parent}\ninclude-system-site-packages = false\nversion = {version}\n")
    _prune(place)


def _prune(place: Path) -> None:
    """Removes what is of no use in a package, and makes the modes those of a package."""
    for path in sorted(place.rglob("*"), reverse=True):
        # What pip notes about this installation: paths of this machine, and no use without pip.
        noted = path.parent.suffix == ".dist-info" and path.name in (
            "RECORD",
            "direct_url.json",
            "REQUESTED",
            "INSTALLER",
        )
        if noted or path.name == ".gitignore" or path.parent.name == "sqlite_extra_binaries":
            # The last are programs and extensions of SQLite, which apsw brings along and mailrelay never loads.
            path.unlink()
        elif not path.is_symlink():
            path.chmod(0o755 if path.is_dir() else 0o644)


def _copies(tree: Path) -> None:
    for pattern, target, mode in FILES:
        for source in sorted(ROOT.glob(pattern)):
            to = tree / target if target.endswith(".conf") else tree / target / source.name
            text = source.read_text("utf-8")
            if source.suffix == ".service":
                text = text.replace("%h/.local/bin/", "/usr/bin/")
            _write(to, text, mode)
    for pattern, target in COMPRESSED:
        _compress(tree / target, (ROOT / pattern).read_text("utf-8"))


def _texts(tree: Path, options: argparse.Namespace) -> None:
    """Copyright, changelog, and the overrides of lintian."""
    licence = (ROOT / "LICENSE").read_text("utf-8")
    holder = re.search(r"^Copyright (?:\(c\) )?(.*)", licence, re.MULTILINE)
    assert holder
    body = licence[holder.end() :].strip().splitlines()
    text = COPYRIGHT.format(holder=holder[1], licence="\n".join(f" {line or '.'}" for line in body))
    for metadata in sorted((tree / LIBRARY).rglob("*.dist-info/METADATA")):
        found = HeaderParser().parsestr(metadata.read_text("utf-8"))
        if found["Name"] != "mailrelay-ssh":
            text += _stanza(found, metadata.parent.name)
    _write(tree / DOC / "copyright", text)
    date = formatdate(options.epoch, usegmt=True).replace("GMT", "+0000")
    entry = f"mailrelay ({options.version}) unstable; urgency=medium\n\n  * Built by contrib/debian/build.py.\n\n"
    _compress(tree / DOC / "changelog.Debian.gz", f"{entry} -- {options.maintainer}  {date}\n")
    _write(tree / f"usr/share/lintian/overrides/{NAME}", (HERE / "lintian-overrides").read_text("utf-8"))


def _stanza(found: Message, directory: str) -> str:
    """One library in the file `copyright`."""
    library = directory.partition("-")[0]
    classifiers = [one.rpartition(" :: ")[2] for one in found.get_all("Classifier", []) if one.startswith("License ::")]
    named = found["License-Expression"] or found["License"] or ""
    # Some have the whole text there.
    licence = named if named and len(named) < 60 else ", ".join(classifiers) or "unnamed"
    author = " ".join((found["Author"] or found["Author-email"] or f"the authors of {library}").split())
    return (
        f"\nFiles: {LIBRARY}/lib/*/site-packages/{library}*\nCopyright: {author}\n"
        f"License: {re.sub(r'[^A-Za-z0-9.+-]+', '-', licence)}\n {licence}; its text is in {directory}.\n"
        + (" On Debian it is in /usr/share/common-licenses/GPL-2, too.\n" if "GPL-2" in licence else "")
    )


def _control(tree: Path, options: argparse.Namespace) -> None:
    """The directory DEBIAN."""
    files = sorted(path for path in tree.rglob("*") if path.is_file() and not path.is_symlink())
    size = sum(-(-path.stat().st_size // 1024) for path in files)
    control = CONTROL.format(
        **vars(options) | {"python": options.package, "size": size, "libc": ".".join(map(str, max(_libc(tree))))}
    )
    sums = "".join(f"{hashlib.md5(path.read_bytes()).hexdigest()}  {path.relative_to(tree)}\n" for path in files)
    _write(tree / "DEBIAN/control", control)
    _write(tree / "DEBIAN/md5sums", sums)
    for name in ("postinst", "prerm", "postrm"):
        _write(tree / "DEBIAN" / name, (HERE / name).read_text("utf-8"), 0o755)


def _libc(tree: Path) -> Iterator[tuple[int, int]]:
    """The versions of glibc that the libraries were built for, by the tags of their wheels (PEP 600)."""
    yield 2, 17
    for path in (tree / LIBRARY).rglob("*.dist-info/WHEEL"):
        tags = [tuple(map(int, one)) for one in re.findall(r"manylinux_(\d+)_(\d+)_", path.read_text("utf-8"))]
        if tags:
            yield min(tags)  # type: ignore[misc]


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    path.chmod(mode)


def _compress(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(gzip.compress(text.encode(), 9, mtime=0))
    path.chmod(0o644)


if __name__ == "__main__":
    try:
        main()
    except subprocess.CalledProcessError as error:
        # It has said why.
        sys.exit(f"build.py: {' '.join(map(str, error.cmd))}: status {error.returncode}")
