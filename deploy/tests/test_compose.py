"""Tests of deploy/docker/compose.yaml and of the script that prepares it: two commands start hub and agent."""

import os
import pathlib
import re
import shutil
import subprocess
import tempfile
import unittest

import yaml

import render

FOLDER = render.ROOT / "deploy/docker"
COMPOSE = yaml.safe_load((FOLDER / "compose.yaml").read_text())


class ComposeTest(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory(prefix="perfwatch-compose-")
        self.addCleanup(folder.cleanup)
        self.folder = pathlib.Path(folder.name)
        shutil.copy(FOLDER / "secrets", self.folder)

    def prepare(self, **variables):
        environment = {"PATH": os.environ["PATH"], **variables}
        subprocess.run([self.folder / "secrets"], check=True, capture_output=True, env=environment)
        return {path.name: path.read_text() for path in (self.folder / "secrets.d").iterdir()}

    def test_script_creates_every_secret_of_the_file_once(self):
        secrets = self.prepare()
        self.assertEqual({f"secrets.d/{name}" for name in secrets}, {item["file"] for item in COMPOSE["secrets"].values()})
        self.assertRegex(secrets["agent-token"], r"^pwe_[0-9a-f]{64}\n$")
        self.assertEqual(self.prepare(), secrets)
        self.assertEqual((self.folder / "secrets.d").stat().st_mode & 0o777, 0o700)

    def test_agent_starts_with_the_token_of_the_hub(self):
        hub, agent = COMPOSE["services"]["hub"], COMPOSE["services"]["agent"]
        self.assertNotIn("profiles", agent)
        token = agent["environment"]["PERFWATCH_AGENT_TOKEN"]
        self.assertEqual(hub["environment"]["PERFWATCH_HUB_ENROLLMENT_TOKEN"], token)
        for service in (hub, agent):
            self.assertIn(token.removeprefix("file:/run/secrets/"), service["secrets"])
        # The user of its image is neither root nor that of the hub.
        self.prepare()
        self.assertEqual((self.folder / "secrets.d/agent-token").stat().st_mode & 0o777, 0o644)

    def test_settings_of_the_file_are_stored_and_documented(self):
        names = set(re.findall(r"\$\{(\w+)", (FOLDER / "compose.yaml").read_text())) - {"PERFWATCH_UID", "PERFWATCH_GID"}
        self.prepare(**{name: f"first {name}" for name in names})
        self.prepare(**{name: f"value of {name}" for name in names})
        self.prepare()
        settings = dict(line.split("=", 1) for line in (self.folder / ".env").read_text().splitlines())
        self.assertEqual({name: settings.get(name) for name in names}, {name: f"value of {name}" for name in names})
        page = (render.ROOT / "docs/DOCKER.md").read_text()
        for name in names:
            self.assertIn(f"| `{name}` |", page)

    def test_documentation_needs_two_commands(self):
        page = (render.ROOT / "docs/DOCKER.md").read_text()
        block = page.split("\n## Compose file\n")[1].split("```sh\n")[1].split("\n```")[0]
        self.assertLessEqual(len(block.splitlines()), 2, block)


if __name__ == "__main__":
    unittest.main()
