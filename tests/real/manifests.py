"""The manifests as they come out of Kustomize."""

import argparse
import copy
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

import kubernetes_validate
import yaml

# The first with native sidecars, one in between, the newest that there are schemas for.
VERSIONS = ["1.29", "1.33", "1.36", "1.37"]
# Kinds that clusters have of others; `tests/manifests.rs` looks at their fields.
OF_OTHERS = {"PodMonitor", "InferencePool"}
# Objects that are in no namespace.
OF_CLUSTERS = {"Namespace"}


def render(kubectl, folder):
    said = subprocess.run([kubectl, "kustomize", folder], capture_output=True, text=True, timeout=60)
    assert said.returncode == 0, f"{folder}: {said.stderr}"
    # What is deprecated is said there.
    assert not said.stderr, f"{folder}: {said.stderr}"
    return list(yaml.safe_load_all(said.stdout))


def kind(folder):
    return yaml.safe_load((folder / "kustomization.yaml").read_text())["kind"]


def with_component(kubectl, manifests, component):
    """`base` and one Deployment with that component."""
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder).resolve()
        path = lambda name: os.path.relpath(manifests / name, folder)
        (folder / "application.yaml").write_text((manifests / "examples/demo/application.yaml").read_text())
        (folder / "kustomization.yaml").write_text(yaml.safe_dump({
            "apiVersion": "kustomize.config.k8s.io/v1beta1", "kind": "Kustomization", "namespace": "somewhere",
            "resources": ["application.yaml", path("base")],
            "components": [path(f"components/{component}")],
        }))
        return render(kubectl, folder)


def rendered(kubectl, manifests):
    """All that can be rendered: its name, and its objects."""
    for file in sorted(manifests.rglob("kustomization.yaml")):
        folder = file.parent
        name = str(folder.relative_to(manifests))
        if kind(folder) == "Component":
            yield name, with_component(kubectl, manifests, folder.name)
        else:
            yield name, render(kubectl, folder)


def complaint(thing, version):
    """What the schemas of that version say of an object; nothing if all is well."""
    try:
        kubernetes_validate.validate(thing, version, strict=True)
    except kubernetes_validate.ValidationError as error:
        return f"{error.message} at {'.'.join(map(str, error.path))}"
    return None


def check_schemas(name, things):
    for version in VERSIONS:
        for thing in things:
            if thing["kind"] not in OF_OTHERS:
                said = complaint(thing, version)
                assert said is None, f"{name}: {thing['kind']} {thing['metadata']['name']}, {version}: {said}"


def check_that_schemas_are_strict(things):
    """What is wrong is noticed."""
    for path, value in [(["metadata", "lables"], {}), (["spec", "replicas"], "three"),
                        (["spec", "template", "spec", "initContainers", 0, "restartPolicies"], "Always")]:
        thing = copy.deepcopy(next(one for one in things if one["metadata"]["name"] == "application"))
        inner = thing
        for key in path[:-1]:
            inner = inner[key]
        inner[path[-1]] = value
        assert complaint(thing, VERSIONS[-1]), path


def of_kind(things, wanted):
    return [thing for thing in things if thing["kind"] == wanted]


def check_namespace(name, things):
    """Everything is in one namespace, and the account that has the rights too."""
    namespaces = {thing["metadata"].get("namespace") for thing in things if thing["kind"] not in OF_CLUSTERS}
    assert len(namespaces) == 1, f"{name}: {namespaces}"
    namespace = namespaces.pop() or "default"
    for binding in of_kind(things, "RoleBinding"):
        assert [subject["namespace"] for subject in binding["subjects"]] == [namespace], f"{name}: {binding}"
    spaces = [space["metadata"]["name"] for space in of_kind(things, "Namespace")]
    # Whoever tries an example has nothing to make before.
    assert spaces == ([namespace] if name.startswith("examples/") else []), f"{name}: {spaces}"


def check_settings(pilotfish, name, things):
    """The text in the ConfigMap, as the program takes it."""
    for settings in of_kind(things, "ConfigMap"):
        assert settings["metadata"]["name"] == "pilotfish", name
        assert list(settings["data"]) == ["pilotfish.yaml"], name
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            file.write(settings["data"]["pilotfish.yaml"])
            file.flush()
            said = subprocess.run([pilotfish, "validate", file.name], capture_output=True, text=True, timeout=30)
        assert said.returncode == 0, f"{name}: {said.stdout}{said.stderr}"


def check_pool(name, things):
    """The Role allows to read the pool that the settings name, and no other."""
    allowed = [one for role in of_kind(things, "Role") for rule in role["rules"] for one in rule.get("resourceNames", [])]
    settings = [yaml.safe_load(one["data"]["pilotfish.yaml"]) for one in of_kind(things, "ConfigMap")]
    named = [one["k8s_inference_pool"] for one in settings if "k8s_inference_pool" in one]
    # The component by itself has nothing but a place for it.
    assert allowed == (["NAME-OF-YOUR-POOL"] if name == "components/inferencepool" else named), f"{name}: {allowed}"
    pools = of_kind(things, "InferencePool")
    assert [pool["metadata"]["name"] for pool in pools] == named, f"{name}: {named}"


def check_sidecar(name, things):
    """It is first, in what asks for it alone."""
    for deployment in of_kind(things, "Deployment"):
        pod = deployment["spec"]["template"]["spec"]
        names = [container["name"] for container in pod.get("initContainers", [])]
        wants = deployment["metadata"]["labels"].get("pilotfish.dev/inject") == "sidecar"
        has_component = name in ("examples/demo", "components/sidecar")
        assert names == (["pilotfish"] if wants and has_component else []), f"{name}: {names}"
        volumes = [volume["name"] for volume in pod.get("volumes", [])]
        for container in pod.get("initContainers", []) + pod["containers"]:
            for mount in container.get("volumeMounts", []):
                assert mount["name"] in volumes, f"{name}: {mount}"


def check_documentation(kubectl, manifests):
    """What docs/kubernetes.md shows for a Deployment of one's own, an account of its own too."""
    shown = (manifests.parent / "docs/kubernetes.md").read_text().split("```yaml\n")[1:]
    blocks = [yaml.safe_load(block.split("```")[0]) for block in shown]
    whole = next(block for block in blocks if block.get("kind") == "Kustomization")
    patches = next(block for block in blocks if "patches" in block)
    application = (manifests / "examples/demo/application.yaml").read_text()
    prefixed = whole | {"namePrefix": "a-"}
    for keys, account in [(whole, "pilotfish"), (whole | patches, "my-account"), (prefixed, "a-pilotfish")]:
        with tempfile.TemporaryDirectory() as folder:
            folder = pathlib.Path(folder).resolve()
            (folder / "deployment.yaml").write_text(application)
            (folder / "pilotfish.yaml").write_text("ours: true\n")
            text = yaml.safe_dump(keys).replace("pilotfish/manifests", os.path.relpath(manifests, folder))
            (folder / "kustomization.yaml").write_text(text.replace("REGISTRY", "registry.example"))
            things = render(kubectl, folder)
        check_schemas("documentation", things)
        check_namespace("documentation", things)
        pod = of_kind(things, "Deployment")[0]["spec"]["template"]["spec"]
        assert pod["serviceAccountName"] == account, pod
        assert pod["initContainers"][0]["image"] == "registry.example/pilotfish:0.1.0", pod
        bound = of_kind(things, "RoleBinding")[0]["subjects"]
        assert bound == [{"kind": "ServiceAccount", "name": account, "namespace": "mine"}], bound
        settings = of_kind(things, "ConfigMap")[0]
        assert settings["data"] == {"pilotfish.yaml": "ours: true\n"}
        assert pod["volumes"][0]["configMap"]["name"] == settings["metadata"]["name"], pod
        role = of_kind(things, "RoleBinding")[0]["roleRef"]["name"]
        assert role == of_kind(things, "Role")[0]["metadata"]["name"], role
    print("docs/kubernetes.md: renders as it says: ok")


def check_image(kubectl, manifests):
    """What is told of naming one's own image: the line with sed, as it is shown."""
    for page in ("README.md", "docs/kubernetes.md"):
        text = (manifests.parent / page).read_text()
        line = next(line for line in text.splitlines() if line.startswith("sed -i "))
        with tempfile.TemporaryDirectory() as folder:
            copied = pathlib.Path(folder).resolve() / "manifests"
            shutil.copytree(manifests, copied)
            subprocess.run(line, shell=True, check=True, cwd=folder, timeout=10)
            things = render(kubectl, copied / "examples/demo")
        pods = [one["spec"]["template"]["spec"] for one in of_kind(things, "Deployment")]
        containers = [one for pod in pods for one in pod.get("initContainers", []) + pod["containers"]]
        images = {one["image"] for one in containers if "pilotfish" in one["image"]}
        assert images == {"REGISTRY/pilotfish:0.1.0"}, f"{page}: {images}"
    print("README.md, docs/kubernetes.md: an image of one's own is named as they say: ok")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--pilotfish", required=True)
    parser.add_argument("--kubectl", required=True)
    parser.add_argument("--manifests", required=True, type=pathlib.Path)
    args = parser.parse_args()
    began = time.monotonic()
    count = 0
    for name, things in rendered(args.kubectl, args.manifests):
        check_schemas(name, things)
        check_namespace(name, things)
        check_settings(args.pilotfish, name, things)
        check_sidecar(name, things)
        check_pool(name, things)
        if name == "examples/demo":
            check_that_schemas_are_strict(things)
        skipped = sum(thing["kind"] in OF_OTHERS for thing in things)
        print(f"{name}: {len(things)} objects, {skipped} of others' kinds: ok")
        count += 1
    assert count >= 10, count
    check_documentation(args.kubectl, args.manifests)
    check_image(args.kubectl, args.manifests)
    print(f"manifests: {count} renderings, Kubernetes {', '.join(VERSIONS)}: ok, {time.monotonic() - began:.0f} s")


if __name__ == "__main__":
    main()
