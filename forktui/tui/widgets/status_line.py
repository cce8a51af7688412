"""The two lines at the top: which supervisor answers, whether it still does, and the totals of the host."""

from forktui.client.feed import Connection, Link
from forktui.model.conditions import Kind
from forktui.model.totals import Totals
from forktui.model.world import World, totals
from forktui.text.quantities import count, named, size
from forktui.tui.attachment import Attachment
from forktui.tui.widgets.inked import Painting
from forktui.view.styled_lines import Ink, Line, Piece, fit, joined, line_width
from supervisor.models import SupervisorInfo

HYPERVISORS = {"embedded": "embedded VMM (simulated CPU)", "firecracker": "Firecracker"}
_LINKS: dict[Link, Ink] = {Link.CONNECTING: "waiting", Link.LIVE: "running", Link.SILENT: "broken", Link.LOST: "broken"}


class StatusLine(Painting):
    """Who answers on which socket, and the sums over all instances."""

    def __init__(self, attachment: Attachment) -> None:
        super().__init__(id="status")
        self._attachment = attachment
        self._world = World()
        self._totals = Totals()
        self._connection = Connection()

    def show(self, world: World, connection: Connection) -> None:
        """Draw the totals of `world`."""
        self._world = world
        self._totals = totals(world)
        self._connection = connection
        self.repaint()

    def paint(self, width: int, height: int) -> list[Line]:
        return [self._supervisor(width), self._sums(width)]

    def _supervisor(self, width: int) -> Line:
        separator: Piece = (f" {self.glyphs.dot} ", "guide")
        info = self._world.supervisor
        begin: list[Line] = [[("forktui", "strong")]]
        if self._attachment.title:
            begin.append([(self._attachment.title, "notice")])
        if self._attachment.read_only:
            begin.append([(" READ-ONLY ", "locked"), (" --read-only", "muted")])
        if info is not None:
            version = "" if info.hypervisor == "embedded" else f" {info.hypervisor_version}"
            begin.append([(HYPERVISORS[info.hypervisor] + version, "standby"), *_jail(info)])
            if not info.writable:
                begin.append([(" READ-ONLY ", "locked"), (" by the supervisor", "muted")])
        live = self.glyphs.live if self._connection.live else self.glyphs.lost
        link: Line = [(f"{live} {self._connection.link}", _LINKS[self._connection.link])]
        if info is not None:
            begin.append([(f"supervisor {info.version}, pid {info.pid}", "muted")])
        line = joined(begin, separator)
        room = width - line_width(link) - 3
        while line_width(line) > room and len(begin) > 2:
            begin.pop()
            line = joined(begin, separator)
        socket = fit(self._attachment.socket, room - line_width(line) - 3, self.glyphs.ellipsis)
        end: Line = [(f"{socket}  ", "muted"), *link] if len(socket) > 12 else link
        return [*line, (" " * max(width - line_width(line) - line_width(end), 1), "plain"), *end]

    def _sums(self, width: int) -> Line:
        sums, host = self._totals, self._world.host
        groups: list[tuple[int, Line]] = []
        if sums.corrupt:
            groups.append((0, [(f" {sums.corrupt} CORRUPT ", "alarm")]))
        if stuck := self._world.alarms.holding(Kind.STUCK):
            groups.append((0, [(f" {stuck} STUCK ", "alarm")]))
        instances = _sum(count(sums.instances), named(sums.instances, "instance"))
        groups.append((0, instances + _sum(count(sums.running), " running", "running")))
        forks = _sum(count(sums.forks), named(sums.forks, "fork"))
        groups.append((1, forks + _sum(count(sums.locked), " locked", "standby")))
        faults = _sum(count(sums.faults), named(sums.faults, "fault"), "faulted")
        groups.append((4, faults + _sum(count(sums.residual_faults), " residual")))
        groups.append((7, _sum(count(sums.prefetched_pages), "prefetched", "prefetched")))
        groups.append((5, _sum(size(sums.private_bytes), "private")))
        groups.append((6, _sum(size(sums.shared_bytes), "shared")))
        if host.memory_total_bytes:
            groups.append((3, _sum(f"{host.cpu_percent:.0f}%", "cpu")))
            groups.append((2, _sum(f"{size(host.memory_available_bytes)} of {size(host.memory_total_bytes)}", "free")))
        while True:
            line = joined([group for _, group in groups], (f" {self.glyphs.rule} ", "guide"))
            if line_width(line) <= width or len(groups) <= 2:
                return line
            # What has the highest rank can be done without first.
            groups.remove(max(groups, key=lambda ranked: ranked[0]))


def _jail(info: SupervisorInfo) -> Line:
    """Whether a Firecracker that is started now is in a jail; there are none for the embedded VMM, and no word."""
    if info.jails is None or info.hypervisor != "firecracker":
        return []
    return (
        [(", jailed", "running")]
        if info.jails.jailed
        else [(", not jailed", "warning" if info.jails.problem else "muted")]
    )


def _sum(number: str, what: str, ink: Ink = "plain") -> Line:
    before = " " if what.startswith(" ") else ""
    return [(f"{before}{number}", ink), (f" {what.strip()}", "muted")]
