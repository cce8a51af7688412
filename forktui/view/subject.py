"""One instance, and what is known around it: what its details are made of. Pure."""

from dataclasses import dataclass, field
from datetime import datetime
from functools import cached_property

from forktui.model.family import Family
from forktui.model.world import World
from forktui.text.quantities import age
from forktui.view.glyphs import Glyphs
from supervisor.models import Instance, InstanceStatistics, MachineInfo, PageMapFold, Template


@dataclass(frozen=True)
class Subject:
    """The instance, its family and the world that both are of; what had to be asked for where that is known."""

    world: World
    instance: Instance
    family: Family
    glyphs: Glyphs
    now: float = field(default=0.0, compare=False)
    """Seconds of the supervisor's boot clock."""
    fold: PageMapFold | None = None
    machine: MachineInfo | None = None

    @cached_property
    def counters(self) -> InstanceStatistics:
        """Its last ones."""
        return self.world.statistics_of(self.instance.id)

    @cached_property
    def own_template(self) -> Template | None:
        """The template that its forks read."""
        return self.world.template_of(self.instance)

    @cached_property
    def read_template(self) -> Template | None:
        """The template that it reads itself."""
        return self.world.templates.get(self.instance.template_id or "")

    @property
    def source(self) -> Instance | None:
        """What it was forked from, where that is there."""
        return self.world.instances.get(self.instance.source_id or "")

    def ago(self, at: datetime | None) -> str:
        """How long before the last statistics something was, in words; nothing where that is not known."""
        told = self.world.statistics_at
        return "" if at is None or told is None or at > told else f"{age((told - at).total_seconds())} ago"
