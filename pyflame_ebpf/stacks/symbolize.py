"""Raw records to a Profile: names code objects, finds lines, turns addresses into functions, weaves both stacks.

Pure: what must be read from the host comes in as functions.  While the recording runs it keeps what it is fed, and
reads at once only what would be gone with its process; naming waits until the end, but where a live view asks for some
samples earlier (``window``).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace

from pyflame_ebpf.cpython.code_objects import Code, decode_str, python_frame, read_bytes, read_str
from pyflame_ebpf.cpython.layout import CPythonLayout
from pyflame_ebpf.cpython.line_table import decode_lines
from pyflame_ebpf.cpython.plumbing import is_evaluation_loop, is_first_of_greenlet, is_unnamed
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import (
    NATIVE_GAPS,
    Frame,
    FrameKind,
    NativeOutcome,
    Outcome,
    Process,
    Profile,
    Recording,
    Stack,
)
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import CodeEvent, Count, RawFrame, StackEvent, native_frames
from pyflame_ebpf.stacks.profile_builder import Counted, ProfileBuilder, StackKey, Window
from pyflame_ebpf.stacks.raw_stacks import SampleStore, ThreadOf
from pyflame_ebpf.stacks.weave import weave
from pyflame_ebpf.unwind.walk import NativeFrame

ReadMemory = Callable[[Identity, int, int], bytes]  # of a process: address, size; b"" when it cannot be had
NameAddress = Callable[[Identity, int], Frame | None]  # a native frame's function; None: no code is there
NameKernelAddress = Callable[[int], Frame]
ExpectAddresses = Callable[[Identity, Iterable[int]], None]  # told before the first of a profile is named

NAMED_MAX = 4096  # stacks that stay named from one window to the next, or twice as many
UNREADABLE = Frame(FrameKind.MARK, "[unreadable code object]")


class Symbolizer:
    """Collects code objects, stacks and counts, and makes the Profile of them; ``limit`` as of ``SampleStore``."""

    def __init__(
        self,
        read: ReadMemory,
        name_address: NameAddress,
        name_kernel_address: NameKernelAddress,
        expect_addresses: ExpectAddresses = lambda _identity, _addresses: None,
        limit: int | None = None,
    ) -> None:
        self._read = read
        self._expect_addresses = expect_addresses
        self._name_address = name_address
        self._name_kernel_address = name_kernel_address
        self._codes: dict[int, Code | None] = {}
        self._frames: dict[tuple[int, int], Frame] = {}
        self._plumbing: dict[Frame, Frame] = {}
        self._interpreter_files: dict[Identity, str] = {}
        self._native: dict[Identity, dict[int, Frame | None]] = {}
        self._functions: dict[Frame, Frame] = {}  # each kept once, however many addresses it has
        self._told: dict[tuple[Identity, Callable[[str], bool]], dict[int, bool]] = {}
        self._store = SampleStore(limit)
        self._later: dict[int, bytes] = {}  # native frames of stacks that are yet to come
        self._unsettled: list[tuple[StackEvent, CPythonLayout]] = []
        self._thread_names: dict[tuple[Identity, int], str] = {}
        self._recent: dict[StackKey, Stack] = {}  # named for the last windows
        self._older: dict[StackKey, Stack] = {}
        self.samples = 0
        self.unnamed_codes = 0
        self.codes_without_lines = 0

    # ---- what is met ----

    def add_code(self, event: CodeEvent, layout: CPythonLayout) -> None:
        """Keeps a code object; what the walker could not copy is read from the process now."""
        if self._codes.get(event.code_id) is not None:
            return

        def read(address: int, size: int) -> bytes:
            return self._read(event.identity, address, size) if address else b""

        missing = event.missing
        name = (
            read_str(layout, read, event.name_address) if missing & abi.CODE_NO_NAME else decode_str(layout, event.name)
        )
        file = (
            read_str(layout, read, event.file_address) if missing & abi.CODE_NO_FILE else decode_str(layout, event.file)
        )
        table = (
            read_bytes(layout, read, event.line_table_address) if missing & abi.CODE_NO_LINE_TABLE else event.line_table
        )
        lines = None if table is None else decode_lines(layout.line_table_format, table, event.first_line)
        if name is None:
            self.unnamed_codes += 1
        if lines is None:
            self.codes_without_lines += 1
        self._store.add_codes({event.code_id})
        self._codes[event.code_id] = Code(name or "[unreadable name]", file or "", event.first_line, lines, layout)

    def add_thread(self, identity: Identity, tid: int, name: str) -> None:
        """Keeps a thread's name."""
        self._thread_names[identity, tid] = name
        self._store.add_thread(identity, tid)

    def add_stack(self, event: StackEvent, layout: CPythonLayout | None) -> None:
        """Keeps a stack as it came: naming waits until the end, reading what was not sent does not."""
        forgotten = False
        if event.stack_id not in self._store:
            later = self._later.pop(event.stack_id, b"")
            named = self._store.add_stack(event.continued(later) if later else event)
            forgotten = not named <= self._codes.keys()  # while the programs still knew the code object
        if (event.unsent or forgotten) and layout is not None:
            self._unsettled.append((event, layout))

    def finish_stack(self, stack_id: int, native: list[NativeFrame], outcome: NativeOutcome) -> None:
        """Keeps the native frames of a stack from the one on where the programs stopped, and how the walk ended."""
        self._store.end_walk(stack_id, outcome)
        later = native_frames(native)
        if (event := self._store.stack(stack_id)) is not None:
            self._store.add_stack(event.continued(later))
        else:
            self._later[stack_id] = later

    def settle(self) -> None:
        """Reads code objects that were not sent with their stacks from the processes, while they live."""
        unsettled, self._unsettled = self._unsettled, []
        for event, layout in unsettled:
            for address, code_id, _, kind in event.frames():
                if kind & abi.FRAME_KIND == abi.FRAME_PYTHON and code_id and code_id not in self._codes:
                    self._read_code(event.identity, layout, address, code_id)

    def _read_code(self, identity: Identity, layout: CPythonLayout, address: int, code_id: int) -> None:
        def field(offset: int, size: int) -> int:
            return int.from_bytes(self._read(identity, address + offset, size), "little")

        everything = abi.CODE_NO_NAME | abi.CODE_NO_FILE | abi.CODE_NO_LINE_TABLE
        name, file, table = (
            field(layout.code_name, 8),
            field(layout.code_filename, 8),
            field(layout.code_line_table, 8),
        )
        first_line = field(layout.code_first_line, 4)
        event = CodeEvent(identity, 0, code_id, address, name, file, table, first_line, everything, b"", b"", b"")
        self.add_code(event, layout)

    def add_counts(self, second: int, counts: list[Count]) -> Counter[Counted]:
        """Keeps the samples of one second of the recording, and gives them back."""
        self._store.add_counts(second, counts)
        added: Counter[Counted] = Counter()
        for count in counts:
            added[_counted(second, count)] += count.samples
        self.samples += added.total()
        return added

    def missing(self, counts: Iterable[Counted]) -> set[int]:
        """The ids of stacks of these samples that never came, or were let go."""
        return {counted.stack_id for counted in counts if counted.stack_id not in self._store}

    def make_room(self, second: int) -> set[Identity] | None:
        """Lets go of the oldest samples if too many came before this second; then, the processes that have others."""
        if not self._store.make_room(second):
            return None
        self._later.clear()
        return self._store.identities

    def forget_unsampled(self) -> tuple[set[int], set[ThreadOf]]:
        """Forgets what no sample has that is kept: the code objects and the threads that went, by their ids."""
        codes = self._codes.keys() - self._store.codes
        threads = self._thread_names.keys() - self._store.threads
        self._codes = {code_id: code for code_id, code in self._codes.items() if code_id not in codes}
        self._frames = {key: frame for key, frame in self._frames.items() if key[0] not in codes}
        self._thread_names = {key: name for key, name in self._thread_names.items() if key not in threads}
        self._functions.clear()  # those that are in use are known by their addresses
        self._plumbing.clear()
        return codes, threads

    def forget(self, identities: set[Identity]) -> None:
        """Forgets processes that have no samples any more."""
        self._native = {identity: names for identity, names in self._native.items() if identity not in identities}
        self._told = {key: told for key, told in self._told.items() if key[0] not in identities}
        self._thread_names = {key: name for key, name in self._thread_names.items() if key[0] not in identities}

    @property
    def begin(self) -> int:
        """Where in the recording the samples begin that are kept, in seconds."""
        return self._store.begin

    # ---- the profile ----

    def profile(self, recording: Recording, processes: dict[Identity, Process]) -> Profile:
        """Everything that was collected; processes are named by the caller, who has watched them."""
        self.settle()
        self._expect_names(self._store.stacks())
        self._know(processes)
        builder = ProfileBuilder(Profile(recording), processes, self._stack, self._thread_names)
        for second, count in self._store.counts():
            builder.add(self._settled(_counted(second - self._store.begin, count)), count.samples)
        return builder.profile

    def window(self, counts: Counter[Counted], recording: Recording, processes: dict[Identity, Process]) -> Window:
        """These samples, which are to be named now; stacks that the window before had too are named already."""
        if len(self._recent) >= NAMED_MAX:
            self._older, self._recent = self._recent, {}
        settled = [(self._settled(counted), samples) for counted, samples in counts.items()]
        keys = {counted.stack_key for counted, _ in settled} - self._recent.keys() - self._older.keys()
        unnamed = {stack_id for stack_id, _, _ in keys}
        self._expect_names(event for stack_id in unnamed if (event := self._store.stack(stack_id)) is not None)
        self._know(processes)
        builder = ProfileBuilder(Profile(recording), processes, self._recent_stack, self._thread_names)
        return Window(builder, settled)

    def _know(self, processes: dict[Identity, Process]) -> None:
        self._interpreter_files = {
            identity: process.interpreter_file for identity, process in processes.items() if process.interpreter_file
        }

    def forget_names(self) -> None:
        """Lets all native frames be named anew, by all that is known by then."""
        self._native.clear()
        self._told.clear()

    def _settled(self, counted: Counted) -> Counted:
        """With the outcome of a native walk that was finished later."""
        end = self._store.end_of_walk(counted.stack_id)
        return counted if end is None else counted._replace(native=end)

    def _recent_stack(self, stack_id: int, outcome: Outcome, native: NativeOutcome) -> Stack | None:
        key = stack_id, outcome, native
        known = self._recent.get(key) or self._older.get(key)
        stack = known or self._stack(*key)
        if stack is not None and not any(frame is UNREADABLE for frame in stack):  # its code object may come yet
            self._recent[key] = stack
        return stack

    def _expect_names(self, stacks: Iterable[StackEvent]) -> None:
        """Tells which native addresses will be named."""
        wanted: dict[Identity, set[int]] = {}
        for event in stacks:
            wanted.setdefault(event.identity, set()).update(
                address for address, _, _, kind in event.frames() if kind == abi.FRAME_NATIVE
            )
        for identity, addresses in wanted.items():
            self._expect_addresses(identity, addresses)

    def _stack(self, stack_id: int, outcome: Outcome, native: NativeOutcome) -> Stack | None:
        """The frames of a stack with marks where some are missing; None for a stack that never arrived."""
        event = self._store.stack(stack_id)
        if event is None:
            return None
        raw_frames = event.frames()
        kinds = [kind & abi.FRAME_KIND for _, _, _, kind in raw_frames]
        kernel, user = kinds.count(abi.FRAME_KERNEL), len(kinds) - kinds.count(abi.FRAME_NATIVE)

        woven = weave(
            raw_frames[kernel:user],
            raw_frames[user:],
            self._named(event.identity, is_evaluation_loop),
            self._named(event.identity, is_first_of_greenlet),
            complete=native is NativeOutcome.COMPLETE and not outcome.truncated,
        )
        frames = [self._frame(event.identity, raw, plumbing=False) for raw in raw_frames[:kernel]]
        frames += self._user_frames(event.identity, woven)
        marks = _marks(outcome, native)
        return (*marks, *reversed(frames))

    def _user_frames(self, identity: Identity, woven: list[tuple[RawFrame, bool]]) -> list[Frame]:
        """Woven frames as they are shown, leaf first.

        A stripped interpreter's functions have no names to tell plumbing by.  Those that Python frames are called from
        are taken for it; what the innermost Python frame calls is what it does, and stays.
        """
        interpreter = self._interpreter_files.get(identity)
        frames: list[Frame] = []
        calls_python = False
        for raw, is_run in woven:
            frame = self._frame(identity, raw, plumbing=is_run)
            if calls_python and frame.file == interpreter and frame.kind is FrameKind.NATIVE and is_unnamed(frame.name):
                frame = self._as_plumbing(frame)
            calls_python = calls_python or frame.kind is FrameKind.PYTHON
            frames.append(frame)
        return frames

    def _as_plumbing(self, frame: Frame) -> Frame:
        if frame not in self._plumbing:
            self._plumbing[frame] = replace(frame, plumbing=True)
        return self._plumbing[frame]

    def _frame(self, identity: Identity, raw: tuple[int, int, int, int], *, plumbing: bool) -> Frame:
        address, code_id, position, kind = raw
        if kind == abi.FRAME_NATIVE:
            frame = self._native_frame(identity, address) or Frame(FrameKind.NATIVE, f"0x{address:x}")
            return self._as_plumbing(frame) if plumbing and not frame.plumbing else frame
        key = address if kind == abi.FRAME_KERNEL else code_id, position
        known = self._frames.get(key)
        if known is None or known is UNREADABLE:  # the code object may have come since
            known = self._frames[key] = self._new_frame(address, code_id, position, kind)
        return known

    def _native_frame(self, identity: Identity, address: int) -> Frame | None:
        known = self._native.get(identity)
        if known is None:
            known = self._native[identity] = {}
        frame = known.get(address)
        if frame is None:  # also where none was found before: mappings may have become known since
            frame = self._name_address(identity, address)
            if frame is not None:
                frame = self._functions.setdefault(frame, frame)
            known[address] = frame
        return frame

    def _named(self, identity: Identity, is_wanted: Callable[[str], bool]) -> Callable[[int], bool]:
        """Tells addresses of a process by their function's name; remembers, for it is asked of each frame."""
        told = self._told.setdefault((identity, is_wanted), {})

        def wanted(address: int) -> bool:
            answer = told.get(address)
            if answer is None:
                frame = self._native_frame(identity, address)
                answer = frame is not None and is_wanted(frame.name)
                if frame is not None:
                    told[address] = answer
            return answer

        return wanted

    def _new_frame(self, address: int, code_id: int, position: int, kind: int) -> Frame:
        if kind == abi.FRAME_KERNEL:
            return self._name_kernel_address(address)
        code = self._codes.get(code_id)
        return UNREADABLE if code is None else python_frame(code, position)


def _counted(second: int, count: Count) -> Counted:
    return Counted(
        second,
        count.identity,
        count.tid,
        count.stack_id,
        abi.OUTCOMES[count.outcome],
        abi.NATIVE_OUTCOMES[count.native],
        abi.GIL_STATES[count.gil],
        count.kernel_mode,
    )


def _marks(outcome: Outcome, native: NativeOutcome) -> list[Frame]:
    """What is said at the root of a stack that lacks frames."""
    marks = []
    if outcome.truncated and outcome is not Outcome.UNREADABLE_CODE:
        marks.append(Frame(FrameKind.MARK, f"[truncated: {outcome.value}]"))
    if native.cut_short:
        marks.append(NATIVE_GAPS[native])
    return marks
