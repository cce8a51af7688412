"""What is asked before forktui is left, where a supervisor ends with it. Pure."""

from forktui.actions.form import Question
from forktui.model.world import World
from forktui.text.quantities import plural


def leaving(world: World) -> Question | None:
    """What quitting does to the VMs of a private supervisor; None where it does nothing to any."""
    if not world.sums.running:
        return None
    says = (
        "The supervisor ends. The VMs do not: guests and page servers go on as they are.",
        "Meanwhile nothing can be asked of them, and what dies of them is not replaced.",
        "forktui, started here again, finds them. To end them, x stops and d deletes first.",
    )
    run = "runs" if world.sums.running == 1 else "run"
    return Question(f"Quit, while {plural(world.sums.running, 'VM')} {run} on a private supervisor?", says, "Quit")
