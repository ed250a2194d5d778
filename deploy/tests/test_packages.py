"""Tests of the Debian packages: installed, started, upgraded, removed and purged in a fresh root.

Run by `make test`:
    scripts/ensure-debian-root && python3 -m unittest discover -s deploy/tests -p test_packages.py
"""

import json
import os
import pathlib
import re
import shutil
import stat
import subprocess
import tempfile
import unittest
import urllib.error
import urllib.request

from fresh_root import ROOT, FreshRoot, eventually, free_port, read_unit

NEXT_VERSION = "99.0.0"


def build_packages(folder):
    """Packages of the debug build, or of the directory PERFWATCH_PROGRAMS; nothing is compressed."""
    programs = os.environ.get("PERFWATCH_PROGRAMS", str(ROOT / "target/debug"))
    command = [ROOT / "scripts/package", programs, folder]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, "COMPRESSION": "none"})
    packages = sorted(pathlib.Path(folder).glob("*.deb"))
    return {package.name.split("_")[0]: package for package in packages}


def next_version(package, folder):
    """The package with a higher version and a changed configuration file."""
    tree = pathlib.Path(folder) / "tree"
    subprocess.run(["dpkg-deb", "--raw-extract", package, tree], check=True)
    control = tree / "DEBIAN/control"
    control.write_text(re.sub(r"(?m)^Version: .*$", f"Version: {NEXT_VERSION}", control.read_text()))
    for conffile in (tree / "DEBIAN/conffiles").read_text().split():
        with open(tree / conffile.lstrip("/"), "a", encoding="utf-8") as file:
            file.write("# Comment of the next version.\n")
    target = pathlib.Path(folder) / f"{package.name.split('_')[0]}_{NEXT_VERSION}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "--build", tree, target], check=True, capture_output=True)
    shutil.rmtree(tree)
    return target


def get(url, token=None):
    """Body of a response; empty if there is none."""
    return get_bytes(url, token).decode()


def get_bytes(url, token=None):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {token}"} if token else {})
    try:
        with urllib.request.urlopen(request, timeout=5) as response:
            return response.read()
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return b""


class PackageTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.TemporaryDirectory(prefix="perfwatch-packages-")
        cls.addClassCleanup(cls.folder.cleanup)
        cls.packages = build_packages(cls.folder.name)

    def setUp(self):
        self.root = FreshRoot()
        self.addCleanup(self.root.close)
        self.before = self.root.files()

    def edit(self, name, *replacements):
        path = self.root.path / "etc/perfwatch" / name
        text = path.read_text()
        for before, after in replacements:
            self.assertIn(before, text)
            text = text.replace(before, after)
        path.write_text(text)
        return text

    def has_user(self, name):
        return f"\n{name}:" in (self.root.path / "etc/passwd").read_text()

    def mode(self, path):
        status = (self.root.path / path).stat()
        return stat.S_IMODE(status.st_mode), status.st_uid

    def doctor(self, program, config, user):
        result = self.root.run(program, "doctor", "--json", "--config", f"/etc/perfwatch/{config}", user=user, check=False)
        report = json.loads(result.stdout[result.stdout.index("{") : result.stdout.rindex("}") + 1])
        return {check["check"]: (check["status"], check["message"]) for check in report["checks"]}

    def user_command(self, *command, text=""):
        return self.root.run(
            "sh", "-c", f'printf %s "$INPUT" | perfwatch {" ".join(command)} --config /etc/perfwatch/hub.yaml',
            user="perfwatch", INPUT=text,
        ).stdout  # fmt: skip

    def hub_with_admin(self):
        """Starts the hub on a free port; returns the service, its URL and a token."""
        port = free_port()
        self.edit("hub.yaml", ("127.0.0.1:8000", f"127.0.0.1:{port}"), ("interval: 2s", "interval: 250ms"))
        hub = self.root.start("perfwatch")
        hub.wait_ready()
        self.user_command("user", "add", "mira", "--role", "admin", text="initial-password-1")
        token = self.user_command("user", "token", "mira", "--scope", "admin").split()[-1]
        return hub, f"http://127.0.0.1:{port}", token

    def enrollment_token(self, url, token):
        body = json.dumps({"name": "test"}).encode()
        headers = {"Authorization": f"Bearer {token}", "Content-Type": "application/json"}
        request = urllib.request.Request(f"{url}/api/v1/enrollment-tokens", data=body, headers=headers)
        with urllib.request.urlopen(request, timeout=10) as response:
            return json.load(response)["token"]

    def assert_purged(self, name):
        self.root.dpkg("--purge", name)
        self.assertEqual(self.root.files() - self.before, set())
        self.assertFalse(self.has_user(name))

    def test_hub_is_installed_upgraded_and_purged(self):
        root, package = self.root, self.packages["perfwatch"]
        root.dpkg("-i", root.copy(package))
        self.assertTrue(self.has_user("perfwatch"))
        mode, owner = self.mode("var/lib/perfwatch")
        self.assertEqual(mode, 0o700)
        self.assertNotEqual(owner, 0)
        self.assertEqual(self.mode("etc/perfwatch/hub.yaml"), (0o640, 0))
        wanted = root.path / "etc/systemd/system/multi-user.target.wants/perfwatch.service"
        self.assertTrue(wanted.is_symlink(), "the service starts at boot")
        for path in ("man/man1/perfwatch.1.gz", "bash-completion/completions/perfwatch", "doc/perfwatch/copyright"):
            self.assertTrue((root.path / "usr/share" / path).exists(), path)

        hub, url, token = self.hub_with_admin()
        self.assertEqual(get(f"{url}/healthz"), "ok\n")
        self.assertIn("ok", self.user_command("health", "--ready"))

        def snapshots():
            name = json.loads(get(f"{url}/api/v1/hosts", token) or '{"hosts": []}')["hosts"]
            return name and self.user_command("export", name[0]["id"], "--from", "-5m").count("\n") > 2

        eventually("snapshots are stored", snapshots)
        checks = self.doctor("perfwatch", "hub.yaml", "perfwatch")
        self.assertEqual([check for check, (status, _) in checks.items() if status == "error"], [], checks)
        self.assertIn("a hub runs", checks["port"][1])

        edited = (root.path / "etc/perfwatch/hub.yaml").read_text()
        history = self.mode("var/lib/perfwatch/history/history.db")
        root.dpkg("--force-confold", "-i", root.copy(next_version(package, self.folder.name)))
        self.assertIn(NEXT_VERSION, root.run("dpkg-query", "-W", "-f=${Version}", "perfwatch").stdout)
        self.assertEqual((root.path / "etc/perfwatch/hub.yaml").read_text(), edited, "edits stay")
        self.assertIn("next version", (root.path / "etc/perfwatch/hub.yaml.dpkg-dist").read_text())
        self.assertEqual(self.mode("var/lib/perfwatch/history/history.db"), history)
        self.assertEqual(hub.stop(), 0)
        hub = root.start("perfwatch")
        hub.wait_ready()
        self.assertEqual(json.loads(get(f"{url}/api/v1/hosts", token))["total"], 1, "history stays")
        self.assertEqual(hub.stop(), 0)

        root.dpkg("--remove", "perfwatch")
        self.assertFalse((root.path / "usr/bin/perfwatch").exists())
        self.assertFalse((root.path / "usr/lib/systemd/system/perfwatch.service").exists())
        self.assertTrue((root.path / "var/lib/perfwatch/history/history.db").exists(), "data stay until a purge")
        self.assertTrue((root.path / "etc/perfwatch/hub.yaml").exists())
        self.assert_purged("perfwatch")

    def test_agent_sends_to_a_hub_and_is_purged(self):
        hub_root = FreshRoot()
        self.addCleanup(hub_root.close)
        root, self.root = self.root, hub_root
        hub_root.dpkg("-i", hub_root.copy(self.packages["perfwatch"]))
        _, url, token = self.hub_with_admin()
        self.root = root

        root.dpkg("-i", root.copy(self.packages["perfwatch-agent"]))
        self.assertTrue(self.has_user("perfwatch-agent"))
        wanted = root.path / "etc/systemd/system/multi-user.target.wants/perfwatch-agent.service"
        self.assertFalse(wanted.is_symlink(), "the administrator enables the service")
        checks = self.doctor("perfwatch-agent", "agent.yaml", "perfwatch-agent")
        self.assertEqual((checks["hub"][0], checks["process"][0]), ("error", "warning"), checks)
        secret = self.enrollment_token(url, token)
        secret_file = root.path / "etc/perfwatch/agent.token"
        secret_file.write_text(secret)
        shutil.chown(secret_file, group=(root.path / "etc/perfwatch/agent.yaml").stat().st_gid)
        secret_file.chmod(0o640)
        self.edit(
            "agent.yaml",
            ("http://127.0.0.1:8000", url),
            ("# token: file", "token: file"),
            ("interval: 2s", "interval: 250ms\n  name: packaged"),
        )
        agent = root.start("perfwatch-agent")
        agent.wait_ready()
        eventually("the snapshots of the agent arrive", lambda: '"packaged"' in get(f"{url}/api/v1/hosts", token))
        checks = self.doctor("perfwatch-agent", "agent.yaml", "perfwatch-agent")
        self.assertEqual((checks["credential"][0], checks["process"][0], checks["data"][0]), ("ok",) * 3, checks)
        edited = (root.path / "etc/perfwatch/agent.yaml").read_text()
        root.dpkg("--force-confold", "-i", root.copy(next_version(self.packages["perfwatch-agent"], self.folder.name)))
        self.assertEqual((root.path / "etc/perfwatch/agent.yaml").read_text(), edited)
        self.assertEqual(agent.stop(), 0)
        conflict = root.dpkg("-i", root.copy(self.packages["perfwatch"]), check=False)
        self.assertIn("conflicts with perfwatch", conflict.stdout, "the hub contains an agent")
        self.assertNotEqual(conflict.returncode, 0)
        root.dpkg("--remove", "perfwatch-agent")
        self.assertTrue((root.path / "var/lib/perfwatch-agent/agent/secret").exists())
        self.assert_purged("perfwatch-agent")

    def test_agent_is_configured_by_the_installation(self):
        hub_root = FreshRoot()
        self.addCleanup(hub_root.close)
        root, self.root = self.root, hub_root
        hub_root.dpkg("-i", hub_root.copy(self.packages["perfwatch"]))
        _, url, token = self.hub_with_admin()
        secret = self.enrollment_token(url, token)
        # The hub offers the small program.
        offered = get_bytes(f"{url}/download/agent-linux-{os.uname().machine}", secret)
        self.assertEqual(offered, (hub_root.path / "usr/bin/perfwatch-agent").read_bytes())
        self.root = root

        variables = {"PERFWATCH_AGENT_HUB": url, "PERFWATCH_AGENT_TOKEN": secret}
        output = root.run("dpkg", "-i", root.copy(self.packages["perfwatch-agent"]), **variables).stdout
        self.assertIn(f"sends to {url}", output)
        self.assertEqual(self.mode("etc/perfwatch/agent.token"), (0o640, 0))
        wanted = root.path / "etc/systemd/system/multi-user.target.wants/perfwatch-agent.service"
        self.assertTrue(wanted.is_symlink(), "the service starts at boot")
        agent = root.start("perfwatch-agent")
        agent.wait_ready()
        eventually("the snapshots of the agent arrive", lambda: json.loads(get(f"{url}/api/v1/hosts", token))["total"] == 2)
        self.assertEqual(agent.stop(), 0)
        self.assert_purged("perfwatch-agent")

    def test_hub_listens_where_the_installation_says(self):
        package, config = self.root.copy(self.packages["perfwatch"]), self.root.path / "etc/perfwatch/hub.yaml"
        for invalid in ("0.0.0.0", "0.0.0.0:", "0.0.0.0:8a0", "0.0.0.0:80'|e", "0.0.0.0:65536", "::1:80", ":80"):
            with self.subTest(invalid):
                output = self.root.run("dpkg", "-i", package, PERFWATCH_HUB_LISTEN=invalid).stdout
                self.assertIn("it is ignored", output)
                self.assertIn("listens on 127.0.0.1:8000", output)
                self.root.dpkg("--purge", "perfwatch")
        address = f"127.0.0.1:{free_port()}"
        output = self.root.run("dpkg", "-i", package, PERFWATCH_HUB_LISTEN=address).stdout
        self.assertIn(f"listens on {address}", output)
        self.assertEqual(self.mode("etc/perfwatch/hub.yaml"), (0o640, 0))
        edited = config.read_text()
        hub = self.root.start("perfwatch")
        hub.wait_ready()
        self.assertEqual(get(f"http://{address}/healthz"), "ok\n")
        self.assertEqual(hub.stop(), 0)
        # Upgrades leave the address.
        self.root.run("dpkg", "-i", package, PERFWATCH_HUB_LISTEN="0.0.0.0:1")
        self.assertEqual(config.read_text(), edited)

    def test_agent_of_the_install_script_is_not_replaced(self):
        unit = self.root.path / "etc/systemd/system/perfwatch-agent.service"
        unit.parent.mkdir(parents=True, exist_ok=True)
        unit.write_text("[Service]\n")
        for name, package in self.packages.items():
            with self.subTest(name):
                result = self.root.dpkg("-i", self.root.copy(package), check=False)
                self.assertNotEqual(result.returncode, 0)
                self.assertIn("Remove it first", result.stdout)
                self.assertEqual(unit.read_text(), "[Service]\n")


class UnitTest(unittest.TestCase):
    def test_units_start_the_packaged_programs(self):
        folder = tempfile.TemporaryDirectory(prefix="perfwatch-packages-")
        self.addCleanup(folder.cleanup)
        for name, package in build_packages(folder.name).items():
            with self.subTest(name):
                subprocess.run(["dpkg-deb", "--extract", package, folder.name], check=True)
                path = pathlib.Path(folder.name) / f"usr/lib/systemd/system/{name}.service"
                unit = read_unit(path)
                self.assertEqual(unit["Type"], ["notify"])
                self.assertEqual(unit["ExecStart"], [f"/usr/bin/{name}"])
                self.assertTrue(unit["ExecPaths"][0].startswith(f"/usr/bin/{name} "))
                self.assertEqual((unit["User"], unit["StateDirectory"]), ([name], [name]))
                self.assertNotIn("DynamicUser", unit)
                for key in ("NoNewPrivileges", "MemoryDenyWriteExecute", "RestrictNamespaces", "PrivateDevices"):
                    self.assertEqual(unit[key], ["yes"], key)
                self.assertEqual(unit["ProtectSystem"], ["strict"])
                self.assertEqual(unit["CapabilityBoundingSet"], [""])
                self.assertNotIn("/usr/local", path.read_text())


if __name__ == "__main__":
    unittest.main()
