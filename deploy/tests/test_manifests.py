"""Checks of deploy/kubernetes, deploy/helm, deploy/docker/compose.yaml and .github; each check is shown to fail.

Run by `make test`:
    scripts/ensure-kubernetes-tools && target/tools/kubernetes/bin/python -m unittest discover -s deploy/tests
"""

import copy
import json
import os
import re
import subprocess
import tempfile
import unittest

import yaml
from helm_python import HelmError
from helm_python.chart import lint

import references
import render

KUBERNETES_VERSION = "1.36"
# Added by Helm, without an equivalent in the overlays.
HELM_LABELS = ("helm.sh/chart", "app.kubernetes.io/managed-by", "app.kubernetes.io/version")
HELM_ANNOTATIONS = ("checksum/config", "helm.sh/resource-policy")


def overlay(name):
    """Objects of an overlay with the secrets of its installation."""
    return render.load_objects(render.kustomize(name)) + render.generated_secrets()


def find(items, kind, name):
    return next(item for item in items if item["kind"] == kind and item["metadata"]["name"] == name)


def pod(items, kind, name):
    return find(items, kind, name)["spec"]["template"]["spec"]


def is_valid(text):
    """Validates objects by the schemas of Kubernetes; unknown fields are errors."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(text)
        file.flush()
        command = [render.TOOLS / "kubernetes-validate", "-k", KUBERNETES_VERSION, "--strict", file.name]
        result = subprocess.run(command, capture_output=True, text=True)
    return result.returncode == 0, result.stdout + result.stderr


def service_links(items, namespace):
    """Variables that the kubelet sets for the Services of a namespace."""
    variables = {}
    for service in items:
        if service["kind"] != "Service" or service["metadata"].get("namespace") != namespace:
            continue
        if service["spec"].get("clusterIP") == "None":
            continue
        prefix = service["metadata"]["name"].upper().replace("-", "_")
        port = service["spec"]["ports"][0]
        number, url = str(port["port"]), f"tcp://10.96.0.7:{port['port']}"
        variables |= {
            f"{prefix}_SERVICE_HOST": "10.96.0.7",
            f"{prefix}_SERVICE_PORT": number,
            f"{prefix}_SERVICE_PORT_{port['name'].upper()}": number,
            f"{prefix}_PORT": url,
            f"{prefix}_PORT_{number}_TCP": url,
            f"{prefix}_PORT_{number}_TCP_PROTO": "tcp",
            f"{prefix}_PORT_{number}_TCP_PORT": number,
            f"{prefix}_PORT_{number}_TCP_ADDR": "10.96.0.7",
        }
    return variables


def load_settings(text, variables):
    """Lets the real program load a configuration file and an environment; returns its exit code and its log."""
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "hub.yaml")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        command = [render.binary(), "once", "--interval", "250ms", "--config", path]
        result = subprocess.run(command, capture_output=True, text=True, env={**variables, "PATH": os.environ["PATH"]})
    return result.returncode, result.stderr


def comparable(items):
    """Objects by kind, namespace and name, without what only Helm adds."""
    result = {}
    for item in copy.deepcopy(items):
        for metadata in (item["metadata"], item.get("spec", {}).get("template", {}).get("metadata", {})):
            for key in HELM_LABELS:
                metadata.get("labels", {}).pop(key, None)
            for key in HELM_ANNOTATIONS:
                metadata.get("annotations", {}).pop(key, None)
            if metadata.get("annotations") == {}:
                del metadata["annotations"]
        for claim in item.get("spec", {}).get("volumeClaimTemplates", []):
            claim["metadata"].pop("labels", None)
        if item["kind"] == "ConfigMap":
            item["data"] = {key: yaml.safe_load(text) for key, text in item["data"].items()}
        if item["kind"] == "Ingress":
            for rule in item["spec"]["rules"]:
                rule["http"]["paths"].sort(key=lambda path: path["path"])
        result[item["kind"], item["metadata"].get("namespace"), item["metadata"]["name"]] = item
    # Helm creates the namespace of the release by `--create-namespace`.
    result.pop(("Namespace", None, "perfwatch"), None)
    return result


class OverlayTest(unittest.TestCase):
    def test_overlays_have_valid_objects(self):
        for name in render.OVERLAYS:
            with self.subTest(name):
                valid, output = is_valid(render.kustomize(name))
                self.assertTrue(valid, output)

    def test_invalid_objects_are_found(self):
        text = render.kustomize("base")
        for before, after in [
            ("      readOnlyRootFilesystem: true", "      readOnlyRootFilesytem: true"),
            ("  replicas: 1", "  replicas: one"),
            ("containerPort: 8000", "containerPort: {}"),
        ]:
            with self.subTest(after):
                self.assertIn(before, text)
                self.assertFalse(is_valid(text.replace(before, after, 1))[0])

    def test_references_are_complete(self):
        for name in render.OVERLAYS:
            with self.subTest(name):
                self.assertEqual(references.find_mistakes(overlay(name)), [])

    def test_planted_mistakes_are_found(self):
        def set_component(spec, value):
            spec["app.kubernetes.io/component"] = value

        def hub(items):
            return pod(items, "StatefulSet", "perfwatch-hub")

        def container(items):
            return hub(items)["containers"][0]

        mistakes = [
            (
                "Service perfwatch: selects no pod",
                lambda items: set_component(find(items, "Service", "perfwatch")["spec"]["selector"], "hubs"),
            ),
            (
                "StatefulSet perfwatch-hub: the selector does not match its pods",
                lambda items: set_component(
                    find(items, "StatefulSet", "perfwatch-hub")["spec"]["selector"]["matchLabels"], "web"
                ),
            ),
            (
                "PodDisruptionBudget perfwatch-hub: selects no pod",
                lambda items: set_component(
                    find(items, "PodDisruptionBudget", "perfwatch-hub")["spec"]["selector"]["matchLabels"], "web"
                ),
            ),
            (
                "HorizontalPodAutoscaler perfwatch-hub: Deployment perfwatch-hub does not exist",
                lambda items: find(items, "HorizontalPodAutoscaler", "perfwatch-hub")["spec"]["scaleTargetRef"].update(
                    kind="Deployment"
                ),
            ),
            (
                "NetworkPolicy perfwatch-hub: a peer selects no pod",
                lambda items: set_component(
                    find(items, "NetworkPolicy", "perfwatch-hub")["spec"]["egress"][0]["to"][0]["podSelector"][
                        "matchLabels"
                    ],
                    "database",
                ),
            ),
            (
                "NetworkPolicy perfwatch-hub: ingress port https is no port of its pods",
                lambda items: find(items, "NetworkPolicy", "perfwatch-hub")["spec"]["ingress"][0]["ports"][0].update(
                    port="https"
                ),
            ),
            (
                "Service perfwatch: target port web is no port of its pods",
                lambda items: find(items, "Service", "perfwatch")["spec"]["ports"][0].update(targetPort="web"),
            ),
            (
                "StatefulSet perfwatch-hub: port 8080 of livenessProbe is no port of hub",
                lambda items: container(items)["livenessProbe"]["httpGet"].update(port=8080),
            ),
            (
                "Ingress perfwatch: Service perfwatch-web does not exist",
                lambda items: find(items, "Ingress", "perfwatch")["spec"]["rules"][0]["http"]["paths"][0]["backend"][
                    "service"
                ].update(name="perfwatch-web"),
            ),
            (
                "StatefulSet perfwatch-hub: Secret perfwatch-hub does not exist",
                lambda items: items.remove(find(items, "Secret", "perfwatch-hub")),
            ),
            (
                "StatefulSet perfwatch-hub: /etc/perfwatch/secrets/encryption-key is not mounted in hub",
                lambda items: find(items, "Secret", "perfwatch-hub")["stringData"].pop("encryption-key"),
            ),
            (
                "StatefulSet perfwatch-hub: ConfigMap perfwatch-hub does not exist",
                lambda items: items.remove(find(items, "ConfigMap", "perfwatch-hub")),
            ),
            (
                "StatefulSet perfwatch-hub: volume data is not mounted",
                lambda items: container(items)["volumeMounts"].pop(),
            ),
            (
                "StatefulSet perfwatch-hub: volume data does not exist",
                lambda items: hub(items)["volumes"].pop(),
            ),
            (
                "StatefulSet perfwatch-hub: ServiceAccount perfwatch does not exist",
                lambda items: items.remove(find(items, "ServiceAccount", "perfwatch")),
            ),
            (
                "DaemonSet perfwatch-agent: no Service has the address http://perfwatch.perfwatch.svc:80",
                lambda items: pod(items, "DaemonSet", "perfwatch-agent")["containers"][0]["env"][0].update(
                    value="http://perfwatch.perfwatch.svc:80"
                ),
            ),
            (
                "Secret perfwatch-hub: no Service has the address postgres:5432",
                lambda items: find(items, "Secret", "perfwatch-hub")["stringData"].update(
                    store="postgres://perfwatch:x@postgres:5432/perfwatch"
                ),
            ),
            (
                "StatefulSet perfwatch-hub: container hub may gain privileges",
                lambda items: container(items)["securityContext"].update(privileged=True),
            ),
            (
                "StatefulSet perfwatch-hub: container hub may run as root",
                lambda items: hub(items)["securityContext"].pop("runAsNonRoot"),
            ),
            (
                "StatefulSet perfwatch-hub: container hub has capabilities",
                lambda items: container(items)["securityContext"]["capabilities"].update(add=["NET_ADMIN"]),
            ),
            (
                "Deployment perfwatch-dashboard: mounts a directory of the node",
                lambda items: pod(items, "Deployment", "perfwatch-dashboard")["volumes"][0].update(
                    hostPath={"path": "/tmp"}
                ),
            ),
            (
                "DaemonSet perfwatch-agent: hostPID",
                lambda items: pod(items, "DaemonSet", "perfwatch-agent").update(hostPID=True),
            ),
            (
                "DaemonSet perfwatch-agent: container agent mounts the root directory of the node writable",
                lambda items: pod(items, "DaemonSet", "perfwatch-agent")["containers"][0]["volumeMounts"][0].update(
                    readOnly=False
                ),
            ),
        ]
        correct = overlay("production")
        for expected, plant in mistakes:
            with self.subTest(expected):
                items = copy.deepcopy(correct)
                plant(items)
                self.assertIn(expected, references.find_mistakes(items))


class SettingsTest(unittest.TestCase):
    def hub_config(self, items):
        return find(items, "ConfigMap", "perfwatch-hub")["data"]["hub.yaml"]

    def test_program_accepts_the_settings(self):
        for name in render.OVERLAYS:
            with self.subTest(name):
                items = overlay(name)
                container = pod(items, "StatefulSet", "perfwatch-hub")["containers"][0]
                variables = {variable["name"]: variable.get("value", "x") for variable in container["env"]}
                del variables["PERFWATCH_CONFIG"]
                # Pods without enableServiceLinks: false have the variables of all Services.
                variables |= service_links(items, "perfwatch")
                self.assertGreater(len(variables), 30)
                code, log = load_settings(self.hub_config(items), variables)
                self.assertEqual((code, log), (0, ""))

    def test_program_accepts_the_settings_of_agents(self):
        container = pod(overlay("base"), "DaemonSet", "perfwatch-agent")["containers"][0]
        variables = {variable["name"]: variable.get("value", "x") for variable in container["env"]}
        with tempfile.NamedTemporaryFile("w") as token:
            token.write("pwe_x\n")
            token.flush()
            variables |= {"PERFWATCH_AGENT_TOKEN": f"file:{token.name}", "PERFWATCH_AGENT_HOST_ROOT": "/"}
            self.assertEqual(load_settings("", variables), (0, ""))

    def test_misspelled_settings_are_found(self):
        text = self.hub_config(overlay("base")).replace("disk_budget", "disk_budgets")
        code, log = load_settings(text, {})
        self.assertNotEqual(code, 0)
        self.assertIn("disk_budgets", log)
        code, log = load_settings("", {"PERFWATCH_HUB_LISTNE": "x"})
        self.assertNotEqual(code, 0)
        self.assertIn("PERFWATCH_HUB_LISTEN", log)


class ChartTest(unittest.TestCase):
    def test_chart_renders_the_objects_of_the_overlays(self):
        for name in render.OVERLAYS:
            with self.subTest(name):
                chart = comparable(render.load_objects(render.helm(render.load_values(name))))
                expected = comparable(render.load_objects(render.kustomize(name)))
                self.assertEqual(sorted(chart, key=str), sorted(expected, key=str))
                for key, item in expected.items():
                    self.assertEqual(chart[key], item, key)

    def test_chart_with_other_names_is_complete(self):
        monitor = {"serviceMonitor": {"enabled": True}, "ingress": {"enabled": True}, "agent": {"token": "pwe_x"}}
        for values in ({}, monitor, {"dashboard": {"enabled": False}, "ingress": {"enabled": True}}):
            with self.subTest(values):
                text = render.helm(values, name="ops", namespace="monitoring")
                items = render.load_objects(text)
                self.assertEqual(references.find_mistakes(items), [])
                objects = [item for item in items if item["kind"] != "ServiceMonitor"]
                valid, output = is_valid(yaml.safe_dump_all(objects))
                self.assertTrue(valid, output)
                names = {item["metadata"]["name"] for item in items}
                self.assertIn("ops-perfwatch-hub", names)

    def test_generated_passwords_agree(self):
        items = render.load_objects(render.helm())
        hub = find(items, "Secret", "perfwatch-hub")["stringData"]
        postgres = find(items, "Secret", "perfwatch-postgres")["stringData"]["password"]
        redis = find(items, "Secret", "perfwatch-redis")["stringData"]["redis.conf"]
        self.assertIn(f":{postgres}@", hub["store"])
        self.assertIn(re.search(r"requirepass (\S+)", redis)[1], hub["redis"])
        self.assertRegex(hub["encryption-key"], "^[0-9a-f]{64}$")
        self.assertGreaterEqual(len(hub["admin-password"]), 20)

    def test_chart_passes_the_strict_lint(self):
        for name in render.OVERLAYS:
            with self.subTest(name):
                report = lint(render.CHART, render.load_values(name), strict=True, kube_version=f"v{KUBERNETES_VERSION}.0")
                severe = [entry for entry in report["messages"] if entry["severity"] > 1]
                self.assertEqual((report["errors"], severe), ([], []), json.dumps(report))

    def test_invalid_values_are_rejected(self):
        for values, expected in [
            ({"hubs": {}}, "hubs"),
            ({"hub": {"replicaCount": 0}}, "replicaCount"),
            ({"hub": {"resources": {"limits": {"memory": "lots"}}}}, "memory"),
            ({"image": {"pullPolicy": "Sometimes"}}, "pullPolicy"),
            ({"agent": {"hub": "hub.example"}}, "hub"),
            ({"agent": {"stateDirectory": "state"}}, "stateDirectory"),
            ({"networkPolicy": {"hubEgressPorts": []}}, "hubEgressPorts"),
            ({"ingress": {"tls": True}}, "tls"),
            ({"hub": {"existingSecret": "own"}}, "requires postgresql.existingSecret"),
            ({"postgresql": {"enabled": False}}, "hub.existingSecret must have the keys"),
        ]:
            with self.subTest(values):
                with self.assertRaises(HelmError) as context:
                    render.helm(values)
                self.assertIn(expected, str(context.exception))


class VersionTest(unittest.TestCase):
    def test_images_and_chart_have_the_version_of_the_workspace(self):
        manifest = (render.ROOT / "Cargo.toml").read_text()
        version = re.search(r'^version = "([^"]+)"$', manifest, re.MULTILINE)[1]
        chart = yaml.safe_load((render.CHART / "Chart.yaml").read_text())
        self.assertEqual((chart["version"], str(chart["appVersion"])), (version, version))
        files = [*sorted((render.KUBERNETES / "base").glob("*.yaml")), render.ROOT / "deploy/docker/compose.yaml"]
        tags = [tag for path in files for tag in re.findall(r"perfwatch/perfwatch\S*?:(\S+)", path.read_text())]
        self.assertEqual(len(tags), 5)
        self.assertEqual({re.sub(r"^\$\{PERFWATCH_TAG:-(.*)\}$", r"\1", tag) for tag in tags}, {version})


class SchemaTest(unittest.TestCase):
    def check(self, schema, *paths):
        command = [render.TOOLS / "check-jsonschema", "--builtin-schema", f"vendor.{schema}", *paths]
        result = subprocess.run(command, capture_output=True, text=True)
        return result.returncode, result.stdout + result.stderr

    def test_workflows_follow_their_schema(self):
        paths = sorted((render.ROOT / ".github/workflows").glob("*.yml"))
        self.assertEqual([path.name for path in paths], ["ci.yml", "release.yml"])
        code, output = self.check("github-workflows", *paths)
        self.assertEqual(code, 0, output)

    def test_compose_file_follows_its_schema(self):
        code, output = self.check("compose-spec", render.ROOT / "deploy/docker/compose.yaml")
        self.assertEqual(code, 0, output)

    def test_schema_violations_are_found(self):
        for schema, text in [
            ("github-workflows", "on: push\njobs: {build: {runs-on: x, step: []}}\n"),
            ("compose-spec", "services: {hub: {images: x}}\n"),
        ]:
            with self.subTest(schema), tempfile.NamedTemporaryFile("w", suffix=".yml") as file:
                file.write(text)
                file.flush()
                self.assertEqual(self.check(schema, file.name)[0], 1)


if __name__ == "__main__":
    unittest.main()
