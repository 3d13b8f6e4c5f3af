"""Raw frames to named ones: addresses become functions, positions become lines, both stacks become one.

Does no I/O of its own: functions are named by what the caller passes in.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from pyflame_ebpf.cpython.code_objects import python_frame
from pyflame_ebpf.cpython.plumbing import is_evaluation_loop, is_first_of_greenlet, is_unnamed
from pyflame_ebpf.forgetting import Gone
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.profile.model import NATIVE_GAPS, Frame, FrameKind, NativeOutcome, Outcome, Stack
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import RawFrame, StackEvent
from pyflame_ebpf.stacks.code_table import CodeTable
from pyflame_ebpf.stacks.weave import weave

NameAddress = Callable[[Identity, int], Frame | None]  # a native address's function; None if no code is there
NameKernelAddress = Callable[[int], Frame]

NAMES_MAX = 1 << 18  # native addresses whose names are kept from one segment to the next
PYTHON_MAX = 1 << 17  # places in code objects whose names are kept: 25 MB
UNREADABLE = Frame(FrameKind.MARK, "[unreadable code object]")


class FrameNames:
    """Names the frames of stacks, and remembers the names.

    It is a cache: everything in it can be named again.  An address that had no name is asked for again at its next use,
    since the process's mappings may have become known, and so is a code object that had not come.
    """

    def __init__(self, codes: CodeTable, name_address: NameAddress, name_kernel_address: NameKernelAddress) -> None:
        self._codes = codes
        self._name_address = name_address
        self._name_kernel_address = name_kernel_address
        self._python: dict[tuple[int, int], Frame] = {}  # by code id and position
        self._kernel: dict[int, Frame] = {}
        self._native: dict[Identity, dict[int, Frame]] = {}
        self._functions: dict[Frame, Frame] = {}  # equal frames are one object, however many addresses a function has
        self._plumbing: dict[Frame, Frame] = {}
        self._told: dict[tuple[Identity, Callable[[str], bool]], dict[int, bool]] = {}

    def stack(self, event: StackEvent, outcome: Outcome, native: NativeOutcome, interpreter: str) -> Stack:
        """The frames of a stack, with marks at the root where some are missing.

        ``outcome`` and ``native`` tell how the walks ended.  ``interpreter`` is the file that holds the process's
        interpreter, "" for none.
        """
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
        frames = [self._kernel_frame(address) for address, _, _, _ in raw_frames[:kernel]]
        frames += self._user_frames(event.identity, woven, interpreter)
        return (*_marks(outcome, native), *reversed(frames))

    def bound(self) -> None:
        """Begin anew if there are more names than are to be kept between two segments."""
        if sum(map(len, self._native.values())) + len(self._python) + len(self._kernel) > NAMES_MAX:
            self._clear()

    def forget(self, gone: Gone) -> None:
        """Drop the names of processes and code objects that are gone."""
        if gone.processes:
            self._native = {key: names for key, names in self._native.items() if key not in gone.processes}
            self._told = {key: told for key, told in self._told.items() if key[0] not in gone.processes}
            self._functions.clear()  # the frames that are still in use are found by address
            self._plumbing.clear()
        if gone.codes:
            self._python = {key: frame for key, frame in self._python.items() if key[0] not in gone.codes}

    def _clear(self) -> None:
        for cache in (self._python, self._kernel, self._native, self._functions, self._plumbing, self._told):
            cache.clear()

    def _user_frames(self, identity: Identity, woven: list[tuple[RawFrame, bool]], interpreter: str) -> list[Frame]:
        """Woven frames as they are shown, leaf first.

        A stripped interpreter's functions have no names to tell plumbing by.  Its functions that a Python frame is
        called from are taken for plumbing.  What the innermost Python frame calls is the work itself, and stays.
        """
        frames: list[Frame] = []
        calls_python = False
        for raw, is_run in woven:
            frame = self._user_frame(identity, raw, plumbing=is_run)
            if calls_python and _is_unnamed_function_of(interpreter, frame):
                frame = self._as_plumbing(frame)
            calls_python = calls_python or frame.kind is FrameKind.PYTHON
            frames.append(frame)
        return frames

    def _user_frame(self, identity: Identity, raw: RawFrame, *, plumbing: bool) -> Frame:
        address, code_id, position, kind = raw
        if kind != abi.FRAME_NATIVE:
            return self._python_frame(code_id, position)
        frame = self._native_frame(identity, address) or Frame(FrameKind.NATIVE, f"0x{address:x}")
        return self._as_plumbing(frame) if plumbing and not frame.plumbing else frame

    def _as_plumbing(self, frame: Frame) -> Frame:
        if frame not in self._plumbing:
            self._plumbing[frame] = replace(frame, plumbing=True)
        return self._plumbing[frame]

    def _kernel_frame(self, address: int) -> Frame:
        frame = self._kernel.get(address)
        if frame is None:
            frame = self._kernel[address] = self._name_kernel_address(address)
        return frame

    def _python_frame(self, code_id: int, position: int) -> Frame:
        frame = self._python.get((code_id, position))
        if frame is None:
            code = self._codes.get(code_id)
            if code is None:  # it may come yet
                return UNREADABLE
            if len(self._python) >= PYTHON_MAX:
                self._python.clear()
            frame = python_frame(code, position)
            frame = self._python[code_id, position] = self._functions.setdefault(frame, frame)
        return frame

    def _native_frame(self, identity: Identity, address: int) -> Frame | None:
        names = self._native.get(identity)
        if names is None:
            names = self._native[identity] = {}
        frame = names.get(address)
        if frame is None and (frame := self._name_address(identity, address)) is not None:
            frame = names[address] = self._functions.setdefault(frame, frame)
        return frame

    def _named(self, identity: Identity, is_wanted: Callable[[str], bool]) -> Callable[[int], bool]:
        """Tells by their function's name which addresses of a process are wanted.

        The answer is remembered once the address has a name, for it is asked of each frame.
        """
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


def _is_unnamed_function_of(interpreter: str, frame: Frame) -> bool:
    return bool(interpreter) and frame.file == interpreter and frame.kind is FrameKind.NATIVE and is_unnamed(frame.name)


def _marks(outcome: Outcome, native: NativeOutcome) -> list[Frame]:
    """The marks at the root of a stack that lacks frames."""
    marks = []
    if outcome.truncated and outcome is not Outcome.UNREADABLE_CODE:
        marks.append(Frame(FrameKind.MARK, f"[truncated: {outcome.value}]"))
    if native.cut_short:
        marks.append(NATIVE_GAPS[native])
    return marks
