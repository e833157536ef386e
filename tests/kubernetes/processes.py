"""Processes that end with us, whatever happens, and what they cost."""

import os
import pathlib
import shutil
import signal
import subprocess

# The kernel ends a child whose parent is gone, even when that was killed.
LEASH = ["setpriv", "--pdeathsig", "KILL"] if shutil.which("setpriv") else []
TICKS = os.sysconf("SC_CLK_TCK")


class Process:
    """A command that runs; it can be stopped, killed and begun again."""

    def __init__(self, name, command, folder, **env):
        self.name, self.command = name, [str(word) for word in command]
        self.path = pathlib.Path(folder) / f"{name}.log"
        self.env, self.child = os.environ | env, None
        # Else a sidecar would take itself to be in a pod.
        self.env.pop("KUBERNETES_SERVICE_HOST", None)

    def start(self):
        assert not self.is_running(), f"{self.name} runs already"
        with open(self.path, "ab") as log:
            self.child = subprocess.Popen([*LEASH, *self.command], stdin=subprocess.DEVNULL,
                                          stdout=log, stderr=log, env=self.env,
                                          # Else Ctrl-C would reach it before us.
                                          start_new_session=True)
        return self

    def is_running(self):
        return self.child is not None and self.child.poll() is None

    def signal(self, number):
        self.child.send_signal(number)

    def kill(self):
        """As a crash does it."""
        if self.child is not None:
            self.child.kill()
            self.child.wait()

    def stop(self, within=30):
        """As it wants to be stopped; its exit code."""
        if not self.is_running():
            return self.child and self.child.returncode
        self.child.terminate()
        try:
            return self.child.wait(within)
        except subprocess.TimeoutExpired:
            self.kill()
            return -signal.SIGKILL

    def log(self):
        return self.path.read_text(errors="replace") if self.path.exists() else ""

    def cpu(self):
        """Seconds of CPU that it has used."""
        fields = pathlib.Path(f"/proc/{self.child.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / TICKS

    def rss(self):
        """Bytes of memory that it holds."""
        pages = pathlib.Path(f"/proc/{self.child.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    def __enter__(self):
        try:
            return self.start()
        except BaseException as error:
            self.__exit__(type(error))
            raise

    def __exit__(self, kind, *_):
        self.stop()
        # Whoever interrupts us wants no logs.
        if kind is not None and issubclass(kind, Exception) and self.log():
            print(f"--- {self.name}\n{self.log()[-4000:]}")
