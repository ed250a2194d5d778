"""Tests of the install script of a release: checksums, the package on Debian, the program elsewhere."""

import functools
import http.server
import io
import os
import pathlib
import subprocess
import tarfile
import tempfile
import threading
import unittest

from fresh_root import ROOT, FreshRoot

VERSION = "1.2.3"


class QuietHandler(http.server.SimpleHTTPRequestHandler):
    """Serves files without a log."""

    def log_message(self, *_):
        pass


def write_archive(path, *programs):
    """An archive as `make dist` writes it, with scripts in place of the programs."""
    with tarfile.open(path, "w:gz") as archive:
        for program in programs:
            text = f"#!/bin/sh\necho {program} {VERSION}\n".encode()
            member = tarfile.TarInfo(f"{path.name.removesuffix('.tar.gz')}/{program}")
            member.size, member.mode = len(text), 0o755
            archive.addfile(member, io.BytesIO(text))


def write_package(folder, program):
    """A package that contains only a script in place of the program."""
    tree = folder / "tree"
    (tree / "DEBIAN").mkdir(parents=True)
    arch = subprocess.run(["dpkg", "--print-architecture"], check=True, capture_output=True, text=True).stdout.strip()
    control = f"Package: {program}\nVersion: {VERSION}\nArchitecture: {arch}\nMaintainer: x <x@x.example>\nDescription: x\n"
    (tree / "DEBIAN/control").write_text(control)
    (tree / "usr/bin").mkdir(parents=True)
    (tree / f"usr/bin/{program}").write_text("#!/bin/sh\n")
    package = folder / f"{program}_{VERSION}_{arch}.deb"
    subprocess.run(["dpkg-deb", "--root-owner-group", "-Znone", "-b", tree, package], check=True, capture_output=True)
    subprocess.run(["rm", "-r", tree], check=True)
    return package


class InstallScriptTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="perfwatch-release-")
        self.addCleanup(folder.cleanup)
        self.release = pathlib.Path(folder.name) / "release"
        self.release.mkdir()
        self.prefix = pathlib.Path(folder.name) / "prefix"
        self.archive = self.release / f"perfwatch-{VERSION}-{os.uname().machine}-linux.tar.gz"
        write_archive(self.archive, "perfwatch", "perfwatch-agent")
        self.package = write_package(self.release, "perfwatch")
        subprocess.run([ROOT / "scripts/checksums", self.release, VERSION, "https://release.example"], check=True)

    def install(self, *arguments):
        command = ["sh", self.release / "install.sh", *arguments]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60)
        return result.returncode, result.stdout + result.stderr

    def serve(self):
        handler = functools.partial(QuietHandler, directory=self.release)
        server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return f"http://127.0.0.1:{server.server_port}"

    def test_program_is_downloaded_and_installed(self):
        code, output = self.install("--from", self.serve(), "--prefix", str(self.prefix))
        self.assertEqual(code, 0, output)
        program = self.prefix / "bin/perfwatch"
        self.assertEqual(subprocess.run([program], capture_output=True, text=True).stdout, f"perfwatch {VERSION}\n")
        # The agent is beside the hub, which offers it to other machines.
        self.assertEqual(sorted(path.name for path in program.parent.iterdir()), ["perfwatch", "perfwatch-agent"])

    def test_files_beside_a_script_without_address_are_used(self):
        subprocess.run([ROOT / "scripts/checksums", self.release, VERSION, ""], check=True)
        code, output = self.install("--prefix", str(self.prefix))
        self.assertEqual(code, 0, output)
        self.archive.unlink()
        code, output = self.install("--prefix", str(self.prefix))
        self.assertNotEqual(code, 0)
        self.assertIn("--from URL_OR_DIRECTORY", output)

    def test_changed_files_are_rejected(self):
        write_archive(self.archive, "perfwatch-changed")
        code, output = self.install("--from", str(self.release), "--prefix", str(self.prefix))
        self.assertNotEqual(code, 0)
        self.assertIn("SHA-256 mismatch", output)
        self.assertFalse(self.prefix.exists())

    def test_unknown_files_and_plain_addresses_are_rejected(self):
        for arguments, expected in [
            (("--from", str(self.release), "perfwatch-agent"), f"release {VERSION} has no perfwatch-agent"),
            (("--from", "http://release.example", "perfwatch"), "only https:// is accepted"),
            (("perfwatchd",), "unknown argument perfwatchd"),
        ]:
            with self.subTest(expected):
                code, output = self.install("--prefix", str(self.prefix), *arguments)
                self.assertNotEqual(code, 0)
                self.assertIn(expected, output)
                self.assertFalse(self.prefix.exists())

    def test_checksums_cover_all_files(self):
        check = ["sha256sum", "--check", "--strict", "SHA256SUMS"]
        result = subprocess.run(check, cwd=self.release, capture_output=True, text=True)
        self.assertEqual(result.returncode, 0, result.stderr)
        names = {line.split("  ")[1] for line in (self.release / "SHA256SUMS").read_text().splitlines()}
        self.assertEqual(names | {"SHA256SUMS"}, {path.name for path in self.release.iterdir()})

    def test_package_is_installed_on_debian(self):
        root = FreshRoot()
        self.addCleanup(root.close)
        for path in self.release.iterdir():
            root.copy(path)
        root.run("sh", "/packages/install.sh", "--from", "/packages", "perfwatch")
        status = root.run("dpkg-query", "-W", "-f=${Status} ${Version}", "perfwatch").stdout
        self.assertEqual(status, f"install ok installed {VERSION}")
        root.dpkg("--purge", "perfwatch")
        with open(root.path / "packages" / self.package.name, "ab") as package:
            package.write(b"x")
        result = root.run("sh", "/packages/install.sh", "--from", "/packages", "perfwatch", check=False)
        self.assertNotEqual(result.returncode, 0)
        self.assertIn("SHA-256 mismatch", result.stdout)
        self.assertEqual(root.run("dpkg-query", "-W", "perfwatch", check=False).returncode, 1)


if __name__ == "__main__":
    unittest.main()
