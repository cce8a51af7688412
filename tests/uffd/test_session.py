"""A fork that cannot be watched, as when the kernel has no room for one more: it leaves nothing, and harms no other."""

import contextlib
import os
import socket
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest

from supervisor.runtime.attaching import listener_for
from supervisor.system.loop import Loop
from supervisor.uffd.control import PageServerEvent, Policy
from supervisor.uffd.hand_over import new_fork
from supervisor.uffd.handshake import Mapping
from supervisor.uffd.map_files import new_map_file
from supervisor.uffd.sampling import Plan
from supervisor.uffd.session import Session
from supervisor.uffd.terms import LeftFork, NewFork, Terms
from tests.harness.pager_bench import PAGE, SIZE, Bench
from tests.harness.scarce_epoll import scarce

pytestmark = pytest.mark.usefixtures("userfaultfd")


class PageServer:
    """The owner of a session, whose loop is not run."""

    def __init__(self, bench: Bench, room: int) -> None:
        self.loop = Loop()
        self.epoll = scarce(self.loop, room)
        self.image = bench.image
        self.page_size = PAGE
        self.policy = Policy()
        self.events: list[PageServerEvent] = []

    def announce(self, event: PageServerEvent) -> None:
        self.events.append(event)

    def keep_recording(self, fork_id: str, touched: list[int]) -> None:
        raise AssertionError

    def keep_sample(self, held_back: int, touched: int) -> None:
        raise AssertionError

    def plan(self, fork_id: str, mappings: Sequence[Mapping]) -> Plan:
        return Plan()

    def pending_timers(self) -> int:
        """How many calls are to come."""
        return sum(not timer.cancelled for _, _, timer in self.loop._timers)


@pytest.fixture
def owner(bench: Bench, room: int) -> Iterator[PageServer]:
    """Yield an owner whose loop takes `room` descriptors."""
    made = PageServer(bench, room)
    yield made
    made.loop.close()


@pytest.fixture
def vmm() -> Iterator[int]:
    """Yield the pid of a process that stands for a VMM."""
    process = subprocess.Popen(("sleep", "infinity"))
    yield process.pid
    process.kill()
    process.wait()


def open_descriptors() -> set[str]:
    """Return what this process has open, by number and kind."""
    found = set()
    for path in Path("/proc/self/fd").iterdir():
        try:
            found.add(f"{path.name} {path.readlink()}")
        except FileNotFoundError:
            continue
    return found


def terms_of(run_dir: Path, pid: int) -> Terms:
    return Terms("one", run_dir / "pages", pid, "off", False)


@contextlib.contextmanager
def new_fork_of(run_dir: Path, pid: int) -> Iterator[NewFork]:
    """Give what a page server is handed with a new fork."""
    with (
        listener_for(run_dir / "uffd") as listener,
        new_fork("one", listener, run_dir / "pages", pid) as (given, _),
    ):
        yield NewFork(given["listener"], given["vmm"], given["new_map"])


@contextlib.contextmanager
def left_fork_of(bench: Bench) -> Iterator[LeftFork]:
    """Give what a page server is handed with the fork that the bench stands for."""
    with contextlib.ExitStack() as stack:
        new_map = stack.enter_context(new_map_file(bench.path.with_name("map")))

        def opened(path: str | Path, flags: int = os.O_RDONLY) -> int:
            descriptor = os.open(path, flags)
            stack.callback(os.close, descriptor)
            return descriptor

        vmm = os.pidfd_open(os.getpid())
        stack.callback(os.close, vmm)
        yield LeftFork(
            uffd=bench.uffd,
            vmm=vmm,
            pagemap=opened("/proc/self/pagemap"),
            smaps=opened("/proc/self/smaps"),
            new_map=new_map.descriptor,
            left_map=opened(bench.path.with_name("map"), os.O_RDWR),
        )


@pytest.mark.parametrize("room", [0, 1])
def test_an_attach_without_room_is_refused_and_leaves_nothing(owner: PageServer, run_dir: Path, vmm: int) -> None:
    with new_fork_of(run_dir, vmm) as given:
        before = open_descriptors()
        with pytest.raises(OSError, match="No space left"):
            Session.attach(owner, terms_of(run_dir, vmm), given)
        assert open_descriptors() == before
    assert (owner.epoll.registered, owner.pending_timers(), owner.events) == (set(), 0, [])
    assert [path.name for path in run_dir.iterdir()] == ["uffd"]


@pytest.mark.parametrize("room", [0, 1])
def test_an_adoption_without_room_is_refused_and_its_fork_can_be_adopted_later(
    owner: PageServer, bench: Bench, run_dir: Path
) -> None:
    terms = terms_of(run_dir, os.getpid())._replace(page_map=bench.path.with_name("map"))
    bench.map.note_mappings([Mapping(bench.base, SIZE, 0)])
    with left_fork_of(bench) as given:
        before = open_descriptors()
        with pytest.raises(OSError, match="No space left"):
            Session.adopt(owner, terms, given)
        assert open_descriptors() == before
        assert (owner.epoll.registered, owner.pending_timers(), owner.events) == (set(), 0, [])
        owner.epoll.room = 2
        session, anew = Session.adopt(owner, terms, given)
        assert not anew
        session.end("the test is over")
        assert open_descriptors() == before


@pytest.mark.parametrize("room", [2, 3])
def test_a_handshake_without_room_ends_its_fork_alone(owner: PageServer, bench: Bench, run_dir: Path) -> None:
    before = open_descriptors()
    with new_fork_of(run_dir, os.getpid()) as given:
        session = Session.attach(owner, terms_of(run_dir, os.getpid()), given)
    with socket.socket(socket.AF_UNIX) as vmm:
        vmm.connect(str(run_dir / "uffd"))
        message = b'[{"base_host_virt_addr": %d, "size": %d, "offset": 0, "page_size": %d}]' % (bench.base, SIZE, PAGE)
        socket.send_fds(vmm, [message], [bench.uffd])
        while session.ended is None:
            for fd, _ in owner.loop._epoll.poll(5):
                owner.loop._readers[fd]()
    assert "cannot be watched: No space left on device" in session.ended
    assert [type(event).__name__ for event in owner.events] == ["Gone"]
    assert open_descriptors() == before
    assert (owner.epoll.registered, owner.pending_timers()) == (set(), 0)
