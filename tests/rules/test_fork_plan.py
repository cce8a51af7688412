"""What a fork is to be: decided once, and never something that its source's state or its options forbid."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from supervisor.errors import BadRequestError, InvalidStateError
from supervisor.models import ForkOptions, State
from supervisor.rules.fork_plan import ForkPlan, plan_fork

OPTIONS = st.builds(
    ForkOptions,
    from_running=st.booleans(),
    target_state=st.sampled_from([None, "Stopped", "Standby", "Running"]),
    share_memory=st.booleans(),
    template_id=st.sampled_from([None, "template"]),
    memory_backend=st.sampled_from(["uffd", "file"]),
)


@given(st.sampled_from(State), st.booleans(), OPTIONS)
def test_whatever_is_asked_the_plan_is_sound_or_there_is_none(
    state: State, huge_pages: bool, options: ForkOptions
) -> None:
    try:
        plan = plan_fork("vm", state, huge_pages, options)
    except (BadRequestError, InvalidStateError) as refused:
        assert refused.message.startswith("vm: fork refused: ")
        return
    assert state in (State.STANDBY, State.STOPPED, State.RUNNING)
    assert plan.first_state in (State.STANDBY, State.STOPPED)
    assert plan.target is (State(options.target_state) if options.target_state else state)
    assert plan.shares_memory == (options.share_memory or options.template_id is not None)
    assert plan.from_running == (state is State.RUNNING)
    if plan.shares_memory:
        assert (state, plan.backend) == (State.STANDBY, options.memory_backend)
    else:
        assert plan.backend == "file"
    assert (plan.intent is None) == (plan.first_state is plan.target)
    if huge_pages and plan.runs and plan.first_state is State.STANDBY:
        assert plan.backend == "uffd"
    assert plan.needs_one_file == (plan.runs and plan.backend == "file" and plan.first_state is State.STANDBY)


@pytest.mark.parametrize(
    ("state", "options", "plan"),
    [
        (
            State.STANDBY,
            ForkOptions(share_memory=True, target_state="Running"),
            ForkPlan("share_memory", "uffd", State.STANDBY, State.RUNNING, from_running=False),
        ),
        (
            State.STANDBY,
            ForkOptions(template_id="template", memory_backend="file"),
            ForkPlan("share_memory", "file", State.STANDBY, State.STANDBY, from_running=False),
        ),
        (
            State.RUNNING,
            ForkOptions(from_running=True),
            ForkPlan("copy", "file", State.STANDBY, State.RUNNING, from_running=True),
        ),
        (State.STOPPED, ForkOptions(), ForkPlan("copy", "file", State.STOPPED, State.STOPPED, from_running=False)),
    ],
)
def test_forks_that_operators_make(state: State, options: ForkOptions, plan: ForkPlan) -> None:
    assert plan_fork("vm", state, False, options) == plan


def test_memory_of_huge_pages_is_not_restored_from_a_file() -> None:
    running = ForkOptions(target_state="Running")
    with pytest.raises(InvalidStateError, match="its memory is of huge pages"):
        plan_fork("vm", State.STANDBY, True, running)
    assert plan_fork("vm", State.STANDBY, True, ForkOptions()).target is State.STANDBY
    assert plan_fork("vm", State.STOPPED, True, running).runs
