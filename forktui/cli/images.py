"""The commands that make images and remove them. The files are read here, by who asks, and sent."""

import asyncio
import json
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Final

from forktui.cli.command import Command, UsageError, request
from forktui.client.api import SupervisorClient
from forktui.client.uploads import SentFile, standard_input, tar_of_bytes, tar_of_image, tar_of_root, whole_file
from forktui.text.quantities import mebibytes
from forktui.text.safe import safe_model
from forktui.text.table import text_table
from supervisor.models import BuildImageRequest, KernelFinding, MadeImage
from supervisor.settings import Settings
from supervisor.system.kernel_modules import WANTED, in_order, module_name

_FIELDS: Final = ("size", "memory", "vcpus", "scratch", "init", "boot_args")


def _nothing(parser: ArgumentParser) -> None:
    """Take nothing: one of the nested commands follows."""


async def _none(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    raise AssertionError("one of the nested commands is run")


def _build_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", help="what it is called: letters, digits, dots, dashes, underscores")
    parser.add_argument("--kernel", required=True, type=Path, metavar="FILE", help="a vmlinux or a bzImage (vmlinuz)")
    parser.add_argument(
        "--rootfs",
        type=Path,
        metavar="DIR|TAR",
        help="the root: a directory, or a tar as `docker export` writes it, from standard input where it is -",
    )
    parser.add_argument("--initrd", type=Path, metavar="FILE", help="in place of the one that is made")
    parser.add_argument(
        "--kernel-config", type=Path, metavar="FILE",
        help="its configuration (default: config-VERSION beside a vmlinuz-VERSION, else what the kernel has in it)",
    )  # fmt: skip
    parser.add_argument(
        "--modules", type=Path, metavar="DIR",
        help="the kernel's modules (default: ../lib/modules/VERSION from a vmlinuz-VERSION); what it needs is taken",
    )  # fmt: skip
    parser.add_argument("--size", help="of the root disk, such as 4G (default: what is in it)")
    parser.add_argument("--memory", help="the guest's memory, such as 512MB (default 256MB)")
    parser.add_argument("--vcpus", type=int, help="default 1")
    parser.add_argument("--writable", action="store_true", help="each fork gets a copy of the root, and shares none")
    parser.add_argument("--scratch", metavar="SIZE", help="what a guest writes over the root is on a disk of this size")
    parser.add_argument("--init", metavar="PATH", help="the guest's first program (default: /sbin/init and others)")
    parser.add_argument("--boot-args", metavar="WORDS", help="words behind the kernel command line, in one argument")


async def _build(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    given: dict[str, object] = {"name": options.name}
    given |= {name: value for name in _FIELDS if (value := getattr(options, name)) is not None}
    if options.writable:
        given["writable"] = True
    wanted = request(BuildImageRequest, given)
    files = await asyncio.to_thread(_files, options)
    made = await client.build_image(wanted, files)
    _show(made, settings)
    return True


def _files(options: Namespace) -> dict[str, SentFile]:
    """Return what is sent; raises OSError, and UsageError for what is no directory of modules."""
    kernel: Path = options.kernel
    files = {"kernel": whole_file(kernel)}
    version = kernel.name.removeprefix("vmlinuz-") if kernel.name.startswith("vmlinuz-") else None
    config = options.kernel_config or _there(version and kernel.with_name(f"config-{version}"))
    if config is not None:
        files["config"] = whole_file(config)
    if options.initrd is not None:
        files["initrd"] = whole_file(options.initrd)
    elif options.rootfs is not None:
        modules = options.modules or _there(version and kernel.absolute().parent.parent / "lib/modules" / version)
        if modules is not None:
            files["modules"] = _modules(modules)
    if options.rootfs is not None:
        files["rootfs"] = _root(options.rootfs)
    return files


def _root(given: Path) -> SentFile:
    if str(given) == "-":
        return standard_input()
    return tar_of_root(given) if given.is_dir() else whole_file(given)


def _there(path: Path | str | None) -> Path | None:
    return Path(path) if path and Path(path).exists() else None


def _modules(directory: Path) -> SentFile:
    """Return a tar of the modules that a guest needs, each behind those that it needs itself."""
    found = {name: str(path) for path in directory.rglob("*.ko*") if (name := module_name(path.name)) is not None}
    try:
        modules = in_order(WANTED, found, lambda path: Path(path).read_bytes())
    except ValueError as error:
        raise UsageError(f"--modules: {error}") from error
    if not modules:
        raise UsageError(f"--modules: {directory} has none of the modules that a guest needs, such as virtio_blk")
    return tar_of_bytes((f"{name}.ko", data) for name, data in modules)


def _add_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name")
    parser.add_argument("directory", type=Path, metavar="DIR", help="one with a vm.json, or with a state and a mem")


async def _add(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    _show(await client.add_image(options.name, await asyncio.to_thread(tar_of_image, options.directory)), settings)
    return True


def _remove_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name")


async def _remove(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    await client.remove_image(options.name)
    return True


def _show(made: MadeImage, settings: Settings) -> None:
    if settings.json_output:
        print(json.dumps(made.model_dump(mode="json"), indent=2))
        return
    safe = safe_model(made)
    print(f"image {safe.name} is made")
    if safe.kernel:
        print(f"kernel: taken out of {safe.kernel}" if "bzImage" in safe.kernel else f"kernel: {safe.kernel}")
    if safe.root_bytes is not None:
        disk = mebibytes(safe.root_disk_bytes or 0)
        print(
            f"root: {safe.entries} files, a disk of {mebibytes(safe.root_bytes)} MiB, of which {disk} are on the host's"
        )
    if safe.modules:
        print(f"modules: {' '.join(safe.modules)}")
    if safe.boot_words:
        print(text_table([("BOOT ARGUMENT", "WHY"), *((one.word, one.why) for one in safe.boot_words)]))
    if safe.findings:
        rows = ((f"CONFIG_{one.option}", one.status, _meaning(one)) for one in safe.findings)
        print(text_table([("KERNEL", "IS", "WHICH MEANS"), *rows]))
    for note in safe.notes:
        print(note)


def _meaning(found: KernelFinding) -> str:
    return f"it does not boot: {found.meaning}" if found.level == "alarm" else found.meaning


BUILD: Final = Command("build", "make an image of a kernel and a root", _build_arguments, _build)
ADD: Final = Command("add", "take a directory that is an image, or a snapshot", _add_arguments, _add)
REMOVE: Final = Command("rm", "remove an image of which there is no instance", _remove_arguments, _remove, ())
IMAGE: Final = Command("image", "build, add or remove an image", _nothing, _none, (), nested=(BUILD, ADD, REMOVE))
