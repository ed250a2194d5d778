"""References between Kubernetes objects that no schema checks: selectors and labels, ports and probes, secrets,
config maps and mounts, names of Services in settings; and the rules of Pod Security that hold in this project.

Each check yields sentences about mistakes; no sentence means no mistake.
"""

import re

import yaml

WORKLOADS = ("Deployment", "StatefulSet", "DaemonSet")
# Objects that are created after the installation, with their keys: the token of the agents, the certificate.
LATER_SECRETS = {"perfwatch-agent": ["token"], "perfwatch-tls": ["tls.crt", "tls.key"]}
# The only container that runs as root, and the only pods that mount directories of their node.
STATE_OWNER = "state-owner"
AGENT = "agent"


def name_of(item):
    """Kind and name for messages."""
    return f"{item['kind']} {item['metadata']['name']}"


def namespace_of(item):
    """Namespace of an object; empty for objects of the cluster."""
    return item["metadata"].get("namespace", "")


def is_selected(labels, selector):
    """Whether a label selector with matchLabels selects labels. An empty selector selects all."""
    return all(labels.get(key) == value for key, value in (selector or {}).get("matchLabels", {}).items())


class Objects:
    """Objects by kind, and the pods of their workloads."""

    def __init__(self, items):
        self.items = items
        self.workloads = [item for item in items if item["kind"] in WORKLOADS]

    def of_kind(self, kind):
        return [item for item in self.items if item["kind"] == kind]

    def find(self, kind, name, namespace):
        for item in self.of_kind(kind):
            if item["metadata"]["name"] == name and namespace_of(item) == namespace:
                return item
        return None

    def pods(self, selector, namespace):
        """Pod templates in a namespace that match a selector."""
        return [
            workload["spec"]["template"]
            for workload in self.workloads
            if namespace_of(workload) == namespace
            and is_selected(workload["spec"]["template"]["metadata"]["labels"], selector)
        ]


def containers_of(pod):
    """Containers of a pod template, those of its start included."""
    return pod["spec"].get("initContainers", []) + pod["spec"]["containers"]


def has_port(pod, port):
    """Whether a pod has a port with this name or number."""
    ports = [port for container in containers_of(pod) for port in container.get("ports", [])]
    return any(port in (item.get("name"), item["containerPort"]) for item in ports)


def check_selectors(objects):
    for workload in objects.workloads:
        spec = workload["spec"]
        labels = spec["template"]["metadata"]["labels"]
        if not is_selected(labels, spec["selector"]):
            yield f"{name_of(workload)}: the selector does not match its pods"
        for constraint in spec["template"]["spec"].get("topologySpreadConstraints", []):
            if not is_selected(labels, constraint["labelSelector"]):
                yield f"{name_of(workload)}: a topology spread constraint does not match its pods"
    for item in objects.of_kind("Service"):
        selector = {"matchLabels": item["spec"]["selector"]}
        if not objects.pods(selector, namespace_of(item)):
            yield f"{name_of(item)}: selects no pod"
    for item in objects.of_kind("PodDisruptionBudget"):
        if not objects.pods(item["spec"]["selector"], namespace_of(item)):
            yield f"{name_of(item)}: selects no pod"
    for item in objects.of_kind("ServiceMonitor"):
        labels = [service["metadata"]["labels"] for service in objects.of_kind("Service")]
        if sum(is_selected(entry, item["spec"]["selector"]) for entry in labels) != 1:
            yield f"{name_of(item)}: must select one Service"
    for item in objects.of_kind("HorizontalPodAutoscaler"):
        target = item["spec"]["scaleTargetRef"]
        workload = objects.find(target["kind"], target["name"], namespace_of(item))
        if workload is None:
            yield f"{name_of(item)}: {target['kind']} {target['name']} does not exist"
        elif "replicas" in workload["spec"]:
            yield f"{name_of(item)}: {name_of(workload)} has a number of replicas, which each apply would restore"


def check_policies(objects):
    for item in objects.of_kind("NetworkPolicy"):
        pods = objects.pods(item["spec"]["podSelector"], namespace_of(item))
        if not pods:
            yield f"{name_of(item)}: selects no pod"
        for rule in item["spec"].get("ingress", []):
            for port in rule.get("ports", []):
                if not any(has_port(pod, port["port"]) for pod in pods):
                    yield f"{name_of(item)}: ingress port {port['port']} is no port of its pods"
            yield from check_peers(objects, item, rule.get("from", []), [])
        for rule in item["spec"].get("egress", []):
            yield from check_peers(objects, item, rule.get("to", []), rule.get("ports", []))


def check_peers(objects, policy, peers, ports):
    for peer in peers:
        if "podSelector" not in peer:
            continue
        labels = peer.get("namespaceSelector", {}).get("matchLabels", {})
        namespace = labels.get("kubernetes.io/metadata.name", namespace_of(policy))
        pods = objects.pods(peer["podSelector"], namespace)
        if not pods:
            yield f"{name_of(policy)}: a peer selects no pod"
        for port in ports:
            if pods and not any(has_port(pod, port["port"]) for pod in pods):
                yield f"{name_of(policy)}: egress port {port['port']} is no port of its peer"


def check_ports(objects):
    for item in objects.of_kind("Service"):
        pods = objects.pods({"matchLabels": item["spec"]["selector"]}, namespace_of(item))
        for port in item["spec"]["ports"]:
            target = port.get("targetPort", port["port"])
            if pods and not any(has_port(pod, target) for pod in pods):
                yield f"{name_of(item)}: target port {target} is no port of its pods"
    for workload in objects.workloads:
        for container in containers_of(workload["spec"]["template"]):
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                action = container.get(probe, {})
                action = action.get("httpGet") or action.get("tcpSocket") or {}
                ports = [entry for port in container.get("ports", []) for entry in (port["name"], port["containerPort"])]
                if "port" in action and action["port"] not in ports:
                    yield f"{name_of(workload)}: port {action['port']} of {probe} is no port of {container['name']}"
    for item in objects.of_kind("StatefulSet"):
        if objects.find("Service", item["spec"]["serviceName"], namespace_of(item)) is None:
            yield f"{name_of(item)}: Service {item['spec']['serviceName']} does not exist"
    for item in objects.of_kind("Ingress"):
        for rule in item["spec"]["rules"]:
            for path in rule["http"]["paths"]:
                yield from check_backend(objects, item, path["backend"]["service"])


def check_backend(objects, ingress, backend):
    service = objects.find("Service", backend["name"], namespace_of(ingress))
    if service is None:
        yield f"{name_of(ingress)}: Service {backend['name']} does not exist"
        return
    port = backend["port"].get("name", backend["port"].get("number"))
    if not any(port in (entry.get("name"), entry["port"]) for entry in service["spec"]["ports"]):
        yield f"{name_of(ingress)}: {port} is no port of {name_of(service)}"


def keys_of(objects, kind, name, namespace):
    """Keys of a Secret or ConfigMap; None if it does not exist."""
    item = objects.find(kind, name, namespace)
    if item is None:
        return LATER_SECRETS.get(name) if kind == "Secret" else None
    return [*item.get("data", {}), *item.get("stringData", {})]


def volume_source(volume):
    """Kind and name of the Secret or ConfigMap of a volume."""
    if "secret" in volume:
        return "Secret", volume["secret"]["secretName"]
    if "configMap" in volume:
        return "ConfigMap", volume["configMap"]["name"]
    return None


def check_mounts(objects):
    for workload in objects.workloads:
        pod = workload["spec"]["template"]["spec"]
        claims = [claim["metadata"]["name"] for claim in workload["spec"].get("volumeClaimTemplates", [])]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        mounted = [mount for container in containers_of({"spec": pod}) for mount in container.get("volumeMounts", [])]
        for mount in mounted:
            if mount["name"] not in volumes and mount["name"] not in claims:
                yield f"{name_of(workload)}: volume {mount['name']} does not exist"
        for name in [*volumes, *claims]:
            if all(mount["name"] != name for mount in mounted):
                yield f"{name_of(workload)}: volume {name} is not mounted"
        for volume in volumes.values():
            source = volume_source(volume)
            if source and keys_of(objects, *source, namespace_of(workload)) is None:
                yield f"{name_of(workload)}: {source[0]} {source[1]} does not exist"
        account = pod["serviceAccountName"]
        if objects.find("ServiceAccount", account, namespace_of(workload)) is None:
            yield f"{name_of(workload)}: ServiceAccount {account} does not exist"


def leaves(value):
    """All texts of nested dictionaries and lists."""
    if isinstance(value, dict):
        for child in value.values():
            yield from leaves(child)
    elif isinstance(value, list):
        for child in value:
            yield from leaves(child)
    elif isinstance(value, str):
        yield value


def check_settings(objects):
    """Paths and addresses in the settings of containers: their environment and their mounted files."""
    for workload in objects.workloads:
        pod = workload["spec"]["template"]["spec"]
        volumes = {volume["name"]: volume for volume in pod.get("volumes", [])}
        for container in pod["containers"]:
            files = {}
            texts = [variable.get("value", "") for variable in container.get("env", [])]
            for mount in container.get("volumeMounts", []):
                source = volume_source(volumes.get(mount["name"], {}))
                keys = source and keys_of(objects, *source, namespace_of(workload))
                for key in keys or []:
                    files[f"{mount['mountPath']}/{key}"] = source
                config = source and source[0] == "ConfigMap" and objects.find(*source, namespace_of(workload))
                for text in (config or {}).get("data", {}).values():
                    texts += leaves(yaml.safe_load(text))
            texts += container.get("args", [])
            for text in texts:
                for path in re.findall(r"/etc/perfwatch/[\w./-]+", text):
                    if path not in files:
                        yield f"{name_of(workload)}: {path} is not mounted in {container['name']}"
                yield from check_address(objects, workload, text)


def check_address(objects, workload, text):
    match = re.match(r"\w+://(?:[^@/]*@)?([a-z0-9-]+)\.([a-z0-9-]+)\.svc:(\d+)", text)
    if not match:
        return
    service = objects.find("Service", match[1], match[2])
    if service is None or all(port["port"] != int(match[3]) for port in service["spec"]["ports"]):
        yield f"{name_of(workload)}: no Service has the address {match[0]}"


def check_secret_addresses(objects):
    """Host names in the addresses of generated secrets."""
    for secret in objects.of_kind("Secret"):
        for key in ("store", "redis"):
            match = re.search(r"@([a-z0-9-]+):(\d+)", secret.get("stringData", {}).get(key, ""))
            service = match and objects.find("Service", match[1], namespace_of(secret))
            if match and (service is None or service["spec"]["ports"][0]["port"] != int(match[2])):
                yield f"{name_of(secret)}: no Service has the address {match[1]}:{match[2]}"


def check_security(objects):
    """The level restricted of Pod Security, and a read-only root; exemptions of the agent are constants above."""
    for workload in objects.workloads:
        template = workload["spec"]["template"]
        pod = template["spec"]
        is_agent = template["metadata"]["labels"]["app.kubernetes.io/component"] == AGENT
        for shared in ("hostNetwork", "hostPID", "hostIPC"):
            if pod.get(shared):
                yield f"{name_of(workload)}: {shared}"
        if pod.get("automountServiceAccountToken") is not False:
            yield f"{name_of(workload)}: mounts a token of the Kubernetes API"
        if pod.get("securityContext", {}).get("seccompProfile", {}).get("type") != "RuntimeDefault":
            yield f"{name_of(workload)}: no seccomp profile"
        volumes = [volume for volume in pod.get("volumes", []) if "hostPath" in volume]
        if volumes and not is_agent:
            yield f"{name_of(workload)}: mounts a directory of the node"
        for container in containers_of({"spec": pod}):
            security = {**pod.get("securityContext", {}), **container.get("securityContext", {})}
            label = f"{name_of(workload)}: container {container['name']}"
            if container["name"] != STATE_OWNER and not security.get("runAsNonRoot"):
                yield f"{label} may run as root"
            if security.get("privileged") or security.get("allowPrivilegeEscalation") is not False:
                yield f"{label} may gain privileges"
            if security.get("readOnlyRootFilesystem") is not True:
                yield f"{label} can write to its root directory"
            capabilities = security.get("capabilities", {})
            allowed = ["CHOWN"] if container["name"] == STATE_OWNER else []
            if capabilities.get("drop") != ["ALL"] or capabilities.get("add", []) != allowed:
                yield f"{label} has capabilities"
            if not container.get("resources", {}).get("limits", {}).get("memory"):
                yield f"{label} has no memory limit"
            mounts = {mount["name"]: mount for mount in container.get("volumeMounts", [])}
            if is_agent and container["name"] == AGENT and not mounts.get("host", {}).get("readOnly"):
                yield f"{label} mounts the root directory of the node writable"


CHECKS = (
    check_selectors,
    check_policies,
    check_ports,
    check_mounts,
    check_settings,
    check_secret_addresses,
    check_security,
)


def find_mistakes(items):
    """All mistakes in a list of objects."""
    objects = Objects(items)
    return [mistake for check in CHECKS for mistake in check(objects)]
