"""Records on disk: whole or not there, and never deleted because they cannot be read."""

import errno
import json
import os
import stat
from datetime import UTC, datetime
from pathlib import Path

import pytest

from supervisor.errors import StorageError
from supervisor.models import State
from supervisor.store.layout import Layout
from supervisor.store.record_files import Loaded
from supervisor.store.records import InstanceRecord, TemplateRecord
from supervisor.store.registry import Registry, new_id, write_atomically


def record(**changes: object) -> InstanceRecord:
    values: dict[str, object] = {
        "id": new_id(),
        "name": "vm",
        "image": "pagewalker",
        "state": State.STANDBY,
        "snapshot": {"state": "state.0", "layers": ("mem.0",), "snapshot_version": "1.0.0"},
        "next_layer": 1,
        "hypervisor": "embedded",
        "size_bytes": 128 << 20,
        "vcpus": 1,
        "number": 1,
        "created_at": datetime(2026, 1, 1, tzinfo=UTC),
    }
    return InstanceRecord.model_validate(values | changes)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    made = Registry(Layout(tmp_path / "data", tmp_path))
    made.open()
    return made


def test_ids_are_24_lowercase_alphanumerics_that_start_with_a_letter() -> None:
    ids = {new_id() for _ in range(500)}
    assert len(ids) == 500
    assert all(len(one) == 24 and one.isalnum() and one.islower() and one[0].isalpha() for one in ids)


def test_records_come_back_as_they_were_saved_in_the_order_in_which_they_were_made(registry: Registry) -> None:
    late = record(created_at=datetime(2026, 1, 1, tzinfo=UTC), name="late", number=2)
    early = record(created_at=datetime(2026, 2, 1, tzinfo=UTC), name="early", number=1)
    for one in (late, early):
        registry.create_instance(one, lambda _: None)
    changed = early.model_copy(update={"state": State.STOPPED, "exit_message": "stopped"})
    registry.save_instance(changed)
    template_id = new_id()
    template = TemplateRecord(
        id=template_id, instance_id=late.id, layers=(f"templates/{template_id}/mem.0",), hypervisor="embedded",
        size_bytes=late.size_bytes, page_size=4096, snapshot_version="1.0.0",
    )  # fmt: skip
    registry.create_template(template, lambda _: None)
    assert registry.load() == Loaded([changed, late], [template])


@pytest.mark.parametrize(
    ("stored", "read"), [(True, "auto"), (False, "off"), ("on", "on"), ("auto", "auto"), ("off", "off"), (None, "off")]
)
def test_who_was_to_record_is_read_from_records_that_say_only_whether(
    registry: Registry, stored: bool | str | None, read: str
) -> None:
    one = record()
    registry.create_instance(one, lambda _: None)
    file = registry.layout.instance(one.id) / "instance.json"
    fields = json.loads(file.read_text())
    del fields["record_hot_pages"]
    file.write_text(json.dumps(fields | ({} if stored is None else {"record_hot_pages": stored})))
    loaded = registry.load()
    assert ([found.record_hot_pages for found in loaded.instances], loaded.unreadable) == ([read], {})


def test_a_record_that_cannot_be_read_is_reported_and_kept(registry: Registry) -> None:
    good = record()
    registry.create_instance(good, lambda _: None)
    for name, content in {"torn": b'{"id": "x', "newer": b'{"schema_version": 2}', "empty": b""}.items():
        (registry.layout.instances / name).mkdir()
        (registry.layout.instances / name / "instance.json").write_bytes(content)
    loaded = registry.load()
    assert loaded.instances == [good]
    assert sorted(loaded.unreadable) == ["empty", "newer", "torn"]
    assert (registry.layout.instances / "torn" / "instance.json").read_bytes() == b'{"id": "x'


def test_a_directory_appears_with_all_that_belongs_in_it_or_not_at_all(registry: Registry) -> None:
    one = record()

    def fail(directory: Path) -> None:
        (directory / "kernel").write_bytes(b"half")
        raise OSError(28, os.strerror(28))

    with pytest.raises(StorageError, match="No space left on device; free space"):
        registry.create_instance(one, fail)
    assert list(registry.layout.instances.iterdir()) == []
    registry.create_instance(one, lambda directory: (directory / "kernel").touch())
    assert sorted(path.name for path in registry.layout.instance(one.id).iterdir()) == ["instance.json", "kernel"]


def test_what_a_crash_left_half_made_or_half_removed_is_swept(registry: Registry) -> None:
    for name in (".deleted-a", ".new-b"):
        (registry.layout.instances / name).mkdir()
        (registry.layout.instances / name / "mem.0").touch()
    registry.open()
    assert list(registry.layout.instances.iterdir()) == []


def test_removal_takes_the_directory_and_can_be_repeated(registry: Registry) -> None:
    one = record()
    registry.create_instance(one, lambda directory: (directory / "mem.0").touch())
    registry.remove_instance(one.id)
    registry.remove_instance(one.id)
    assert list(registry.layout.instances.iterdir()) == []


def test_a_failed_write_leaves_no_temporary_file(tmp_path: Path) -> None:
    target = tmp_path / "record"
    target.mkdir()
    with pytest.raises(StorageError, match="Is a directory; free space or make the data directory writable"):
        write_atomically(target, b"new")
    assert list(tmp_path.iterdir()) == [target]


def test_a_record_that_has_its_name_is_there_whether_or_not_its_directory_can_be_synced(
    registry: Registry, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    sync = os.fsync

    def fails_for_directories(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        sync(fd)

    monkeypatch.setattr(os, "fsync", fails_for_directories)
    one = record()
    registry.create_instance(one, lambda directory: None)
    registry.save_instance(one.model_copy(update={"name": "renamed"}))
    loaded = registry.load()
    assert [found.name for found in loaded.instances] == ["renamed"]
    assert loaded.unreadable == {}
    assert "may be lost when the host crashes: Input/output error" in caplog.text
