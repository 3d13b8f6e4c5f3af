"""Profiles to test the outputs with: a small realistic recording, one full of hostile names, and generated ones."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Mapping
from types import MappingProxyType

from hypothesis import strategies as st

from pyflame_ebpf.profile.file_layout import DURATION_MIN
from pyflame_ebpf.profile.interning import Numbering
from pyflame_ebpf.profile.model import (
    Frame,
    FrameKind,
    Gil,
    NativeOutcome,
    Outcome,
    Process,
    Profile,
    Recording,
    SampleKey,
    Stack,
    Thread,
)

WEB, WORKER, NGINX, SCRIPT = range(4)
LIBRARY = "/usr/lib/python3.11"
LIBC = "/usr/lib/x86_64-linux-gnu/libc.so.6"
PYTHON_BINARY = "/usr/bin/python3.11"

HOSTILE_NAMES = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "]]><script>alert(2)</script>",
    "</script><script>alert(3)</script>",
    "&lt;b&gt; & 'quoted' \"twice\"",
    "a;b;c",
    "line\nbreak\r\ttab",
    "\x1b[31mred\x1b]0;title\x07",
    "nul\x00byte\x0b\ufffe\uffff",
    "\u202etxet sdrawkcab\u2066",
    "lone \ud800 surrogate",
    "trailing 123",
    "trailing 4.5",
    " blanks ",
    "back\\slash \\x41",
    "=HYPERLINK(1)",
    "[bold red]markup[/]",
    "[truncated: not really]",
    "spoofed_[k]",
    "",
    "naïve_функция_関数",
]


def python(name: str, file: str, first_line: int, line: int) -> Frame:
    return Frame(FrameKind.PYTHON, name, file, first_line, line)


def native(name: str, file: str = "", *, plumbing: bool = False) -> Frame:
    return Frame(FrameKind.NATIVE, name, file, plumbing=plumbing)


def kernel(name: str) -> Frame:
    return Frame(FrameKind.KERNEL, name)


def mark(text: str) -> Frame:
    return Frame(FrameKind.MARK, text)


def recording(**changes: object) -> Recording:
    known: dict[str, object] = {
        "started": 1_790_000_000.0,
        "duration": 60.0,
        "frequency": 99,
        "cpus": 4,
        "host": "web-1",
        "kernel": "Linux 6.1.0",
        "arguments": ("record", "--all", "--duration", "60"),
        "profiler_version": "0.1.0",
        "scheduler_cpu": 62.3,
        "lost": 2,
        "counters": {"ring_buffer_full": 2, "walked": 6000},
    }
    return Recording(**{**known, **changes})  # type: ignore[arg-type]


def set_stacks(profile: Profile, stacks: Iterable[Stack]) -> None:
    """Gives a profile these stacks, with their frames in the order in which the stacks have them."""
    frames: Numbering[Frame] = Numbering()
    profile.stacks = [tuple([frames[frame] for frame in stack]) for stack in stacks]
    profile.frames = frames.distinct


def profile_with(
    circumstances: Recording,
    processes: list[Process],
    threads: list[Thread],
    stacks: Iterable[Stack],
    samples: Mapping[SampleKey, int] = MappingProxyType({}),
) -> Profile:
    """A profile of these stacks of frames."""
    profile = Profile(circumstances, processes, threads, samples=Counter(samples))
    set_stacks(profile, stacks)
    return profile


def framed_stacks(profile: Profile) -> list[Stack]:
    """The stacks of a profile as frames."""
    return [profile.frames_of(stack) for stack in range(len(profile.stacks))]


class ProfileWriter:
    """Collects samples by stack into a Profile."""

    def __init__(self, profile: Profile) -> None:
        self.profile = profile
        self._frames = Numbering(profile.frames)
        self._stacks = Numbering(profile.stacks)
        profile.frames, profile.stacks = self._frames.distinct, self._stacks.distinct

    def add(  # noqa: PLR0913 - what makes a sample
        self,
        process: int,
        thread: int,
        stack: Stack,
        count: int,
        *,
        second: int = 0,
        gil: Gil = Gil.UNKNOWN,
        outcome: Outcome = Outcome.COMPLETE,
        native: NativeOutcome = NativeOutcome.NONE,
    ) -> None:
        index = self._stacks[tuple([self._frames[frame] for frame in stack])]
        in_kernel = bool(stack) and stack[-1].kind is FrameKind.KERNEL
        self.profile.samples[SampleKey(second, process, thread, index, in_kernel, gil, outcome, native)] += count


def realistic_profile() -> Profile:
    """A web server, a worker, nginx and a script, as recorded with ``--all`` for a minute."""
    profile = Profile(
        recording(),
        [
            Process(1201, "gunicorn", "gunicorn: worker [shop.wsgi]", "CPython 3.11.2", PYTHON_BINARY, 31.02),
            Process(1317, "celery", "celery -A shop worker", "CPython 3.12.4", "/opt/python/bin/python3.12", 20.4),
            Process(803, "nginx", "nginx: worker process", scheduler_cpu=4.9),
            Process(4410, "python3", "python3 nightly.py --all", "CPython 3.8.19", "/usr/local/bin/python3.8", 5.1),
        ],
        [
            Thread(1201, "gunicorn"),
            Thread(1209, "ThreadPoolExec"),
            Thread(1317, "celery"),
            Thread(803, "nginx"),
            Thread(4410, "python3"),
        ],
    )
    add = ProfileWriter(profile).add
    start = (
        native("_start", PYTHON_BINARY),
        native("__libc_start_main_impl", LIBC),
        native("Py_BytesMain", PYTHON_BINARY),
        native("pymain_run_python", PYTHON_BINARY),
    )
    request = (
        *start,
        python("<module>", "/srv/shop/venv/bin/gunicorn", 1, 8),
        python("Arbiter.run", "/srv/shop/venv/lib/python3.11/site-packages/gunicorn/arbiter.py", 195, 203),
        python("SyncWorker.handle", "/srv/shop/venv/lib/python3.11/site-packages/gunicorn/workers/sync.py", 128, 135),
        python(
            "WSGIHandler.__call__", "/srv/shop/venv/lib/python3.11/site-packages/django/core/handlers/wsgi.py", 114, 123
        ),
    )
    view = (*request, python("basket", "/srv/shop/views.py", 41, 52))
    decode = (
        *view,
        python("loads", f"{LIBRARY}/json/__init__.py", 299, 346),
        python("JSONDecoder.decode", f"{LIBRARY}/json/decoder.py", 332, 337),
    )
    render = (
        *view,
        python("render", "/srv/shop/venv/lib/python3.11/site-packages/django/shortcuts.py", 17, 24),
        python("Template.render", "/srv/shop/venv/lib/python3.11/site-packages/django/template/base.py", 161, 171),
        python("NodeList.render", "/srv/shop/venv/lib/python3.11/site-packages/django/template/base.py", 1001, 1005),
    )
    orm = (
        *view,
        python(
            "QuerySet._fetch_all", "/srv/shop/venv/lib/python3.11/site-packages/django/db/models/query.py", 1881, 1883
        ),
    )
    for second in range(60):
        add(
            WEB, 0, (*decode, native("scanner_call", f"{LIBRARY}/lib-dynload/_json.so")), 9, second=second, gil=Gil.HELD
        )
        add(
            WEB,
            0,
            (
                *decode,
                native("scanner_call", f"{LIBRARY}/lib-dynload/_json.so"),
                native("__memmove_avx_unaligned_erms", LIBC),
            ),
            4,
            second=second,
            gil=Gil.HELD,
        )
        add(WEB, 0, decode, 3, second=second, gil=Gil.HELD)
        add(WEB, 0, render, 8, second=second, gil=Gil.HELD)
        add(
            WEB,
            0,
            (
                *render,
                python(
                    "ForNode.render",
                    "/srv/shop/venv/lib/python3.11/site-packages/django/template/defaulttags.py",
                    170,
                    238,
                ),
            ),
            6,
            second=second,
            gil=Gil.HELD,
        )
        add(
            WEB,
            0,
            (*orm, python("execute", "/srv/shop/venv/lib/python3.11/site-packages/psycopg2/extras.py", 200, 236)),
            4,
            second=second,
            gil=Gil.HELD,
        )
        add(
            WEB,
            0,
            (
                *orm,
                native("PQexec", "/usr/lib/libpq.so.5.15"),
                native("__send", LIBC),
                kernel("entry_SYSCALL_64_after_hwframe"),
                kernel("do_syscall_64"),
                kernel("__x64_sys_sendto"),
                kernel("tcp_sendmsg_locked"),
            ),
            7,
            second=second,
            gil=Gil.NOT_HELD,
        )
        pool = (
            native("clone3", LIBC),
            native("start_thread", LIBC),
            native("thread_run", PYTHON_BINARY),
            python("Thread._bootstrap", f"{LIBRARY}/threading.py", 982, 995),
            python("_worker", f"{LIBRARY}/concurrent/futures/thread.py", 69, 83),
            python("thumbnail", "/srv/shop/images.py", 12, 19),
        )
        add(
            WEB,
            1,
            (*pool, native("ImagingResample", "/srv/shop/venv/lib/python3.11/site-packages/PIL/_imaging.so")),
            7,
            second=second,
            gil=Gil.NOT_HELD,
        )
        add(
            WEB,
            1,
            (mark("[truncated: frame unreadable]"), *pool[4:]),
            1,
            second=second,
            outcome=Outcome.UNREADABLE_FRAME,
            gil=Gil.HELD,
        )
        deep = (
            python("<module>", "/srv/shop/worker.py", 1, 88),
            python("crawl", "/srv/shop/worker.py", 20, 31),
            *(python("Tree.descend", "/srv/shop/tree.py", 7, 12),) * 12,
        )
        add(WORKER, 2, (*deep, python("score", "/srv/shop/tree.py", 30, 33)), 21, second=second, gil=Gil.HELD)
        add(WORKER, 2, (*deep, python("Tree.<lambda>", "/srv/shop/tree.py", 15, 15)), 9, second=second, gil=Gil.HELD)
        add(WORKER, 2, (*deep, native("dict_lookup", "/opt/python/bin/python3.12")), 4, second=second, gil=Gil.HELD)
        add(
            NGINX,
            3,
            (
                native("ngx_http_process_request", "/usr/sbin/nginx"),
                native("SSL_write", "/usr/lib/libssl.so.3"),
                native("libcrypto.so.3+0x1a2b3c", "/usr/lib/libcrypto.so.3"),
            ),
            6,
            second=second,
            outcome=Outcome.NOT_PYTHON,
        )
        add(
            NGINX,
            3,
            (kernel("asm_sysvec_apic_timer_interrupt"), kernel("net_rx_action")),
            2,
            second=second,
            outcome=Outcome.NOT_PYTHON,
        )
        add(
            SCRIPT,
            4,
            (python("<module>", "/home/ops/nightly.py", 1, 9), python("digest", "/home/ops/nightly.py", 4, 6)),
            7,
            second=second,
        )
    add(WORKER, 2, (*deep[:3], mark("[truncated: too deep]")), 14, second=3, outcome=Outcome.TOO_DEEP, gil=Gil.HELD)
    add(SCRIPT, 4, (mark("[stack lost]"),), 1, second=9, outcome=Outcome.STACK_LOST)
    profile.build_ids = {PYTHON_BINARY: "0f" * 20, LIBC: "82ce4e6e4ef08fa58a3535f7437bd3e592db5ac0"}
    profile.sources = {
        "/home/ops/nightly.py": {4: "def digest(path):", 5: "    data = read(path)", 6: "    return h(data)"}
    }
    return profile


def hostile_profile() -> Profile:
    """Every hostile name as process, thread, Python function and file, native symbol and module, kernel symbol."""
    profile = Profile(recording(host="<b>host</b>\x1b[0m", kernel="]]>&"))
    writer = ProfileWriter(profile)
    for index, name in enumerate(HOSTILE_NAMES):
        profile.processes.append(Process(100 + index, name, name, name))
        profile.threads.append(Thread(100 + index, name))
        frames = [
            python(name, f"/srv/{name}.py", 1, 2),
            python("caller", name, 1, 2),
            native(name, f"/lib/{name}"),
            native(name),
            kernel(name),
            mark(f"[{name}]"),
        ]
        writer.add(index, index, tuple(frames), 40 + index)
        for frame in frames:
            writer.add(index, index, (frame,), 30)
        profile.build_ids[f"/lib/{name}"] = "ab" * 20
        profile.sources[name] = {1: name, 2: f"{name}</script>"}
    return profile


def wide_profile(stacks: int, seed: int = 1, depth: int = 24) -> Profile:
    """As many distinct stacks, as a busy host of 40 processes gives them: some hot, most seen once or twice."""
    chosen = random.Random(seed)
    files = [f"/srv/app{part}/package{part % 7}/module{part}.py" for part in range(300)]
    functions = [
        python(f"Class{index % 90}.method_{index}", files[index % 300], 1 + index % 900, 3 + index % 900)
        for index in range(6000)
    ]
    natives = [native(f"native_function_{index}", f"/usr/lib/lib{index % 20}.so.1") for index in range(400)]
    profile = Profile(
        recording(),
        [Process(1000 + index, f"worker-{index}", interpreter="CPython 3.12.4") for index in range(40)],
        [Thread(1000 + index, f"worker-{index}") for index in range(40)],
    )
    made: dict[Stack, int] = {}
    while len(made) < stacks:
        process = int(40 * chosen.random() ** 2)
        stack = [functions[process]]
        for level in range(chosen.randrange(depth // 2, depth * 3 // 2)):
            branches = 2 if level < depth // 2 else 5
            before = stack[-1].first_line * 31 + level * 7 + process * 101
            stack.append(functions[(before * 17 + int(branches * chosen.random() ** 2)) % len(functions)])
        if chosen.random() < 0.5:
            stack.append(chosen.choice(natives))
        made.setdefault(tuple(stack), process)
    set_stacks(profile, made)
    for index, process in enumerate(made.values()):
        count = 1 + int(chosen.paretovariate(1.2)) if index % 10 == 0 else 1
        key = SampleKey(index % 60, process, process, index, kernel_mode=False, gil=Gil.HELD, outcome=Outcome.COMPLETE)
        profile.samples[key] = count
    return profile


_TEXTS = st.one_of(st.sampled_from(HOSTILE_NAMES), st.text(max_size=8))
_FRAMES = st.builds(
    Frame, st.sampled_from(FrameKind), _TEXTS, _TEXTS, st.integers(0, 99), st.integers(0, 99), st.booleans()
)
_SECONDS = st.floats(0, 1e6, allow_nan=False)
_MAYBE_SECONDS = st.none() | _SECONDS


@st.composite
def profiles(draw: st.DrawFn) -> Profile:
    """Any profile whose indices are valid, sampled or not."""
    processes = draw(
        st.lists(
            st.builds(Process, st.integers(0, 9), _TEXTS, _TEXTS, _TEXTS, _TEXTS, _MAYBE_SECONDS),
            min_size=1,
            max_size=4,
        )
    )
    threads = draw(st.lists(st.builds(Thread, st.integers(1, 9), _TEXTS), min_size=1, max_size=4))
    stacks = draw(st.lists(st.lists(_FRAMES, max_size=5).map(tuple), min_size=1, max_size=6))
    keys = st.builds(
        SampleKey,
        st.integers(0, 3),
        st.integers(0, len(processes) - 1),
        st.integers(0, len(threads) - 1),
        st.integers(0, len(stacks) - 1),
        st.booleans(),
        st.sampled_from(Gil),
        st.sampled_from(Outcome),
        st.sampled_from(NativeOutcome),
    )
    samples = draw(st.dictionaries(keys, st.integers(1, 50), max_size=10))
    circumstances = draw(
        st.builds(
            Recording,
            _SECONDS,
            st.just(0.0) | st.floats(DURATION_MIN, 1e6, allow_nan=False),
            st.integers(1, 999),
            st.integers(1, 512),
            _TEXTS,
            _TEXTS,
            st.lists(_TEXTS, max_size=3).map(tuple),
            _TEXTS,
            _MAYBE_SECONDS,
            st.integers(0, 9),
            st.dictionaries(_TEXTS, st.integers(0, 9), max_size=3),
        )
    )
    build_ids = draw(st.dictionaries(_TEXTS, st.sampled_from(["0123456789abcdef", "ff" * 20]), max_size=2))
    lines = st.dictionaries(st.integers(0, 99), _TEXTS, min_size=1, max_size=3)
    sources = draw(st.dictionaries(_TEXTS, lines, max_size=2))
    profile = profile_with(circumstances, processes, threads, stacks, samples)
    profile.build_ids, profile.sources = build_ids, sources
    return profile
