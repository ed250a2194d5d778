"""Rendered objects of the kustomize overlays, of the Helm chart and of the secrets script."""

import os
import pathlib
import subprocess
import sys

import yaml
from helm_python import Chart

ROOT = pathlib.Path(__file__).resolve().parents[2]
KUBERNETES = ROOT / "deploy/kubernetes"
CHART = ROOT / "deploy/helm/perfwatch"
TOOLS = pathlib.Path(sys.executable).parent
# Directory of each overlay; a values file of the same name renders the same objects.
OVERLAYS = {
    "base": KUBERNETES / "base",
    "minikube": KUBERNETES / "overlays/minikube",
    "production": KUBERNETES / "overlays/production",
}


def load_objects(text):
    """Parses YAML documents; empty documents are left out."""
    return [document for document in yaml.safe_load_all(text) if document]


def kustomize(name):
    """Text of an overlay."""
    command = [TOOLS / "kubectl", "kustomize", OVERLAYS[name]]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def load_values(name):
    """Values that render the objects of an overlay."""
    return yaml.safe_load((CHART / "ci" / f"{name}.yaml").read_text())


def helm(values=None, name="perfwatch", namespace="perfwatch"):
    """Text of the chart's objects, without its notes."""
    with Chart.load(CHART) as chart:
        files = chart.render(values=values or {}, name=name, namespace=namespace)
    return "\n---\n".join(text for path, text in sorted(files.items()) if path.endswith(".yaml"))


def generated_secrets():
    """Objects that deploy/kubernetes/secrets prints."""
    output = subprocess.run([KUBERNETES / "secrets"], check=True, capture_output=True, text=True).stdout
    return load_objects(output)


def binary():
    """The program whose settings are checked: PERFWATCH_BINARY, or the debug build."""
    path = pathlib.Path(os.environ.get("PERFWATCH_BINARY", ROOT / "target/debug/perfwatch"))
    if not path.exists():
        raise FileNotFoundError(f"{path}: run cargo build -p perfwatch, or set PERFWATCH_BINARY")
    return path
