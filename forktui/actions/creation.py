"""A new instance of an image."""

from collections.abc import Mapping, Sequence
from typing import Final

from forktui.actions.action import Group, Outcome, Targets, Verb, unasked
from forktui.actions.form import METADATA, READINESS, Field, Form, Look, Values
from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.model.world import World
from forktui.text.quantities import size
from forktui.text.remedies import in_dashboard
from forktui.text.safe import safe_model, safe_text
from supervisor.models import CreateRequest, ImageInfo, Instance

BUILT_IN: Final = "pagewalker"
ANY: Final = "auto"
TOLD_IMAGES: Final = 6

_FIELDS: Final = (
    Field("name", "name", placed=True),
    Field("image", "image", choices=(BUILT_IN,)),
    Field("size", "size", hint="as the image says, such as 128MB"),
    Field("vcpus", "vcpus", hint="as the image says"),
    Field("hypervisor", "hypervisor", choices=(ANY,), asked_alone=False),
    Field("track_dirty_pages", "diff snapshots", choices=("true", "false")),
    Field("cmd", "command line", hint="words for the kernel"),
    READINESS,
    METADATA,
)


def image_line(image: ImageInfo) -> str:
    """An image with its state: how an instance of it begins, or why there can be none."""
    if image.error is not None or image.status != "ready":
        return f"{image.name}: {image.status}: {image.error or 'it cannot be used'}"
    begins = "boots at once" if image.kind == "boot" else "a snapshot: begins in Standby"
    memory = f", {size(image.memory_bytes)}" if image.memory_bytes else ""
    only = f", {image.hypervisor} only" if image.hypervisor else ""
    return f"{image.name}: {begins}{memory}{only}"


def image_lines(images: Sequence[ImageInfo], chosen: str) -> tuple[str, ...]:
    """The chosen image, then those that cannot be used and why."""
    first = [image for image in images if image.name == chosen]
    failed = [image for image in images if image.status != "ready" and image.name != chosen]
    lines = [image_line(image) for image in (*first, *failed)]
    more = len(lines) - TOLD_IMAGES
    return (*lines[:TOLD_IMAGES], *([f"and {more} more that cannot be used: forktui images"] if more > 0 else []))


def hypervisors(capabilities: Mapping[str, object]) -> tuple[str, ...]:
    """What an instance may run on, where that is a question: `auto`, and each that can run here."""
    there = [safe_text(str(one.get("name"))) for one in _runtimes(capabilities) if one.get("available")]
    return (ANY, *there) if len(there) > 1 else (ANY,)


def cannot_run(capabilities: Mapping[str, object]) -> tuple[str, ...]:
    """Which hypervisors cannot run here and what would allow it, a line each."""
    lines = ((one.get("name"), one.get("unavailable_reason")) for one in _runtimes(capabilities))
    return tuple(safe_text(f"{name} cannot run here: {reason}") for name, reason in lines if reason)


def _runtimes(capabilities: Mapping[str, object]) -> list[dict[object, object]]:
    runtimes = capabilities.get("runtimes")
    return [one for one in runtimes if isinstance(one, dict)] if isinstance(runtimes, list) else []


async def _look(client: SupervisorClient, instance_ids: Sequence[str], values: Values) -> Look:
    images = [safe_model(image) for image in await client.images()]
    ready = tuple(image.name for image in images if image.status == "ready")
    capabilities = await client.capabilities()
    choices = {"image": ready or (BUILT_IN,), "hypervisor": hypervisors(capabilities)}
    return Look((*image_lines(images, values.get("image", BUILT_IN)), *cannot_run(capabilities)), choices)


def _guard(instance: Instance, selected: Targets) -> None:
    """Whatever is selected, another can be made."""


def _form(world: World, targets: Targets) -> Form:
    says = ("Once it runs: s puts it to standby, then F makes forks of it.",)
    taken = frozenset(one.name for one in world.instances.values())
    return Form("A new instance", says, _FIELDS, CreateRequest, taken=taken, look=_look, words=("cmd",))


async def _create(client: SupervisorClient, world: World, instance_ids: Sequence[str], values: Values) -> Outcome:
    request = CreateRequest.model_validate(_form(world, ()).request(values))
    try:
        made = await client.create(request)
    except (ApiError, SupervisorUnreachableError) as error:
        return Outcome("", (in_dashboard(error),))
    return Outcome(safe_text(f"created: {made.name} ({made.state})"), made=made.id)


CREATE: Final = Verb(
    word="create",
    keys=("n",),
    label="New…",
    help="Make an instance of an image, which boots, or begins in Standby where the image is a snapshot",
    command="boot a new instance",
    group=Group.MACHINES,
    guard=_guard,
    question=unasked,
    form=_form,
    fields=_FIELDS,
    do=_create,
    footer=True,
    makes=True,
)
