"""`forktui console`: a guest's console in this terminal, typed into until one leaves it."""

import asyncio
import contextlib
import os
import sys
import termios
import tty
from argparse import ArgumentParser, Namespace
from collections.abc import AsyncIterator, Iterator
from typing import Final

from forktui.cli.command import Command, reference
from forktui.client.api import ApiError, SupervisorClient, SupervisorUnreachableError
from forktui.client.console import ConsoleConnection, Dropped, Skipped, open_console
from forktui.client.feed import retry_seconds
from forktui.text.safe import safe_text
from forktui.text.terminal_stream import RESET, TerminalStream
from forktui.text.typed_keys import HELP, Asked, TypedKeys
from supervisor.settings import Settings

_READ: Final = 4096
_STDIN, _STDOUT = 0, 1
ENDED: Final = "its VM has ended"
"""A reason of the supervisor's after which there is nothing more to come."""
_BUSY: Final = "console_busy"


class Keyboard:
    """Standard input: a terminal in raw mode, or a pipe that is typed as it is, whose end leaves."""

    def __init__(self) -> None:
        self._typed: asyncio.Queue[bytes] = asyncio.Queue()
        self._keys = TypedKeys() if os.isatty(_STDIN) else None

    @property
    def is_terminal(self) -> bool:
        """Whether somebody types."""
        return self._keys is not None

    @contextlib.contextmanager
    def listening(self) -> Iterator[None]:
        """Have what is typed, and the terminal as it was after that."""
        loop = asyncio.get_running_loop()
        with _raw(_STDIN) if self._keys else contextlib.nullcontext():
            loop.add_reader(_STDIN, self._read)
            try:
                yield
            finally:
                loop.remove_reader(_STDIN)

    def _read(self) -> None:
        data = os.read(_STDIN, _READ)
        if not data:
            asyncio.get_running_loop().remove_reader(_STDIN)
        self._typed.put_nowait(data)

    async def typed(self) -> AsyncIterator[bytes]:
        """Yield what is to be sent, until one leaves."""
        while data := await self._typed.get():
            if self._keys is None:
                yield data
                continue
            for piece, asked in self._keys.feed(data):
                if piece:
                    yield piece
                match asked:
                    case Asked.LEAVE:
                        return
                    case Asked.SIZE:
                        size = os.get_terminal_size(_STDIN)
                        yield f"stty rows {size.lines} cols {size.columns}\r".encode()
                    case Asked.HELP:
                        _say(HELP)


class Console:
    """One guest's console, over as many connections as it takes."""

    def __init__(self, client: SupervisorClient, instance: str, *, watch: bool) -> None:
        self._client = client
        self._instance = instance
        self._watch = watch
        self._keyboard = Keyboard()
        self._stream = TerminalStream()
        self._position: int | None = None
        self._connection: ConsoleConnection | None = None
        self._connected = asyncio.Event()

    async def run(self) -> None:
        """Return when one leaves, or the VM has ended; raises what a refusal is."""
        with self._keyboard.listening():
            tasks = {asyncio.create_task(self._print()), asyncio.create_task(self._type())}
            try:
                done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
                if os.isatty(_STDOUT):
                    _write(RESET)
        for task in done:
            task.result()

    async def _type(self) -> None:
        async for data in self._keyboard.typed():
            if self._watch:
                continue
            await self._connected.wait()
            if self._connection is not None:
                # What is typed while it is lost is typed into nothing, as into a line that is cut.
                with contextlib.suppress(SupervisorUnreachableError):
                    await self._connection.type(data)
        if not self._keyboard.is_terminal:
            # Where there is nothing to type, it is to be told all the same why nothing could be.
            await self._connected.wait()

    async def _print(self) -> None:
        """Print, through restarts of the supervisor, until there is nothing more to come."""
        attempts = 0
        while True:
            try:
                reason = await self._print_once()
                if reason == ENDED or not reason:
                    _say(reason or "the console has ended")
                    return
                attempts = 0
            except SupervisorUnreachableError:
                if self._position is None:
                    raise
                reason = "the supervisor is gone"
            except ApiError as error:
                # The connection before may not have been seen to be gone yet.
                if self._position is None or error.code != _BUSY:
                    raise
                reason = error.message
            attempts += 1
            if attempts == 1:
                _say(f"{reason}; it is tried again, ~. leaves")
            await asyncio.sleep(retry_seconds(attempts))

    async def _print_once(self) -> str:
        async with open_console(self._client, self._instance, self._position, watch=self._watch) as connection:
            if self._position is None:
                _say(f"{self._instance}: {'watched' if self._watch else 'typed into'}; ~. leaves, ~? helps")
            else:
                _say("connected again")
            self._connection = connection
            self._connected.set()
            try:
                async for piece in connection.printed():
                    self._position = connection.position
                    match piece:
                        case Skipped():
                            _say(f"{piece.size} bytes before this are no longer kept")
                        case Dropped():
                            _say(f"the guest does not read: {piece.size} bytes that were typed are dropped")
                        case bytes():
                            _write(self._stream.feed(piece))
                self._position = connection.position
                return connection.reason
            finally:
                self._connected.clear()
                self._connection = None


@contextlib.contextmanager
def _raw(descriptor: int) -> Iterator[None]:
    """Have each key at once, and none of them mean anything here; what is printed is not changed by it."""
    before = termios.tcgetattr(descriptor)
    try:
        tty.setraw(descriptor)
        now = termios.tcgetattr(descriptor)
        # A guest may end its lines with a line feed alone.
        now[1] |= termios.OPOST | termios.ONLCR
        termios.tcsetattr(descriptor, termios.TCSADRAIN, now)
        yield
    finally:
        termios.tcsetattr(descriptor, termios.TCSADRAIN, before)


def _say(words: str) -> None:
    """Say something that is not the guest's, on standard error."""
    lines = (safe_text(line) for line in words.splitlines())
    print("".join(f"\r-- {line} --\r\n" for line in lines), end="", file=sys.stderr, flush=True)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("instance", type=reference, metavar="INSTANCE", help="a name, id or unique id prefix")
    parser.add_argument("--watch", action="store_true", help="only watch: several may, and one at a time types")


async def _console(client: SupervisorClient, options: Namespace, settings: Settings) -> bool:
    await Console(client, options.instance, watch=options.watch).run()
    return True


CONSOLE: Final = Command("console", "type into a guest's console, and watch it", _arguments, _console, ())
