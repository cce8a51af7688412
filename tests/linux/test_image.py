"""Images by `image build`: README's way to eight forked Linux VMs, as it stands there."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest

from tests.harness.checkout import ROOT
from tests.linux.nested_host import NestedHost
from tests.linux.packages import CACHE, debian
from tests.linux.report import Report
from tests.linux.told import OOPS, RESEEDED

FORKS: Final = tuple(f"web-{number}" for number in range(1, 9))
RC: Final = """#!/bin/sh
# What busybox's init runs before it says that it is up: a program that looks at its memory, its disk and its metadata.
/bin/busybox --install -s /bin
echo "guest: root is $(grep ' / ' /proc/mounts)"
blob=/tmp/blob; dd if=/dev/urandom of=$blob bs=1M count=1 2>/dev/null; good=$(md5sum <$blob)
(
  n=0 known=
  while :; do
    blockdev --flushbufs /dev/metadata; told=$(tr -d '\\n' </dev/metadata)
    [ "$told" = "$known" ] || echo "guest: told $told"
    known=$told
    n=$((n+1)); [ "$(md5sum <$blob)" = "$good" ] && sum=same || sum=WRONG
    echo $n >>/ticks
    echo "tick $n date $(date +%s) memory $sum disk $(tail -n 1 /ticks) uuid $(cat /proc/sys/kernel/random/uuid)"
    sleep 2
  done
) &
until [ -s /ticks ]; do sleep 1; done
"""


@pytest.fixture(scope="session")
def built(nested_host: NestedHost) -> Iterator[Report]:
    """Return what was seen of README's commands, with what a host without a network has in the place of Docker."""
    found = debian()
    rootfs = CACHE / "image-root"
    shutil.rmtree(rootfs, ignore_errors=True)
    for folder in ("bin", "dev", "etc/init.d", "proc", "sys", "tmp"):
        (rootfs / folder).mkdir(parents=True)
    shutil.copy(found.file("bin/busybox", "usr/bin/busybox"), rootfs / "bin/busybox")
    for applet in ("sh", "init"):
        (rootfs / "bin" / applet).symlink_to("busybox")
    (rootfs / "etc/init.d/rcS").write_text(RC)
    (rootfs / "etc/init.d/rcS").chmod(0o755)
    yield nested_host.run(
        "image", commands=commands(found.vmlinuz, rootfs), kernel=str(found.vmlinuz), rootfs=str(rootfs)
    )
    shutil.rmtree(rootfs)


def commands(kernel: Path, rootfs: Path) -> list[str]:
    (block,) = re.findall(r"^```sh\n([^`]*image build[^`]*)^```", (ROOT / "README.md").read_text(), re.MULTILINE)
    _, build, run = block.splitlines()
    build = build.replace("docker export $(docker create busybox)", f"tar -cC {rootfs} .")
    build = build.replace("kernel/boot/vmlinuz-*", str(kernel))
    assert str(rootfs) in build and str(kernel) in build
    # A guest here comes up in more than the minute for which is waited.
    return [build, *run.replace("--wait", "--wait --timeout 240").split(" && ")]


def told(built: Report, name: str) -> Any:
    """What a guest has read last of the disk that says who it is."""
    return json.loads(re.findall(r"guest: told (.*?)\r?$", built.console(name), re.MULTILINE)[-1])


def test_the_answer_says_why_each_word_is_there_and_what_the_kernel_has(built: Report) -> None:
    (told,) = (said for command, said in built.seen.items() if "image build" in command)
    assert "taken out of a bzImage" in told
    assert re.search(r"^no-kvmapf +\S", told, re.MULTILINE)
    assert re.search(r"^CONFIG_VMGENID +built in", told, re.MULTILINE)
    assert re.search(r"^CONFIG_OVERLAY_FS +module +the initramfs loads it", told, re.MULTILINE)
    assert "missing" not in told and "not found" not in told


def test_the_guest_has_an_overlay_over_its_root(built: Report) -> None:
    assert re.search(r"guest: root is overlay / overlay rw", built.console("web"))


@pytest.mark.parametrize("name", FORKS)
def test_each_fork_goes_on_with_its_memory_and_what_it_wrote(built: Report, name: str) -> None:
    found = built.ticks(name, "web")
    assert [tick for tick in found if tick.memory != "same" or tick.disk != str(tick.number)] == []
    assert RESEEDED in built.console(name)
    assert OOPS.findall(built.console(name)) == []


@pytest.mark.parametrize("name", ["web", *FORKS])
def test_each_says_its_own_name_from_its_metadata(built: Report, name: str) -> None:
    assert told(built, name)["forktui"] == {**built["names"][name], "name": name}


def test_a_fork_is_told_what_it_is_for(built: Report) -> None:
    found = told(built, "canary")
    assert found["role"] == "canary"
    assert found["forktui"]["name"] == "canary"


def test_all_forks_share_one_root(built: Report) -> None:
    roots = built["roots"]
    assert len(roots) == 9
    assert {tuple(root) for root in roots} == {(roots[0][0], 10)}, "the image's own name is the tenth"


def test_an_image_with_instances_is_not_removed(built: Report) -> None:
    assert "9 instances are made of it (web, " in built["refusal"]["message"]


@pytest.mark.parametrize(("name", "root"), [("scratch", "overlay / overlay rw"), ("writable", "/dev/vda / ext4 rw")])
def test_what_a_guest_writes_is_on_its_own_disk_where_that_was_asked(built: Report, name: str, root: str) -> None:
    assert f"guest: root is {root}" in built.console(name)
    assert told(built, f"{name}-fork")["forktui"]["name"] == f"{name}-fork"
    found = built.ticks(f"{name}-fork", name)
    assert [tick for tick in found if tick.memory != "same" or tick.disk != str(tick.number)] == []


def test_nothing_is_left(built: Report) -> None:
    assert built["left"] == []
    assert built.stopped is None
