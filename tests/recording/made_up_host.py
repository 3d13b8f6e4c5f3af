"""A host without BPF programs: a clock, and programs that send and count what a test lets run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from pyflame_ebpf.forgetting import Gone, ThreadOf
from pyflame_ebpf.identity import Identity
from pyflame_ebpf.sampling import abi
from pyflame_ebpf.sampling.events import Count, Event, ProcessEvent, ThreadEvent
from tests.stacks.records import code_event, python_frame, stack_event

FIRST_PID = 5_000_000  # greater than any PID that the kernel gives
COMPLETE, HELD, NO_NATIVE = 0, 1, 1  # indices into abi's tuples


def process(number: int) -> Identity:
    """A process that no longer runs."""
    return Identity(10**9, FIRST_PID + number, 0)


class MadeUpHost:
    """The clock and the programs.  At each poll ``runs`` is called with it, and says what runs by ``sample``.

    Like the programs, it sends processes, threads, stacks and code objects once, until they are forgotten.  A wait
    takes ``slowness`` times as long as it should.
    """

    def __init__(self, runs: Callable[[MadeUpHost], None], slowness: float = 1.0) -> None:
        self.now = 1000.0
        self.flips: list[float] = []  # when
        self.takes: list[float] = []
        self.ticks: list[int] = []  # that one tick of the clock stood for, each time that changed
        self.sampled = 0
        self.attached = True
        self.counted: list[Count] = []  # all that was ever taken
        self.gone: list[Gone] = []
        self.runs = runs
        self._slowness = slowness
        self._events: list[Event] = []
        self._counts: Counter[tuple[Identity, int, int]] = Counter()
        self._apart: Counter[tuple[Identity, int, int]] = Counter()
        self._known_processes: set[Identity] = set()
        self.known_threads: set[ThreadOf] = set()
        self.known_stacks: set[int] = set()
        self.known_codes: set[int] = set()

    # ---- the clock ----

    def monotonic(self) -> float:
        return self.now

    def time(self) -> float:
        return self.now

    # ---- what runs ----

    def sample(self, identity: Identity, tid: int, number: int, name: str, *, sends: bool = True) -> None:
        """One sample of a stack with a code object of its own, both of that number, unless ``sends`` is false."""
        self._counts[identity, tid, number] += 1
        self.sampled += 1
        if not sends:
            return
        if identity not in self._known_processes:
            self._known_processes.add(identity)
            self._events.append(ProcessEvent(identity, 1, (1, 1, 1), 1, 0, 0, abi.PROCESS_OTHER, 0, "name", False))
        if (identity, tid) not in self.known_threads:
            self.known_threads.add((identity, tid))
            self._events.append(ThreadEvent(identity, tid, f"{name}'s thread"))
        if number not in self.known_stacks:
            self.known_stacks.add(number)
            if number not in self.known_codes:
                self.known_codes.add(number)
                self._events.append(code_event(name=name, code_id=number, identity=identity))
            self._events.append(stack_event(python_frame(code_id=number), stack_id=number, identity=identity))

    # ---- the programs ----

    def poll(self, timeout_ms: int) -> list[Event]:
        self.runs(self)
        self.now += timeout_ms / 1000 * self._slowness
        events, self._events = self._events, []
        return events

    def flip_counts(self) -> None:
        self.flips.append(self.now)
        assert not self._apart, "counts that nobody took"
        self._apart, self._counts = self._counts, Counter()

    def take_counts(self) -> list[Count]:
        self.takes.append(self.now)
        counts = [
            Count(identity, tid, number, COMPLETE, HELD, False, NO_NATIVE, samples)
            for (identity, tid, number), samples in self._apart.items()
        ]
        self._apart = Counter()
        self.counted += counts
        return counts

    def counters(self) -> dict[str, int]:
        return dict.fromkeys(abi.COUNTERS, 0) | {"samples": self.sampled, "stacks_walked": self.sampled}

    @property
    def maps(self) -> MadeUpHost:
        return self

    def forget(self, gone: Gone) -> None:
        self.gone.append(gone)
        self.known_threads -= gone.threads
        self.known_stacks -= gone.stacks
        self.known_codes -= gone.codes

    def start(self, duration: float | None = None) -> None:
        self.duration = duration

    def tick_for(self, ticks: int) -> None:
        self.ticks.append(ticks)

    def stop(self) -> None:
        pass

    def let_go(self) -> None:
        self.attached = False

    def attach_new_cpus(self) -> None:
        pass
