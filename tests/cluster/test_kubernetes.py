"""The manifests of Kubernetes: their fields, and what they promise."""

import copy
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import yaml

from segbatch import __version__
from segbatch.config import load_config
from segbatch.runtime import keeping_processes
from segbatch.training.interrupt import GRACE_SECONDS

CLUSTER = Path(__file__).parents[2] / "cluster"

Manifest = dict[str, Any]
Manifests = dict[str, list[Manifest]]
Faults = Callable[[Manifest], list[str]]
Parse = Callable[[str], dict[str, Any]]

UNITS = {"m": 1e-3, "": 1, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12, "Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}

FREE = {"labels", "annotations", "matchLabels", "rayStartParams", "requests", "limits", "data"}
"""Fields whose keys are the user's."""


def amount(quantity: str) -> float:
    number, unit = re.fullmatch(r"([0-9.]+)([A-Za-z]*)", quantity).groups()
    return float(number) * UNITS[unit]


def pods(manifest: Manifest) -> Iterator[Manifest]:
    """The pod templates in a manifest."""
    for key, value in manifest.items():
        if key == "template":
            yield value
        elif isinstance(value, dict):
            yield from pods(value)
        elif isinstance(value, list):
            for entry in value:
                if isinstance(entry, dict):
                    yield from pods(entry)


def jobs(manifests: Manifests) -> dict[str, Manifest]:
    """The specifications of all RayJobs, wherever they stand."""
    config = next(document for document in manifests["cronjob.yaml"] if document["kind"] == "ConfigMap")
    return {
        "train": manifests["rayjob-train.yaml"][0]["spec"],
        "predict": manifests["rayjob-predict.yaml"][0]["spec"],
        "raycronjob": manifests["raycronjob.yaml"][0]["spec"]["jobTemplate"],
        "cronjob": yaml.safe_load(config["data"]["rayjob.yaml"])["spec"],
    }


def misspelt(part: Any, whole: Manifest) -> Iterator[tuple[str, Manifest]]:
    """Every way to misspell one field of a manifest, with the manifest that has it."""
    if isinstance(part, list):
        for entry in part:
            yield from misspelt(entry, whole)
    if isinstance(part, dict):
        for key in list(part):
            if key in ("apiVersion", "kind"):
                continue
            kept = dict(part)
            part.clear()
            part.update({(f"{name}s" if name == key else name): value for name, value in kept.items()})
            yield key, whole
            part.clear()
            part.update(kept)
            if key not in FREE:
                yield from misspelt(part[key], whole)


def test_the_manifests_have_the_fields_that_their_kinds_have(manifests: Manifests, faults: Faults) -> None:
    assert len(manifests) == 9
    for name, documents in manifests.items():
        for document in documents:
            assert not faults(document), name


def test_a_misspelt_field_is_refused_wherever_it_stands(manifests: Manifests, faults: Faults) -> None:
    count = 0
    for documents in manifests.values():
        for document in documents:
            # What is written once in YAML is one object in Python; each place is misspelt for itself.
            loose = yaml.safe_load(yaml.dump(document, Dumper=_Loose))
            for key, wrong in misspelt(loose, loose):
                assert faults(wrong), f"{document['kind']}: {key}s for {key} was not noticed"
                count += 1
    assert count > 400


class _Loose(yaml.SafeDumper):
    def ignore_aliases(self, data: Any) -> bool:
        return True


def test_workers_tell_ray_that_they_go(manifests: Manifests, parse: Callable[[str], dict[str, Any]]) -> None:
    (cluster,) = manifests["raycluster.yaml"]
    for group in cluster["spec"]["workerGroupSpecs"]:
        pod = group["template"]["spec"]
        shell, option, line = pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"]
        assert (shell, option) == ("sh", "-c")
        told, waits = line.split(" && ")
        seconds = parse(told)["seconds"]
        assert int(waits.removeprefix("sleep ")) < seconds < pod["terminationGracePeriodSeconds"]


def test_what_the_operator_refuses_is_refused(manifests: Manifests, faults: Faults) -> None:
    job = manifests["rayjob-train.yaml"][0]
    for change in ({"backoffLimit": 2}, {"submissionMode": "SidecarMode"}, {"suspend": True}, {"clusterSelector": {}}):
        assert faults({**job, "spec": {**job["spec"], **change}}), change
    assert faults({**job, "metadata": {"name": "Train", "namespace": "segbatch"}})
    assert faults({**job, "kind": "RayJobs"})


def test_all_is_in_one_namespace_that_refuses_privileged_pods(manifests: Manifests) -> None:
    (namespace,) = manifests["namespace.yaml"]
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"
    for name, documents in manifests.items():
        for document in documents:
            if document["kind"] != "Namespace":
                assert document["metadata"]["namespace"] == namespace["metadata"]["name"], name


def test_pods_have_no_rights_that_they_do_not_need(manifests: Manifests, raycluster: Manifest) -> None:
    containers = [raycluster["spec"]["autoscalerOptions"]]
    with_token = []
    for documents in manifests.values():
        for document in documents:
            for pod in pods(document["spec"]) if "spec" in document else ():
                if "containers" not in pod["spec"]:
                    continue
                assert pod["spec"]["securityContext"]["runAsNonRoot"] is True
                assert pod["spec"]["securityContext"]["runAsUser"] > 0
                assert pod["spec"]["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
                containers += pod["spec"]["containers"]
                if pod["spec"]["automountServiceAccountToken"]:
                    with_token.append(pod["spec"]["containers"][0]["name"])
    for container in containers:
        security = container["securityContext"]
        assert security["allowPrivilegeEscalation"] is False
        assert security["readOnlyRootFilesystem"] is True
        assert security["capabilities"] == {"drop": ["ALL"]}
        # Without another place to write to, nothing would start.
        assert "/tmp" in {mount["mountPath"] for mount in container["volumeMounts"]}
        assert {"name": "HOME", "value": "/tmp"} in container["env"]
    assert sorted(with_token) == ["nightly", "ray-head"]


def test_what_a_container_asks_for_is_its_limit(manifests: Manifests, raycluster: Manifest) -> None:
    specs = [raycluster["spec"]["autoscalerOptions"]]
    for documents in manifests.values():
        for document in documents:
            for pod in pods(document.get("spec", {})):
                specs += pod["spec"].get("containers", ())
    assert len(specs) == 6
    for container in specs:
        resources = container["resources"]
        assert resources["requests"] == resources["limits"]
        assert {"cpu", "memory"} <= set(resources["limits"])


def groups(raycluster: Manifest) -> list[Manifest]:
    return [raycluster["spec"]["headGroupSpec"], *raycluster["spec"]["workerGroupSpecs"]]


def test_mounts_have_volumes_and_the_object_store_has_room(raycluster: Manifest) -> None:
    for group in groups(raycluster):
        spec = group["template"]["spec"]
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        (container,) = spec["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert set(mounts.values()) == set(volumes)
        shm = volumes[mounts["/dev/shm"]]["emptyDir"]
        assert shm["medium"] == "Memory"
        store = float(group["rayStartParams"]["object-store-memory"])
        # Shared memory counts as the container's.
        assert store < amount(shm["sizeLimit"]) < amount(container["resources"]["limits"]["memory"]) / 2
        scratch = volumes[mounts["/tmp"]]["emptyDir"]
        assert amount(scratch["sizeLimit"]) < amount(container["resources"]["limits"]["ephemeral-storage"])
        assert volumes[mounts["/data"]]["persistentVolumeClaim"] == {"claimName": "segbatch-data"}


def test_the_autoscaler_mounts_a_volume_of_the_heads(raycluster: Manifest) -> None:
    names = {volume["name"] for volume in raycluster["spec"]["headGroupSpec"]["template"]["spec"]["volumes"]}
    assert {mount["name"] for mount in raycluster["spec"]["autoscalerOptions"]["volumeMounts"]} <= names


def test_storage_is_shared(manifests: Manifests) -> None:
    (claim,) = manifests["storage.yaml"]
    assert claim["metadata"]["name"] == "segbatch-data"
    assert claim["spec"]["accessModes"] == ["ReadWriteMany"]


def test_workers_come_from_nothing_and_spot_machines_come_first(raycluster: Manifest) -> None:
    spec = raycluster["spec"]
    assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"
    assert spec["enableInTreeAutoscaling"] is True
    assert spec["autoscalerOptions"]["version"] == "v2"
    workers = {group["groupName"]: group for group in spec["workerGroupSpecs"]}
    assert set(workers) == {"cpu", "gpu-spot", "gpu"}
    for group in workers.values():
        assert group["replicas"] == group["minReplicas"] == 0 < group["maxReplicas"]
        limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
        assert (limits.get("nvidia.com/gpu") == "1") is group["groupName"].startswith("gpu")
    assert workers["gpu-spot"]["priority"] > workers["gpu"]["priority"]
    assert "affinity" in workers["gpu-spot"]["template"]["spec"]
    assert "affinity" not in workers["gpu"]["template"]["spec"]


def test_the_nightly_map_fits_the_cluster(raycluster: Manifest) -> None:
    config = load_config(str(CLUSTER / "nightly.yaml"), ())
    room = sum(group["maxReplicas"] for group in raycluster["spec"]["workerGroupSpecs"] if "gpu" in group["groupName"])
    assert config.inference.actors.max == room
    assert config.training.workers <= room
    (data,) = {
        mount["mountPath"]
        for group in groups(raycluster)
        for mount in group["template"]["spec"]["containers"][0]["volumeMounts"]
        if mount["name"] == "data"
    }
    assert Path(config.output).is_relative_to(data)
    assert config.scenes.root == data


def test_a_job_that_is_stopped_has_time_to_save(raycluster: Manifest) -> None:
    for group in groups(raycluster):
        spec = group["template"]["spec"]
        environment = {entry["name"]: entry["value"] for entry in spec["containers"][0]["env"]}
        wait = int(environment["RAY_JOB_STOP_WAIT_TIME_S"])
        assert GRACE_SECONDS < wait < spec["terminationGracePeriodSeconds"]
        assert environment["RAY_ENABLE_UV_RUN_RUNTIME_ENV"] == "0"


def test_idle_processes_stay_as_they_do_on_one_machine(raycluster: Manifest) -> None:
    for group in raycluster["spec"]["workerGroupSpecs"]:
        (container,) = group["template"]["spec"]["containers"]
        requests = container["resources"]["requests"]
        (needed,) = keeping_processes(int(requests["cpu"]), int(requests.get("nvidia.com/gpu", 0))).items()
        environment = {entry["name"]: entry["value"] for entry in container["env"]}
        assert int(environment[f"RAY_{needed[0]}"]) >= needed[1]


def test_tokens_are_on_and_secrets_are_only_named(manifests: Manifests, raycluster: Manifest) -> None:
    assert raycluster["spec"]["authOptions"]["mode"] == "token"
    assert raycluster["spec"]["headGroupSpec"]["serviceType"] == "ClusterIP"
    assert not [document for documents in manifests.values() for document in documents if document["kind"] == "Secret"]
    for group in groups(raycluster):
        (container,) = group["template"]["spec"]["containers"]
        assert container["envFrom"] == [{"secretRef": {"name": "segbatch-credentials", "optional": True}}]
        for entry in container["env"]:
            assert not re.search("TOKEN|SECRET|PASSWORD|KEY", entry["name"])


def test_images_are_of_this_version_and_of_a_variant_that_is_built(raycluster: Manifest) -> None:
    stages = re.findall(r"^FROM \S+ AS (\w+)$", (CLUSTER / "Dockerfile").read_text(), re.MULTILINE)
    for group in groups(raycluster):
        image = group["template"]["spec"]["containers"][0]["image"]
        name, variant = image.rsplit("-", 1)
        assert name == f"segbatch:{__version__}"
        assert variant == ("cuda" if group.get("groupName", "").startswith("gpu") else "cpu")
        assert variant in stages


def test_ray_starts_with_options_that_it_has(raycluster: Manifest, parse_ray: Parse) -> None:
    for group in groups(raycluster):
        words = " ".join(f"--{name}={value}" for name, value in group["rayStartParams"].items())
        assert parse_ray(f"ray start {words}")["object_store_memory"] > 0


@pytest.mark.parametrize("name", ["train", "predict", "raycronjob", "cronjob"])
def test_jobs_run_commands_that_there_are_in_the_cluster_that_there_is(
    manifests: Manifests, raycluster: Manifest, parse: Parse, name: str
) -> None:
    job = jobs(manifests)[name]
    assert job["clusterSelector"] == {"ray.io/cluster": raycluster["metadata"]["name"]}
    values = parse(job["entrypoint"])
    config = Path(values["config"])
    # The head has the folder, and README's config map is made of the file in cluster/.
    assert config.parent == Path("/config")
    head = raycluster["spec"]["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert "/config" in {mount["mountPath"] for mount in head["volumeMounts"]}
    assert load_config(str(CLUSTER / config.name), ()).name == "nightly"
    if name.endswith("cronjob"):
        assert values["only_new"] is True


def test_both_schedules_run_the_same_job_at_the_same_time(manifests: Manifests) -> None:
    job = {key: value for key, value in jobs(manifests)["raycronjob"].items() if key != "deletionStrategy"}
    assert job == jobs(manifests)["cronjob"]
    times = [
        (document["spec"]["schedule"], document["spec"]["timeZone"])
        for name in ("raycronjob.yaml", "cronjob.yaml")
        for document in manifests[name]
        if document["kind"].endswith("CronJob")
    ]
    assert times == [("0 2 * * *", "Etc/UTC")] * 2


def test_the_cron_job_forbids_two_at_once_and_may_do_little(manifests: Manifests) -> None:
    documents = {document["kind"]: document for document in manifests["cronjob.yaml"]}
    assert documents["CronJob"]["spec"]["concurrencyPolicy"] == "Forbid"
    assert documents["Role"]["rules"] == [
        {"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["create", "get", "delete"]}
    ]
    account = documents["ServiceAccount"]["metadata"]["name"]
    assert documents["RoleBinding"]["subjects"] == [
        {"kind": "ServiceAccount", "name": account, "namespace": "segbatch"}
    ]
    assert documents["RoleBinding"]["roleRef"]["name"] == documents["Role"]["metadata"]["name"]
    (pod,) = (pod for pod in pods(documents["CronJob"]["spec"]["jobTemplate"]))
    assert pod["spec"]["serviceAccountName"] == account
    mounted = {volume["name"]: volume for volume in pod["spec"]["volumes"]}["nightly"]
    assert mounted["configMap"]["name"] == documents["ConfigMap"]["metadata"]["name"]


KUBECTL = """#!/bin/sh
echo "$*" >> "$FOLDER/calls"
case "$1" in
  create) cp "$3" "$FOLDER/created.yaml"; test ! -e "$FOLDER/exists" ;;
  get)
    case "$*" in *"{.status.reason} {.status.jobDeploymentStatus}"*) ;; *) echo because; exit 0 ;; esac
    status=$(head -n 1 "$FOLDER/statuses"); sed -i 1d "$FOLDER/statuses"
    test "$status" = unreachable && exit 1
    case "$status" in
      deleted) ;;
      *" "*) echo "$JOB_NAME $status" ;;
      *) echo "$JOB_NAME  $status" ;;
    esac ;;
esac
"""
"""Answers as Kubernetes would, from the lines of a file."""


class Night(NamedTuple):
    code: int
    calls: list[str]
    created: Manifest


@pytest.fixture
def night(manifests: Manifests, tmp_path: Path) -> Callable[..., Night]:
    """Run the CronJob's script with a kubectl that answers with the statuses."""
    (config,) = (document for document in manifests["cronjob.yaml"] if document["kind"] == "ConfigMap")
    for name, text in config["data"].items():
        # In one pass: this folder may itself be below /tmp.
        (tmp_path / f"nightly-{name}").write_text(
            re.sub("/(nightly|tmp)/", lambda found: f"{tmp_path}/{found[1]}-", text)
        )
    for name, text in (("kubectl", KUBECTL), ("sleep", "#!/bin/sh\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)

    def run(*statuses: str, exists: bool = False) -> Night:
        (tmp_path / "statuses").write_text("\n".join(statuses) + "\n")
        if exists:
            (tmp_path / "exists").touch()
        environment = {
            "PATH": f"{tmp_path}:{os.environ['PATH']}", "FOLDER": str(tmp_path),
            "JOB_NAME": "segbatch-nightly-29390520", "JOB_UID": "6c9d1b6e-0000-4000-8000-000000000000",
        }  # fmt: skip
        done = subprocess.run(["sh", tmp_path / "nightly-nightly.sh"], env=environment, timeout=30, check=False)
        created = yaml.safe_load((tmp_path / "created.yaml").read_text())
        return Night(done.returncode, (tmp_path / "calls").read_text().splitlines(), created)

    return run


def test_a_night_creates_its_job_and_waits_for_its_end(night: Callable[..., Night], faults: Faults) -> None:
    done = night("", "Initializing", "Running", "unreachable", "Running", "Complete")
    assert done.code == 0
    assert len(done.calls) == 7
    assert not faults(done.created)
    assert done.created["metadata"]["name"] == "segbatch-nightly-29390520"
    (owner,) = done.created["metadata"]["ownerReferences"]
    assert owner["name"] == "segbatch-nightly-29390520"
    assert owner["uid"] == "6c9d1b6e-0000-4000-8000-000000000000"


def test_a_night_that_failed_is_not_tried_again(night: Callable[..., Night], manifests: Manifests) -> None:
    done = night("Running", "Failed")
    (cron,) = (document for document in manifests["cronjob.yaml"] if document["kind"] == "CronJob")
    (rule,) = cron["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert rule["action"] == "FailJob"
    assert rule["onExitCodes"]["values"] == [done.code]


@pytest.mark.parametrize(("reason", "is_deleted"), [("AppFailed", False), ("DeadlineExceeded", True)])
def test_a_job_that_is_past_its_deadline_is_stopped(night: Callable[..., Night], reason: str, is_deleted: bool) -> None:
    """Ray goes on with it until its RayJob is deleted."""
    done = night("Running", f"{reason} Failed")
    assert done.code == 42
    assert (done.calls[-1] == "delete rayjob segbatch-nightly-29390520 --wait=false") is is_deleted


def test_no_job_goes_on_for_ever(manifests: Manifests) -> None:
    """And none in a schedule longer than until the next night begins."""
    found = jobs(manifests)
    for name in ("train", "predict"):
        assert found[name]["activeDeadlineSeconds"] <= 7 * 86400
    (cron,) = (document for document in manifests["cronjob.yaml"] if document["kind"] == "CronJob")
    deadline = found["cronjob"]["activeDeadlineSeconds"]
    assert found["cronjob"]["preRunningDeadlineSeconds"] < deadline
    assert deadline < cron["spec"]["jobTemplate"]["spec"]["activeDeadlineSeconds"] < 86400


def test_a_night_that_was_deleted_ends(night: Callable[..., Night]) -> None:
    """Else it would stand in the way of all that follow."""
    done = night("Running", "deleted")
    assert done.code == 42
    assert [call.split()[0] for call in done.calls] == ["create", "get", "get"]


def test_a_pod_that_starts_again_finds_the_job_of_the_first(night: Callable[..., Night]) -> None:
    done = night("Running", "Complete", exists=True)
    assert done.code == 0
    assert [call.split()[0] for call in done.calls] == ["create", "get", "get", "get"]


class Pod(NamedTuple):
    namespace: str
    labels: dict[str, str]


RAY = {"app.kubernetes.io/part-of": "segbatch", "ray.io/is-ray-node": "yes"}
HEAD = Pod("segbatch", {**RAY, "ray.io/node-type": "head"})
WORKER = Pod("segbatch", {**RAY, "ray.io/node-type": "worker"})
OPERATOR = Pod("kuberay", {"app.kubernetes.io/component": "kuberay-operator"})
NIGHTLY = Pod("segbatch", {"app.kubernetes.io/part-of": "segbatch", "app.kubernetes.io/component": "nightly"})
NEIGHBOUR = Pod("segbatch", {})
STRANGER = Pod("elsewhere", {**RAY, "ray.io/node-type": "worker"})
PROMETHEUS = Pod("monitoring", {"app.kubernetes.io/name": "prometheus"})
DNS = Pod("kube-system", {"k8s-app": "kube-dns"})
OUTSIDE = Pod("", {})


def selects(selector: Manifest, labels: dict[str, str]) -> bool:
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items())


def lets(rule: Manifest, side: str, other: Pod, home: str, port: int) -> bool:
    ports = rule.get("ports")
    if ports and port not in {entry["port"] for entry in ports}:
        return False
    if side not in rule:
        return True
    for peer in rule[side]:
        namespace = {"kubernetes.io/metadata.name": other.namespace}
        near = selects(peer["namespaceSelector"], namespace) if "namespaceSelector" in peer else other.namespace == home
        if near and other.namespace and selects(peer.get("podSelector", {}), other.labels):
            return True
    return False


def may(policies: list[Manifest], source: Pod, target: Pod, port: int) -> bool:
    """Whether the policies let a connection through, as Kubernetes reads them."""
    for way, mine, other, side in (("Egress", source, target, "to"), ("Ingress", target, source, "from")):
        mine_ = [
            policy["spec"]
            for policy in policies
            if policy["metadata"]["namespace"] == mine.namespace
            and way in policy["spec"]["policyTypes"]
            and selects(policy["spec"]["podSelector"], mine.labels)
        ]
        rules = [rule for spec in mine_ for rule in spec.get(way.lower(), ())]
        if mine_ and not any(lets(rule, side, other, mine.namespace, port) for rule in rules):
            return False
    return True


@pytest.mark.parametrize(
    ("source", "target", "port", "expected"),
    [
        (WORKER, HEAD, 6379, True),
        (HEAD, WORKER, 31337, True),
        (WORKER, WORKER, 8076, True),
        (OPERATOR, HEAD, 8265, True),
        (OPERATOR, HEAD, 6379, False),
        (OPERATOR, WORKER, 8265, False),
        (NEIGHBOUR, HEAD, 8265, False),
        (STRANGER, HEAD, 8265, False),
        (STRANGER, WORKER, 10002, False),
        (OUTSIDE, HEAD, 8265, False),
        (OUTSIDE, HEAD, 443, False),
        (WORKER, DNS, 53, True),
        (WORKER, OUTSIDE, 443, True),
        (WORKER, OUTSIDE, 6443, False),
        (WORKER, NEIGHBOUR, 80, False),
        (HEAD, OUTSIDE, 6443, True),
        (NIGHTLY, OUTSIDE, 6443, True),
        (NIGHTLY, DNS, 53, True),
        (NIGHTLY, OUTSIDE, 80, False),
        (NIGHTLY, HEAD, 8265, False),
        (STRANGER, NIGHTLY, 443, False),
        (PROMETHEUS, HEAD, 8080, True),
        (PROMETHEUS, WORKER, 8080, True),
        (PROMETHEUS, HEAD, 8265, False),
        (STRANGER, WORKER, 8080, False),
        (WORKER, PROMETHEUS, 9090, False),
    ],
)
def test_who_may_talk_to_whom(manifests: Manifests, source: Pod, target: Pod, port: int, expected: bool) -> None:
    everywhere = [document for documents in manifests.values() for document in documents]
    policies = [document for document in everywhere if document["kind"] == "NetworkPolicy"]
    assert may(policies, source, target, port) is expected


def test_policies_select_the_labels_that_pods_have(manifests: Manifests, raycluster: Manifest) -> None:
    for group in groups(raycluster):
        assert group["template"]["metadata"]["labels"] == {"app.kubernetes.io/part-of": "segbatch"}
    (cron,) = (document for document in manifests["cronjob.yaml"] if document["kind"] == "CronJob")
    (pod,) = pods(cron["spec"]["jobTemplate"])
    assert pod["metadata"]["labels"] == NIGHTLY.labels


def test_the_schema_is_not_changed_by_its_use(raycluster: Manifest, faults: Faults) -> None:
    before = copy.deepcopy(raycluster)
    assert not faults(raycluster)
    assert raycluster == before
