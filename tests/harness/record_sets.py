"""Sets of records as a supervisor writes them: a source with a template, and all kinds of forks of it."""

import json
from typing import Any

from supervisor.store.record_files import Loaded
from supervisor.store.registry import Registry

Fields = dict[str, Any]
SNAPSHOT = {"state": "state.3", "layers": ["mem.3", "mem.1"], "snapshot_version": "1.0.0"}
SIZE = 128 << 20


def identity(family: str, member: str) -> str:
    """Return the id of a member of a family."""
    return f"{family}{member}".ljust(24, "x")


def instance(family: str, member: str, **changes: Any) -> Fields:
    """Return the record of a Standby instance."""
    return {
        "schema_version": 1, "id": identity(family, member), "name": f"{family}-{member}", "image": "pagewalker",
        "state": "Standby", "hypervisor": "embedded", "size_bytes": SIZE, "page_size": 4096, "vcpus": 1,
        "created_at": "2026-01-01T00:00:00Z", "memory_backend": "file", "snapshot": SNAPSHOT, "next_layer": 4,
        **changes,
    }  # fmt: skip


def fork(family: str, member: str, source: str, **changes: Any) -> Fields:
    """Return the record of a share_memory fork in Standby."""
    shared = {"fork_kind": "share_memory", "template_id": identity(family, f"t{source}"), "attached": True}
    times = {"created_at": "2026-01-02T00:00:00Z"}
    return instance(family, member, source_id=identity(family, source), **{**shared, **times, **changes})


def template(family: str, source: str) -> Fields:
    """Return the record of a member's template."""
    template_id = identity(family, f"t{source}")
    return {
        "schema_version": 1, "id": template_id, "instance_id": identity(family, source), "hypervisor": "embedded",
        "layers": [f"templates/{template_id}/{layer}" for layer in SNAPSHOT["layers"]], "size_bytes": SIZE,
        "page_size": 4096, "snapshot_version": "1.0.0",
    }  # fmt: skip


def running(pid: int) -> Fields:
    """Return what is changed of an instance that runs."""
    return {"state": "Running", "process": {"pid": pid, "start_time": 100}, "memory_backend": "uffd"}


def family(name: str, pid: int) -> tuple[list[Fields], list[Fields]]:
    """Return instances and templates of one tree, whose VMs have pids from `pid` on."""
    free: Fields = {"template_id": None, "attached": False}
    phases = [{"name": "paused", "milliseconds": 3}]
    instances = [
        instance(name, "root"),
        fork(name, "served", "root", **running(pid)),
        fork(name, "ready", "root"),
        fork(name, "stopped", "root", state="Stopped", snapshot=None, attached=False, exit_code=0),
        fork(name, "copy", "root", fork_kind="copy", **free),
        fork(name, "checkpoint", "served", fork_kind="checkpoint", **free, phases=phases),
        fork(name, "grandchild", "ready", **running(pid + 1)),
        instance(name, "booted", **running(pid + 2), snapshot=None, next_layer=0),
    ]  # fmt: skip
    return instances, [template(name, "root"), template(name, "ready")]


def write(registry: Registry, instances: list[Fields], templates: list[Fields], ids: list[str]) -> None:
    """Write records into directories of these names, instances first."""
    registry.open()
    for number, fields in enumerate([*instances, *templates]):
        of_instance = number < len(instances)
        parent = registry.layout.instances if of_instance else registry.layout.templates
        directory = parent / ids[number]
        directory.mkdir()
        (directory / ("instance.json" if of_instance else "template.json")).write_text(json.dumps(fields))


def loaded(registry: Registry, instances: list[Fields], templates: list[Fields]) -> Loaded:
    """Return what a registry has of these records, each in the directory of its id."""
    write(registry, instances, templates, [fields["id"] for fields in (*instances, *templates)])
    return registry.load()
