"""The API: a request's method, path and body to a call of the machine, and its outcome to a response."""

from collections.abc import Callable
from typing import Any

from supervisor.embedded import APP_NAME, VERSION, config
from supervisor.embedded.http import Request, Response, fault
from supervisor.embedded.log import Log
from supervisor.embedded.machine import Machine
from supervisor.embedded.refusals import FatalFaultError, FaultError, MalformedError


class Api:
    """Firecracker's API, as far as the embedded VMM has it."""

    def __init__(self, machine: Machine, instance_id: str, log: Log, answer_as: str | None = None) -> None:
        """`answer_as` is the version of Firecracker that it says it has, in place of its own."""
        self._machine = machine
        self._instance_id = instance_id
        self._log = log
        self._version = answer_as or VERSION
        self._reads: dict[str, Callable[[], Any]] = {
            "": self._describe,
            "version": lambda: {"firecracker_version": self._version},
            "machine-config": lambda: machine.config._asdict(),
            "vm/config": machine.whole_config,
            "balloon": machine.balloon_config,
            "balloon/statistics": machine.balloon_statistics,
        }
        self._writes: dict[tuple[str, str], Callable[[Any], None]] = {
            ("PUT", "actions"): self._act,
            ("PUT", "balloon"): lambda value: machine.set_balloon(config.balloon(value)),
            ("PATCH", "balloon"): lambda value: machine.update_balloon(config.balloon_update(value)),
            ("PUT", "boot-source"): lambda value: machine.set_boot_source(config.boot_source(value)),
            ("PUT", "machine-config"): lambda value: machine.set_config(config.machine_config(value)),
            ("PUT", "snapshot/create"): lambda value: machine.create_snapshot(config.snapshot_create(value)),
            ("PUT", "snapshot/load"): self._load,
            ("PATCH", "vm"): self._change_state,
        }

    def handle(self, request: Request) -> Response:
        """Return the response to a request; does not raise."""
        body = f" with body {request.body.decode(errors='backslashreplace')!r}" if request.body else ""
        self._log.info(f'The API server received a {request.method.title()} request on "{request.path}"{body}.')
        try:
            response = self._answer(request)
        except MalformedError as error:
            response = fault(f"An error occurred when deserializing the json body of a request: {error}.")
        except FaultError as error:
            response = fault(error.message, last=isinstance(error, FatalFaultError))
        if response.status == 400:
            self._log.error(f"Received Error. Status code: 400. Message: {response.body['fault_message']}")
        else:
            self._log.info(f"The request was executed successfully. Status code: {response.status}.")
        return response

    def _answer(self, request: Request) -> Response:
        path = request.path.strip("/")
        if request.method == "GET" and path in self._reads:
            if request.body:
                raise FaultError("GET request cannot have a body.")
            return Response(200, self._reads[path]())
        write = self._writes.get((request.method, path))
        if write is None:
            raise FaultError(f"Invalid request method and/or path: {request.method} {path}.")
        if not request.body:
            raise FaultError(f"Empty {request.method} request.")
        write(config.parse_json(request.body))
        return Response(204)

    def _describe(self) -> dict[str, str]:
        return {
            "id": self._instance_id,
            "state": self._machine.state,
            "vmm_version": self._version,
            "app_name": APP_NAME,
        }

    def _load(self, value: Any) -> None:
        by_itself = self._version == VERSION
        fields = config.TRACKING_FIELDS if by_itself else config.tracking_fields(self._version)
        clock = by_itself or config.sets_clock(self._version)
        self._machine.load_snapshot(config.snapshot_load(value, fields, clock))

    def _act(self, value: Any) -> None:
        name = config.action(value)
        if name != "InstanceStart":
            raise FaultError(f"The requested operation is not supported: the embedded VMM has no {name}.")
        self._machine.start()

    def _change_state(self, value: Any) -> None:
        if config.vm_state(value) == "Paused":
            self._machine.pause()
        else:
            self._machine.resume()
