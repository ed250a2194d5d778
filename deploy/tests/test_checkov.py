"""Static analysis of the manifests by checkov, with the accepted findings and their reasons."""

import json
import subprocess
import tempfile
import unittest

import yaml

import render

CHECKOV = render.ROOT / "target/tools/checkov/bin/checkov"
# Check and resource, a prefix of the resource's name; `""` is every resource.
ACCEPTED = {
    ("CKV_K8S_11", ""): "CPU limits throttle a loaded hub although the node is idle; requests protect the others",
    ("CKV_K8S_43", ""): "the tag of a release does not move; a site that wants digests sets them with kustomize or image.tag",
    ("CKV_K8S_15", ""): "the tag of a release does not move, and Always would make a registry necessary for each start",
    ("CKV_K8S_40", "Deployment.perfwatch.perfwatch-dashboard"): "user of the image nginx-unprivileged",
    ("CKV_K8S_40", "StatefulSet.perfwatch.perfwatch-postgres"): "user of the image postgres, owner of its files",
    ("CKV_K8S_40", "StatefulSet.perfwatch.perfwatch-redis"): "user of the image redis, owner of its files",
    ("CKV_K8S_25", "DaemonSet.perfwatch-agents.perfwatch-agent"): "CHOWN of the container that gives the state to the agent",
}


def findings(text):
    """Findings of checkov as pairs of check and resource."""
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/manifests.yaml"
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        command = [CHECKOV, "-f", path, "--framework", "kubernetes", "--skip-download", "--compact", "--quiet", "-o", "json"]
        result = subprocess.run(command, capture_output=True, text=True)
    return {(item["check_id"], item["resource"]) for item in json.loads(result.stdout)["results"]["failed_checks"]}


def is_accepted(finding):
    return any(finding[0] == check and finding[1].startswith(resource) for check, resource in ACCEPTED)


class CheckovTest(unittest.TestCase):
    def test_manifests_have_only_accepted_findings(self):
        found = findings(render.kustomize("production"))
        self.assertEqual(sorted(finding for finding in found if not is_accepted(finding)), [])
        # A reason without a finding is deleted.
        for check, resource in ACCEPTED:
            self.assertTrue(any(entry[0] == check and entry[1].startswith(resource) for entry in found), (check, resource))

    def test_planted_weaknesses_are_found(self):
        items = render.load_objects(render.kustomize("base"))
        hub = next(item for item in items if item["metadata"]["name"] == "perfwatch-hub" and item["kind"] == "StatefulSet")
        pod = hub["spec"]["template"]["spec"]
        container = pod["containers"][0]
        container["securityContext"] = {"privileged": True}
        container["image"] = "ghcr.io/perfwatch/perfwatch:latest"
        del container["livenessProbe"]
        del container["resources"]
        pod["hostNetwork"] = True
        found = {check for check, resource in findings(yaml.safe_dump(hub)) if "perfwatch-hub" in resource}
        for check, weakness in [
            ("CKV_K8S_16", "privileged container"),
            ("CKV_K8S_14", "tag latest"),
            ("CKV_K8S_8", "no liveness probe"),
            ("CKV_K8S_13", "no memory limit"),
            ("CKV_K8S_19", "network of the node"),
            ("CKV_K8S_22", "writable root"),
        ]:
            self.assertIn(check, found, weakness)


if __name__ == "__main__":
    unittest.main()
