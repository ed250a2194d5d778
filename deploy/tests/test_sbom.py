"""Tests of scripts/sbom: each program lists the crates of its own build.

A document with all packages of the workspace replaces that of cargo-cyclonedx, which lists the same crates.
"""

import copy
import importlib.machinery
import importlib.util
import json
import subprocess
import unittest

from fresh_root import ROOT

loader = importlib.machinery.SourceFileLoader("sbom", str(ROOT / "scripts/sbom"))
sbom = importlib.util.module_from_spec(importlib.util.spec_from_loader("sbom", loader))
loader.exec_module(sbom)

HUB_ONLY = {"axum", "russh", "tokio-postgres", "perfwatch-hub"}


def workspace_document():
    """A document with every package of the workspace, as cargo-cyclonedx writes it."""
    command = [sbom.CARGO, "metadata", "--locked", "--format-version", "1"]
    metadata = json.loads(subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout)
    parts = [{"bom-ref": part["id"], "name": part["name"], "version": part["version"]} for part in metadata["packages"]]
    main = next(part for part in parts if part["name"] == "perfwatch")
    targets = [("library", "perfwatch"), ("application", "perfwatch"), ("application", "perfwatch-agent")]
    main["components"] = [{"type": kind, "name": name} for kind, name in targets]
    nodes = [{"ref": node["id"], "dependsOn": node["dependencies"]} for node in metadata["resolve"]["nodes"]]
    return {
        "metadata": {"component": main},
        "components": [part for part in parts if part is not main],
        "dependencies": nodes,
    }


class SbomTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        document = workspace_document()
        cls.hub = sbom.select(copy.deepcopy(document), "perfwatch", sbom.crates_of_build([]))
        agent = sbom.crates_of_build(["--no-default-features"])
        cls.agent = sbom.select(copy.deepcopy(document), "perfwatch-agent", agent)

    def names(self, document):
        return {part["name"] for part in document["components"]}

    def test_agent_lists_no_crates_of_the_hub(self):
        self.assertLessEqual(HUB_ONLY, self.names(self.hub))
        self.assertEqual(self.names(self.agent) & HUB_ONLY, set())
        self.assertLessEqual({"perfwatch-agent", "perfwatch-collect", "ureq", "rustls"}, self.names(self.agent))
        self.assertLess(self.names(self.agent), self.names(self.hub))

    def test_crates_of_tests_are_not_listed(self):
        self.assertEqual(self.names(self.hub) & {"perfwatch-testkit", "perfwatch-bench", "proptest"}, set())

    def test_dependencies_refer_to_listed_crates(self):
        for document in (self.hub, self.agent):
            refs = {document["metadata"]["component"]["bom-ref"], *(part["bom-ref"] for part in document["components"])}
            listed = {entry["ref"] for entry in document["dependencies"]}
            self.assertEqual(listed, refs)
            self.assertLessEqual({ref for entry in document["dependencies"] for ref in entry["dependsOn"]}, refs)

    def test_component_is_the_program(self):
        main = self.agent["metadata"]["component"]
        self.assertEqual(main["name"], "perfwatch-agent")
        self.assertEqual([(part["type"], part["name"]) for part in main["components"]][1:], [("application", "perfwatch-agent")])


if __name__ == "__main__":
    unittest.main()
