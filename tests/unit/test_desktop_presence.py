"""A laptop at its login screen can have a desktop; a server and a container cannot."""

from pathlib import Path

import pytest

from mailrelay.notify.desktop_presence import can_have_desktop

SERVICE = "[D-BUS Service]\nName=org.freedesktop.Notifications\nExec=/usr/bin/dunst\n"


def test_a_server_has_none_whatever_its_session_bus_and_a_display_that_ssh_forwards(tmp_path: Path) -> None:
    service = tmp_path / "usr/share/dbus-1/services/ca.desrt.dconf.service"
    service.parent.mkdir(parents=True)
    service.write_text("[D-BUS Service]\nName=ca.desrt.dconf\n")
    environ = {
        "HOME": str(tmp_path / "home"),
        "DBUS_SESSION_BUS_ADDRESS": "unix:path=/run/user/1000/bus",
        "XDG_RUNTIME_DIR": str(tmp_path),
        "DISPLAY": "localhost:10.0",
    }
    assert not can_have_desktop(environ, tmp_path, "linux")
    assert not can_have_desktop({}, tmp_path, "linux")


@pytest.mark.parametrize(
    "file",
    [
        "usr/share/xsessions/xfce.desktop",
        "usr/share/wayland-sessions/gnome.desktop",
        "usr/local/share/wayland-sessions/sway.desktop",
        "run/current-system/sw/share/xsessions/none+i3.desktop",
        "data/wayland-sessions/hyprland.desktop",
        "usr/share/dbus-1/services/org.knopwob.dunst.service",
        "home/.local/share/dbus-1/services/mako.service",
        "home/.xinitrc",
        "home/.xsession",
        "usr/bin/Xorg",
        "usr/bin/Xwayland",
        "runtime/wayland-0",
    ],
)
def test_a_computer_at_its_login_screen_has_one_on_its_disk(tmp_path: Path, file: str) -> None:
    environ = {
        "HOME": str(tmp_path / "home"),
        "XDG_DATA_DIRS": f"{tmp_path}/data",
        "XDG_RUNTIME_DIR": f"{tmp_path}/runtime",
    }
    assert not can_have_desktop(environ, tmp_path, "linux")
    (tmp_path / file).parent.mkdir(parents=True)
    (tmp_path / file).write_text(SERVICE)
    (tmp_path / file).chmod(0o755)
    assert can_have_desktop(environ, tmp_path, "linux")


@pytest.mark.parametrize("environ", [{"WAYLAND_DISPLAY": "wayland-1"}, {"DISPLAY": ":0"}])
def test_a_session_that_runs_is_a_desktop(tmp_path: Path, environ: dict[str, str]) -> None:
    assert can_have_desktop(environ, tmp_path, "linux")


def test_a_mac_has_one(tmp_path: Path) -> None:
    assert can_have_desktop({}, tmp_path, "darwin")
