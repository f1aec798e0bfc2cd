"""A reader: a process that reads studies and reduces each to what the device needs.

The main process sends a command only to a reader that is idle, and each command has one reply.
So neither side can block on a full pipe, at most two volumes are held by a reader, and whatever
befalls it, the main process knows which study it was on. No torch here: it would cost each
reader seconds and hundreds of megabytes.
"""

from __future__ import annotations

import logging
import multiprocessing
import os
import signal
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from vfscreen.child_process import end_with_parent, keep_freed_memory
from vfscreen.curve import SpineCurve
from vfscreen.errors import FilesVanished, OutOfMemory, StudyError, UnexpectedError
from vfscreen.localize import LocalizerInput, localizer_input
from vfscreen.settings import ReadSettings, Settings
from vfscreen.storage import is_afar, on_this_machine, remove_copies
from vfscreen.straighten import Straightened, straightened
from vfscreen.study import SourceImages, StudyFiles, StudyHeader, StudyImage
from vfscreen.volume import Volume
from vfscreen.whole_files import PASSING

logger = logging.getLogger(__name__)

ReadStudy = Callable[[StudyFiles, ReadSettings], StudyImage]

_SPAWN = multiprocessing.get_context("spawn")
_START_LIMIT_S = 300.0  # libraries may have to come over a network
_LIBRARIES_MIB = 512  # that a reader holds before its first study
_ONE_THREAD = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")


@dataclass(frozen=True)
class Read:
    """Read a study and keep its volume; the reply is a `Prepared`."""

    study: StudyFiles


@dataclass(frozen=True)
class Straighten:
    """Straighten a study's volume along its curve and drop the volume; the reply is a
    `Straightened`."""

    study: StudyFiles
    curve: SpineCurve


@dataclass(frozen=True)
class Forget:
    """Drop a study's volume; the reply is None."""

    study: StudyFiles


Command = Read | Straighten | Forget


@dataclass(frozen=True)
class Prepared:
    """A study that was read: what the localizer looks at, linking keys and, where asked for, instances."""

    input: LocalizerInput
    header: StudyHeader
    images: SourceImages | None = None


@dataclass(frozen=True)
class Reply:
    """What a command gave, or the study's error, how long it took, and what was logged meanwhile.

    None: ready for the first command.
    """

    value: Prepared | Straightened | StudyError | None
    seconds: float = 0.0
    messages: tuple[str, ...] = ()


@dataclass(frozen=True)
class ReaderLimits:
    """What one study may cost a reader; beyond it the study fails, and the others go on."""

    seconds: float
    memory_mib: int


def as_study_error(error: Exception) -> StudyError:
    """The error as it is shown in a study's row: its own, or its type and place if no stage foresaw it.

    Its text is left out, since it may repeat a header's.
    """
    if isinstance(error, StudyError):
        return error
    if isinstance(error, MemoryError):
        return OutOfMemory("the study needs more memory than a reader may use")
    frames = traceback.extract_tb(error.__traceback__)
    ours = [frame for frame in frames if "vfscreen" in frame.filename] or frames
    place = f" in {os.path.basename(ours[-1].filename)}, line {ours[-1].lineno}" if ours else ""
    return UnexpectedError(f"{type(error).__name__}{place}")


def _vanished(study: StudyFiles, error: BaseException) -> FilesVanished | None:
    """Where it is not the study's fault: a file is gone, or its disk or share gives no answer."""
    if is_afar(study):
        return None  # it was fetched, or has an error that says why not
    gone = [path.name for path in study.files if not os.path.exists(path)]
    if gone:
        return FilesVanished(f"{len(gone)} of {len(study.files)} files are gone, the first is {gone[0]}")
    cause: BaseException | None = error
    while cause is not None:
        if isinstance(cause, OSError) and cause.errno in PASSING:
            return FilesVanished(f"the disk or share with the study gives no answer ({cause.strerror})")
        cause = cause.__cause__
    return None


class Reader:
    """The main process's handle of one reader.

    `studies` are those whose volumes it holds or is reading, by study id; `command` is what it
    works on, None while it starts or is idle.
    """

    def __init__(self, settings: Settings, limits: ReaderLimits, read: ReadStudy) -> None:
        """Start the process; `read` is handed to it by name."""
        self.connection, theirs = _SPAWN.Pipe()
        arguments = (theirs, settings, limits.memory_mib, read)
        self._process = _SPAWN.Process(target=_serve, args=arguments, daemon=True)
        self._limit_s = limits.seconds
        with _environment(_ONE_THREAD):
            self._process.start()
        theirs.close()  # the reader's end lives in the reader alone, so its death is the end of file here
        self.studies: dict[str, StudyFiles] = {}
        self.command: Command | None = None
        self.has_started = False
        self._idle = False
        self._outbox: deque[Command] = deque()
        self._since = time.monotonic()

    @property
    def wants_study(self) -> bool:
        """It is idle; one volume may wait for its curve while it reads the next."""
        return self._idle and len(self.studies) < 2

    def post(self, command: Command) -> None:
        """Give the reader a command, which it gets as soon as it is idle."""
        self._outbox.append(command)
        self._send_next()

    def receive(self) -> Reply:
        """The reply to the last command. Raises EOFError or OSError when the reader has died."""
        reply: Reply = self.connection.recv()
        if self.command and not isinstance(reply.value, Prepared):
            del self.studies[self.command.study.study_id]
        self.command, self._idle, self.has_started = None, True, True
        self._send_next()
        return reply

    def is_overdue(self) -> bool:
        """Whether it has worked longer than its limit, or not started for minutes, and has not replied."""
        limit_s = self._limit_s if self.has_started else _START_LIMIT_S
        late = not self._idle and time.monotonic() - self._since > limit_s
        return late and not self.connection.poll()

    def end(self, grace_s: float = 0.0) -> int | None:
        """Kill the process unless it ends within the grace; its exit code, or minus the signal."""
        self._process.join(grace_s)
        self._process.kill()
        self._process.join()
        if self._process.pid is not None:
            remove_copies(self._process.pid)
        self.connection.close()
        return self._process.exitcode

    def _send_next(self) -> None:
        if not (self._idle and self._outbox):
            return
        self.command, self._idle, self._since = self._outbox.popleft(), False, time.monotonic()
        if isinstance(self.command, Read):
            self.studies[self.command.study.study_id] = self.command.study
        try:
            self.connection.send(self.command)
        except (BrokenPipeError, ConnectionResetError):
            self.command = None  # it died before; `receive` will tell, and this study is not the cause


def _serve(connection: Connection, settings: Settings, memory_mib: int, read: ReadStudy) -> None:
    """What runs in the reader: one reply to each command until the main process has gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the main process's to handle
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # decoders complain there without saying of which study
    end_with_parent()
    keep_freed_memory()
    _limit_memory(memory_mib)
    work = _Work(settings, read)
    with suppress(EOFError, BrokenPipeError, ConnectionResetError):
        connection.send(Reply(None))
        while True:
            connection.send(work.reply(connection.recv()))


class _Work:
    """The reader's own side: the volumes it holds and what it does with them."""

    def __init__(self, settings: Settings, read: ReadStudy) -> None:
        self._settings = settings
        self._read_study = read
        self._volumes: dict[str, Volume] = {}
        self._heard = _Heard()

    def reply(self, command: Command) -> Reply:
        start = time.perf_counter()
        value: Any
        try:
            value = self._do(command)
        except Exception as error:  # the border between this study and the next
            value = _vanished(command.study, error) or as_study_error(error)
        return Reply(value, time.perf_counter() - start, self._heard.taken())

    def _do(self, command: Command) -> Prepared | Straightened | None:
        study_id = command.study.study_id
        if isinstance(command, Read):
            with on_this_machine(command.study) as study:
                image = self._read_study(study, self._settings.read)
            seen = localizer_input(image.volume, self._settings.localize)
            self._volumes[study_id] = image.volume
            return Prepared(seen, image.header, image.images)
        volume = self._volumes.pop(study_id)
        if isinstance(command, Straighten):
            return straightened(volume, command.curve, self._settings.straighten)
        return None


class _Heard(logging.Handler):
    """Keeps what is logged for the next reply: on a terminal it would tear the main process's bar."""

    def __init__(self) -> None:
        super().__init__()
        self._messages: list[str] = []
        logging.getLogger().addHandler(self)
        logging.captureWarnings(True)

    def emit(self, record: logging.LogRecord) -> None:
        self._messages.append(record.getMessage().partition("\n")[0])

    def taken(self) -> tuple[str, ...]:
        messages, self._messages = tuple(self._messages), []
        return messages


def _limit_memory(memory_mib: int) -> None:
    """Let a study that swells past the limit fail alone, with MemoryError."""
    try:
        import resource
    except ImportError:  # Windows has no such limit
        return
    limit = (memory_mib + _LIBRARIES_MIB) * 2**20
    _, hard = resource.getrlimit(resource.RLIMIT_DATA)
    limit = limit if hard == resource.RLIM_INFINITY else min(limit, hard)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, hard))


@contextmanager
def _environment(values: dict[str, str]) -> Iterator[None]:
    """Variables for the processes started inside: libraries read their thread limits at import."""
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
