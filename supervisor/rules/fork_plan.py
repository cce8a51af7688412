"""What a fork is to be, decided once from its source's state and the options that were given. Pure."""

from dataclasses import dataclass

from supervisor.models import ForkKind, ForkOptions, MemoryBackend, State
from supervisor.rules.lifecycle import Intent, Verb, check_backend, check_fork


@dataclass(frozen=True)
class ForkPlan:
    """A fork that neither the state of its source nor its options forbid."""

    kind: ForkKind
    backend: MemoryBackend
    """Where it has its memory from: one that shares none has a file of its own."""
    first_state: State
    """The state of its first record: its source's, or that of the checkpoint which it is made from."""
    target: State
    from_running: bool

    @property
    def shares_memory(self) -> bool:
        """Whether it reads its memory from its source's template."""
        return self.kind == "share_memory"

    @property
    def runs(self) -> bool:
        """Whether it is to have a VMM."""
        return self.target is State.RUNNING

    @property
    def intent(self) -> Intent | None:
        """What its first record says that is on its way to another state."""
        return None if self.first_state is self.target else "fork"

    @property
    def needs_one_file(self) -> bool:
        """Whether its memory image has to lie in one file, not in several layers."""
        return self.runs and self.backend == "file" and self.first_state is State.STANDBY


def plan_fork(name: str, state: State, huge_pages: bool, options: ForkOptions) -> ForkPlan:
    """Return what a fork of the instance `name` is to be.

    Raises BadRequestError for options that exclude each other, InvalidStateError where the state, or memory of huge
    pages, forbids them.
    """
    check_fork(name, state, options)
    shares = options.share_memory or options.template_id is not None
    plan = ForkPlan(
        kind="share_memory" if shares else "copy",
        backend=options.memory_backend if shares else "file",
        first_state=State.STANDBY if options.from_running else state,
        target=State(options.target_state) if options.target_state else state,
        from_running=options.from_running,
    )
    if plan.runs and plan.first_state is State.STANDBY:
        check_backend(Verb.FORK, name, huge_pages, plan.backend)
    return plan
