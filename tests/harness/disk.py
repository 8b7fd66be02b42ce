"""A small disk of its own for one directory, which a test can make fail. Nothing outside of its mount namespace sees it."""

import subprocess
from pathlib import Path

from harness.processes import Child, missing, program

SIZE = 96 * 1024 * 1024


class Disk:
    """An ext4 file system in a file, mounted at `directory`. within: the start of a command line that sees it."""

    def __init__(self, image: Path, directory: Path) -> None:
        self._image, self._directory = image, directory
        self._mount = program("mount", "mount")
        unshare, nsenter = program("unshare", "util-linux"), program("nsenter", "util-linux")
        with image.open("wb") as file:
            file.truncate(SIZE)
        subprocess.run([program("mkfs.ext4", "e2fsprogs"), "-q", str(image)], check=True, capture_output=True)
        directory.mkdir(mode=0o700)
        self._keeper = Child([unshare, "--mount", "sh", "-c", "echo kept; exec sleep infinity"])
        self._keeper.wait_line("kept")
        self.within = (nsenter, "--target", str(self._keeper.pid), "--mount")
        if self.run(self._mount, "-o", "loop", str(image), str(directory)).returncode:
            missing("the right to mount a loop device")
        self.run("chmod", "700", str(directory))

    def run(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Runs a program that sees the disk."""
        return subprocess.run([*self.within, *words], capture_output=True, text=True, check=False)

    def become_read_only(self) -> None:
        """As after an error that the kernel has found: also for files that are open."""
        assert self.run(self._mount, "-o", "remount,abort", str(self._directory)).returncode == 0

    def mend(self) -> None:
        """Unmounts the disk, which no program may use, and mounts it again."""
        for words in (
            ("umount", str(self._directory)),
            (self._mount, "-o", "loop", str(self._image), str(self._directory)),
        ):
            done = self.run(*words)
            assert done.returncode == 0, done.stderr

    def close(self) -> None:
        self._keeper.stop()
