"""Finds out whether this computer can have a desktop session at all.

A notification fails in the same way on a laptop where nobody is logged in yet and on a server. On the laptop, notices wait
for the desktop; on the server they would wait for ever. So files are looked for that only a computer with a desktop has.

D-Bus is not asked: servers have a session bus too, for every login.
"""

import shutil
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

_X_SERVERS = ("Xorg", "Xwayland", "startx")
_SERVICE = b"Name=org.freedesktop.Notifications"


def can_have_desktop(environ: Mapping[str, str], root: Path = Path("/"), platform: str = sys.platform) -> bool:
    """Whether a desktop session runs, or one could be started on this computer. False only if there is no sign of one.

    environ: the environment of this process. root: the directory in which the system's files are looked for.

    The signs: macOS; a display in the environment, unless ssh forwards it; a Wayland socket of this account; a desktop
    session that a display manager offers (xsessions, wayland-sessions); ~/.xinitrc or ~/.xsession; an X server; a
    notification service that D-Bus can start.
    """
    if platform == "darwin" or environ.get("WAYLAND_DISPLAY") or environ.get("DISPLAY", "").startswith((":", "/")):
        return True
    return any(_signs(environ, root))


def _signs(environ: Mapping[str, str], root: Path) -> Iterator[bool]:
    home = Path(environ.get("HOME") or "/nonexistent")
    yield any((home / name).exists() for name in (".xinitrc", ".xsession"))
    yield any(Path(environ.get("XDG_RUNTIME_DIR") or "/nonexistent").glob("wayland-*"))
    system = (root / name for name in ("usr/share", "usr/local/share", "run/current-system/sw/share"))
    given = (Path(name) for name in environ.get("XDG_DATA_DIRS", "").split(":") if name.startswith("/"))
    for data in (home / ".local/share", *system, *given):
        yield any((data / "xsessions").glob("*.desktop"))
        yield any((data / "wayland-sessions").glob("*.desktop"))
        yield any(_SERVICE in _content(file) for file in (data / "dbus-1/services").glob("*.service"))
    path = ":".join(
        str(root / name) for name in ("usr/bin", "usr/local/bin", "usr/lib/xorg", "run/current-system/sw/bin")
    )
    yield any(shutil.which(name, path=path) for name in _X_SERVERS)


def _content(file: Path) -> bytes:
    try:
        return file.read_bytes()
    except OSError:
        return b""
