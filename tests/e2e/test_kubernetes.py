"""deploy/kubernetes: its objects are valid, and fit each other, the image and the code."""

import tomllib
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any, Final

import kubernetes_validate
import pytest
import yaml

import restbridge.config
import restbridge.telemetry
import service.config
import service.telemetry
from process.otel_settings import OtelSettings
from process.probe import _parser as probe_parser
from process.settings import read, rows
from process.workers.plan import LONGEST_ENDING
from service.models import Catalogue
from service.models_document import catalogue
from service.server import LIVENESS, SERVICES
from tests.support.installations import PROJECT
from tests.support.kustomize import FOLDER, Object, containers, of_kind, rendered, templates
from tests.support.tree import ROOT

VERSIONS: Final = ("1.33", "1.37")
"""The oldest and the newest version of Kubernetes against which the objects are checked."""

CUSTOM: Final = {
    "Certificate": "cert-manager.io",
    "DestinationRule": "networking.istio.io",
    "GRPCRoute": "gateway.networking.k8s.io",
    "Gateway": "gateway.networking.k8s.io",
    "HTTPRoute": "gateway.networking.k8s.io",
    "Issuer": "cert-manager.io",
    "PeerAuthentication": "security.istio.io",
    "PrometheusRule": "monitoring.coreos.com",
    "ServiceMonitor": "monitoring.coreos.com",
    "VirtualService": "networking.istio.io",
}
"""The kinds that are not Kubernetes' own, which have no schema here, and their groups."""

DEFAULTS: Final = {
    row.name: row.default
    for kind in (service.config.Settings, restbridge.config.Settings)
    for row in rows(kind)
}
"""The settings, by variable."""

PORTS: Final = {
    int(DEFAULTS[name].rpartition(":")[2])
    for name in (
        *("CHAT_LISTEN", "CHAT_METRICS_LISTEN"),
        *("CHAT_BRIDGE_LISTEN", "CHAT_BRIDGE_METRICS_LISTEN"),
    )
}
OTHERS_PORTS: Final = {53, 443, 4317, 5432}
"""The ports of name servers, upstreams, OTLP receivers and PostgreSQL."""


def _seconds(*names: str) -> float:
    return sum(float(DEFAULTS[f"CHAT_{name}"]) for name in names) + LONGEST_ENDING


BRIDGE_LIFE: Final = _seconds("BRIDGE_DRAIN_DELAY", "BRIDGE_DRAIN_GRACE")
LONGEST_LIVES: Final = {
    "chatcompletion-bridge": BRIDGE_LIFE,
    "chatcompletion-service": _seconds("DRAIN_DELAY", "DRAIN_GRACE"),
    "chatcompletion-standalone": BRIDGE_LIFE + float(DEFAULTS["CHAT_DRAIN_GRACE"]),
}
"""Seconds from SIGTERM to the end of a process, by its command."""


COMBINED: Final = {
    "istio": ("istio",),
    "tls": ("tls",),
    "tls and others": ("persistent-journal", "tracing", "tls"),
}
"""Kustomizations that have no folder, which add components to the base."""


@pytest.fixture(scope="module")
def combined(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Write the kustomizations that have no folder."""
    found = {}
    for name, components in COMBINED.items():
        written = found[name] = tmp_path_factory.mktemp("combined")
        # kustomize accepts relative paths only.
        up = "../" * len(written.parts[1:]) + str(FOLDER).lstrip("/")
        document = {
            "resources": [f"{up}/base"],
            "components": [f"{up}/components/{each}" for each in components],
        }
        (written / "kustomization.yaml").write_text(yaml.safe_dump(document))
    return found


@pytest.fixture(params=["base", "overlays/production", "overlays/single", *COMBINED])
def objects(request: pytest.FixtureRequest, combined: dict[str, Path]) -> list[Object]:
    name: str = request.param
    return rendered(combined.get(name, FOLDER / name))


@pytest.mark.parametrize("version", VERSIONS)
def test_objects_are_valid_for_kubernetes(objects: list[Object], version: str) -> None:
    for each in objects:
        if each["kind"] in CUSTOM:
            assert each["apiVersion"].partition("/")[0] == CUSTOM[each["kind"]]
        else:
            kubernetes_validate.validate(each, version, strict=True)


def test_every_component_is_rendered(combined: dict[str, Path]) -> None:
    kinds = {
        each["kind"]
        for folder in (FOLDER / "overlays/production", *combined.values())
        for each in rendered(folder)
    }
    assert set(CUSTOM) <= kinds


def test_containers_run_scripts_with_settings_that_exist(objects: list[Object]) -> None:
    for container in containers(objects):
        (command,) = container["command"]
        assert command in PROJECT["scripts"]
        assert {variable["name"] for variable in container.get("env", ())} <= set(DEFAULTS)


def test_the_variables_of_telemetry_are_settings_with_valid_values() -> None:
    objects = rendered(FOLDER / "overlays/production")
    [variables] = [
        each["data"]
        for each in of_kind(objects, "ConfigMap")
        if each["metadata"]["name"].startswith("chat-telemetry")
    ]

    assert set(variables) <= set(DEFAULTS)
    settings = read(OtelSettings, variables)
    assert (settings.exports_traces, settings.exports_metrics) == (True, False)
    for container in containers(objects):
        named = [each.get("configMapRef", {}).get("name", "") for each in container["envFrom"]]
        assert any(name.startswith("chat-telemetry") for name in named)


def test_a_pod_has_time_to_drain(objects: list[Object]) -> None:
    for _, template in templates(objects):
        (container,) = template["spec"]["containers"]
        life = LONGEST_LIVES[container["command"][0]]
        assert template["spec"]["terminationGracePeriodSeconds"] == life + 5
        settings = template["metadata"].get("annotations", {}).get("proxy.istio.io/config", "{}")
        sidecar = yaml.safe_load(settings).get("terminationDrainDuration")
        assert sidecar in {None, f"{life:.0f}s"}


def _of_containers(objects: list[Object]) -> set[int]:
    return {
        port["containerPort"] for container in containers(objects) for port in container["ports"]
    }


def test_ports_are_those_of_the_settings(objects: list[Object]) -> None:
    assert _of_containers(objects) <= PORTS
    for policy in of_kind(objects, "NetworkPolicy"):
        for rule in (*policy["spec"]["ingress"], *policy["spec"]["egress"]):
            assert {port["port"] for port in rule["ports"]} <= PORTS | OTHERS_PORTS


def _variables(container: Object, objects: list[Object]) -> dict[str, str]:
    """Return the variables of a container that are in the objects, which Secrets are not."""
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(objects, "ConfigMap")}
    found: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        found |= maps.get(source.get("configMapRef", {}).get("name", ""), {})
    return found | {each["name"]: each["value"] for each in container.get("env", ())}


@pytest.mark.parametrize("name", ["tls", "tls and others"])
def test_files_of_tls_are_mounted_from_certificates_for_the_names_that_are_used(
    name: str, combined: dict[str, Path]
) -> None:
    objects = rendered(combined[name])
    names = {
        each["spec"]["secretName"]: each["spec"].get("dnsNames", ())
        for each in of_kind(objects, "Certificate")
    }
    expected = {
        "chat-service": {"CHAT_TLS_CERT_FILE": "tls.crt", "CHAT_TLS_KEY_FILE": "tls.key"},
        "chat-bridge": {
            "CHAT_BRIDGE_TLS_CERT_FILE": "tls.crt",
            "CHAT_BRIDGE_TLS_KEY_FILE": "tls.key",
            "CHAT_SERVICE_TLS_CA_FILE": "ca.crt",
        },
    }
    for workload, template in templates(objects):
        pod = template["spec"]
        (container,) = pod["containers"]
        (volume,) = (each for each in pod["volumes"] if each["name"] == "tls")
        (mount,) = (each for each in container["volumeMounts"] if each["name"] == "tls")
        assert workload["metadata"]["name"] in names[volume["secret"]["secretName"]]
        variables = _variables(container, objects)
        files = {key: value for key, value in variables.items() if "_TLS_" in key}
        assert files == {
            key: f"{mount['mountPath']}/{file}"
            for key, file in expected[workload["metadata"]["name"]].items()
        }
        if target := variables.get("CHAT_SERVICE_TARGET"):
            assert target.removeprefix("dns:///").rpartition(":")[0] in names["chat-service-tls"]
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            if command := container.get(kind, {}).get("exec", {}).get("command"):
                asked = probe_parser().parse_args(command[1:])
                assert asked.ca == f"{mount['mountPath']}/ca.crt"
                assert asked.server_name in names["chat-service-tls"]


def test_probes_ask_for_what_exists(objects: list[Object]) -> None:
    for container in containers(objects):
        named = {port["name"]: port["containerPort"] for port in container["ports"]}
        for kind in ("startupProbe", "readinessProbe", "livenessProbe"):
            probe = container.get(kind, {})
            if "grpc" in probe:
                assert probe["grpc"]["port"] == named["grpc"]
                assert probe["grpc"].get("service", "") in {"", LIVENESS}
            if "httpGet" in probe:
                assert probe["httpGet"]["path"] in {"/healthz", "/readyz"}
                assert probe["httpGet"]["port"] in named
                has_tls = "CHAT_BRIDGE_TLS_CERT_FILE" in _variables(container, objects)
                assert probe["httpGet"].get("scheme", "HTTP") == ("HTTPS" if has_tls else "HTTP")
            if "exec" in probe:
                command, *arguments = probe["exec"]["command"]
                assert command in PROJECT["scripts"]
                asked = probe_parser().parse_args(arguments)
                assert asked.target == f"127.0.0.1:{named['grpc']}"
                assert asked.name == ("" if kind == "readinessProbe" else LIVENESS)
                assert asked.timeout < probe["timeoutSeconds"]
            is_grpc_with_tls = "CHAT_TLS_CERT_FILE" in _variables(container, objects)
            assert not (probe and "grpc" in probe and is_grpc_with_tls)
        assert {"readinessProbe", "livenessProbe"} <= set(container)


def test_containers_run_without_privileges(objects: list[Object]) -> None:
    for _, template in templates(objects):
        pod = template["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        assert pod["securityContext"]["runAsUser"] == 65532
        assert pod["automountServiceAccountToken"] is False
        assert pod["enableServiceLinks"] is False
    for container in containers(objects):
        context = container["securityContext"]
        assert context["readOnlyRootFilesystem"] is True
        assert context["allowPrivilegeEscalation"] is False
        assert context["capabilities"] == {"drop": ["ALL"]}


def test_what_is_mounted_exists(objects: list[Object]) -> None:
    for workload, template in templates(objects):
        volumes = {volume["name"] for volume in template["spec"]["volumes"]}
        claims = workload["spec"].get("volumeClaimTemplates", ())
        volumes |= {claim["metadata"]["name"] for claim in claims}
        mounted = {
            mount["name"]
            for container in template["spec"]["containers"]
            for mount in container["volumeMounts"]
        }
        assert mounted == volumes


def _selects(selector: dict[str, str], labels: dict[str, str]) -> bool:
    return selector.items() <= labels.items()


def test_selectors_select_pods(objects: list[Object]) -> None:
    pods = [template["metadata"]["labels"] for _, template in templates(objects)]
    selectors = [each["spec"]["selector"] for each in of_kind(objects, "Service")]
    selectors += [
        each["spec"]["selector"]["matchLabels"]
        for kind in ("Deployment", "StatefulSet", "PodDisruptionBudget")
        for each in of_kind(objects, kind)
    ]
    selectors += [
        each["spec"]["podSelector"]["matchLabels"] for each in of_kind(objects, "NetworkPolicy")
    ]
    for selector in selectors:
        assert sum(_selects(selector, labels) for labels in pods) == 1, selector


def test_autoscalers_follow_metrics_of_what_they_scale(objects: list[Object]) -> None:
    registries = {
        "chat-service": service.telemetry.Telemetry().registry,
        "chat-bridge": restbridge.telemetry.Telemetry().registry,
    }
    workloads = {(each["kind"], each["metadata"]["name"]) for each, _ in templates(objects)}
    for scaler in of_kind(objects, "HorizontalPodAutoscaler"):
        target = scaler["spec"]["scaleTargetRef"]
        assert (target["kind"], target["name"]) in workloads
        families = {family.name for family in registries[target["name"]].collect()}
        assert {
            metric["pods"]["metric"]["name"] for metric in scaler["spec"]["metrics"]
        } <= families


def _backends(objects: list[Object]) -> Iterator[tuple[str, int]]:
    for each in objects:
        for rule in each["spec"].get("rules", ()) if each["kind"].endswith("Route") else ():
            for backend in rule["backendRefs"]:
                yield backend["name"], backend["port"]
        if each["kind"] == "VirtualService":
            for rule in each["spec"]["http"]:
                for route in rule["route"]:
                    yield route["destination"]["host"], route["destination"]["port"]["number"]
    for container in containers(objects):
        for variable in container.get("env", ()):
            if variable["name"] == "CHAT_SERVICE_TARGET":
                host, _, port = variable["value"].removeprefix("dns:///").rpartition(":")
                yield host, int(port)


def test_routes_lead_to_ports_of_services(objects: list[Object]) -> None:
    ports: dict[str, dict[int, str]] = {
        each["metadata"]["name"]: {
            port["port"]: port["targetPort"] for port in each["spec"]["ports"]
        }
        for each in of_kind(objects, "Service")
    }
    for host, port in _backends(objects):
        assert port in ports[host]
    named = {port["name"] for each in containers(objects) for port in each["ports"]}
    assert {target for targets in ports.values() for target in targets.values()} <= named
    for route in of_kind(objects, "GRPCRoute"):
        methods = {
            match["method"]["service"]
            for rule in route["spec"]["rules"]
            for match in rule["matches"]
        }
        assert methods == set(SERVICES)


def test_the_monitor_finds_both_deployables() -> None:
    objects = rendered(FOLDER / "overlays" / "production")
    (monitor,) = of_kind(objects, "ServiceMonitor")
    labels: dict[str, str] = monitor["spec"]["selector"]["matchLabels"]
    scraped = [
        each for each in of_kind(objects, "Service") if _selects(labels, each["metadata"]["labels"])
    ]
    (endpoint,) = monitor["spec"]["endpoints"]
    assert len(scraped) == 2
    for each in scraped:
        assert endpoint["port"] in {port["name"] for port in each["spec"]["ports"]}


def test_the_rules_are_those_of_the_alerts() -> None:
    (rule,) = of_kind(rendered(FOLDER / "overlays" / "production"), "PrometheusRule")
    alerts = yaml.safe_load((ROOT / "deploy" / "monitoring" / "alerts.yaml").read_text())
    assert rule["spec"] == alerts


def test_a_statefulset_has_its_headless_service() -> None:
    objects = rendered(FOLDER / "overlays" / "production")
    (workload,) = of_kind(objects, "StatefulSet")
    headless = {
        each["metadata"]["name"]
        for each in of_kind(objects, "Service")
        if each["spec"].get("clusterIP") == "None"
    }
    assert workload["spec"]["serviceName"] in headless


def test_the_example_of_models_is_valid() -> None:
    document: dict[str, Any] = tomllib.loads(
        (FOLDER / "overlays/production/models.toml").read_text(), parse_float=Decimal
    )
    found: Catalogue = catalogue(document, {"SIMPLISMART_API_KEY": "key"})
    assert [model.name for model in found] == ["default"]
