"""A fresh Debian root for the tests of the packages: chroot, services that run in it, and its files."""

import os
import pathlib
import shlex
import socket
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[2]
# Made by scripts/ensure-debian-root.
ARCHIVE = ROOT / "target/tools/debian-root.tar"
# Changed by every installation: database and log of dpkg, and backups of the files of users.
VOLATILE = (
    "var/lib/dpkg",
    "var/log",
    "var/cache",
    "run",
    "etc/passwd",
    "etc/group",
    "etc/shadow",
    "etc/gshadow",
    "etc/subuid",
    "etc/subgid",
    "etc/.pwd.lock",
)
TIMEOUT_S = 60


class FreshRoot:
    """Directory with an unpacked root; removed at the end."""

    def __init__(self):
        if os.getuid() != 0 or not ARCHIVE.exists():
            raise RuntimeError("run scripts/ensure-debian-root as root first")
        self.folder = tempfile.TemporaryDirectory(prefix="perfwatch-root-")
        self.path = pathlib.Path(self.folder.name)
        self.path.chmod(0o755)
        self.services = []
        subprocess.run(["tar", "-xf", ARCHIVE, "-C", self.path, "--numeric-owner"], check=True)
        # The packages must have the files that the root lacks; a test needs no fsync.
        (self.path / "etc/dpkg/dpkg.cfg.d/99mmdebstrap").write_text("force-unsafe-io\n")
        (self.path / "packages").mkdir()

    def close(self):
        for service in self.services:
            service.stop()
        self.folder.cleanup()

    def command(self, *command, user=None):
        """Command line that runs in the root, with /proc of its own; killed with its parent."""
        switch = ["setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--"] if user else []
        inner = shlex.join(["chroot", str(self.path), *switch, *command])
        script = f"mount -t proc proc {shlex.quote(str(self.path / 'proc'))} && exec {inner}"
        return ["unshare", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", script]

    def run(self, *command, user=None, check=True, **variables):
        """Runs a command in the root; returns its result with the output as text."""
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C", "DEBIAN_FRONTEND": "noninteractive"}
        result = subprocess.run(
            self.command(*command, user=user),
            env={**environment, **variables},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
        )
        if check and result.returncode != 0:
            raise AssertionError(f"{command}: exit code {result.returncode}\n{result.stdout}")
        return result

    def dpkg(self, *arguments, check=True):
        return self.run("dpkg", *arguments, check=check)

    def copy(self, package):
        """Copies a package into the root; returns its path there."""
        target = self.path / "packages" / package.name
        target.write_bytes(package.read_bytes())
        return f"/packages/{package.name}"

    def files(self):
        """Paths of all files and directories, except what every installation changes."""
        found = set()
        for folder, directories, files in os.walk(self.path):
            relative = os.path.relpath(folder, self.path)
            directories[:] = [
                name for name in directories if os.path.normpath(f"{relative}/{name}") not in (*VOLATILE, "packages", "proc")
            ]
            found |= {os.path.normpath(f"{relative}/{name}") for name in (*directories, *files)}
        return {path for path in found if path.rstrip("-") not in VOLATILE}

    def start(self, name):
        """Starts the program of a unit as systemd would: user, environment, notification of its readiness."""
        service = Service(self, name)
        self.services.append(service)
        return service


class Service:
    """Program of a unit, started by hand."""

    def __init__(self, root, name):
        unit = read_unit(root.path / f"usr/lib/systemd/system/{name}.service")
        # The name is unique: an earlier service of the root may still end.
        path = f"/run/notify-{name}-{len(root.services)}"
        self.notifications = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.notifications.bind(str(root.path) + path)
        os.chmod(str(root.path) + path, 0o666)
        self.notifications.settimeout(0.5)
        environment = dict(variable.split("=", 1) for variable in unit["Environment"])
        self.log_path = root.path / f"packages/{name}-{len(root.services)}.log"
        with open(self.log_path, "wb") as log:
            self.process = subprocess.Popen(
                root.command(*unit["ExecStart"][0].split(), user=unit["User"][0]),
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET": path, **environment},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )
        self.path = root.path / path.lstrip("/")

    def log(self):
        return self.log_path.read_text(errors="replace")

    def wait_ready(self):
        """Waits for the notification that systemd waits for."""

        def receive():
            try:
                return self.notifications.recv(4096).decode()
            except TimeoutError:
                if self.process.poll() is not None:
                    raise AssertionError(f"ended with {self.process.returncode}\n{self.log()}") from None
                return None

        message = eventually("the service is ready", receive)
        if "READY=1" not in message.splitlines():
            raise AssertionError(f"{message!r}\n{self.log()}")

    def program_pid(self):
        """The program: the child of unshare, which is process 1 of its namespace."""
        children = pathlib.Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text()
        return int(children.split()[0])

    def stop(self):
        """Stops the program in order; returns its exit code."""
        if self.process.poll() is None:
            try:
                os.kill(self.program_pid(), 15)
            except (ProcessLookupError, IndexError, FileNotFoundError):
                pass
            try:
                self.process.wait(TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        self.notifications.close()
        self.path.unlink(missing_ok=True)
        return self.process.returncode


def read_unit(path):
    """Settings of a unit by key, with all values of a key."""
    settings = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, value = line.split("=", 1)
            settings.setdefault(key, []).append(value)
    return settings


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def eventually(description, check):
    """Waits until a check returns a true value, and returns it."""
    deadline = time.monotonic() + TIMEOUT_S
    while time.monotonic() < deadline:
        result = check()
        if result:
            return result
        time.sleep(0.2)
    raise AssertionError(f"not within {TIMEOUT_S} s: {description}")
