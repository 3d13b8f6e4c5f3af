"""Threads that block in known places, and what their stacks are by the interpreter's own account.

Says "ready", then one line of JSON: {"pid", "threads": [{"name", "thread_pointer", "stack"}]}, where a stack is a list
of [name, file, first line, executing line], outermost first.  Runs on CPython 3.6 and later.  ``nested`` blocks below
every kind of frame, ``deep`` below 2,500 of one kind; ``holding`` computes without ever giving the GIL away.
"""

import _thread
import functools
import itertools
import json
import os
import sys
import threading
from types import FrameType
from typing import Any, Callable, Dict, Generator, List

NON_ASCII_FILE = "näme😀.py"
NON_ASCII_SOURCE = """\
def é(inner):
    return inner()
def 名前(inner):

    return é(lambda: inner())
class 𠀀:
    def 𠀁(self, inner):
        return [
            名前(inner)
            for _ in "1"
        ]
def enter(inner):
    return 𠀀().𠀁(inner)
"""
LONG_NAME = "long_" * 600  # more characters than the walker copies
WIDE_NAME = "名" * 1200  # fewer characters, but more bytes
LONG_TABLE_LINES = 12000  # a line table of more bytes than it copies

Call = Callable[[], Any]
Step = Callable[[Call], Any]
Account = Dict[str, Any]  # of one thread

announce_reader, announce_writer = os.pipe()
never_reader, never_writer = os.pipe()


def leaf() -> object:
    # One line, so that the thread is at it whether it still announces itself or blocks already.
    return (os.write(announce_writer, b"!"), os.read(never_reader, 1))


def recursive(levels: int, inner: Call) -> object:
    if levels:
        return recursive(levels - 1, inner)
    return inner()


def generator(inner: Call) -> Generator[object, None, Any]:
    yield 1
    for _ in range(1):
        yield inner()


def by_next(inner: Call) -> object:
    steps = generator(inner)
    next(steps)
    return next(steps)


def delegating(inner: Call) -> Generator[object, None, object]:
    result = yield from generator(inner)
    return result


def by_for(inner: Call) -> Any:
    for _ in delegating(inner):
        pass


# fmt: off - calls and expressions over several lines
def by_sort(inner: Call) -> object:
    return sorted(
        [3, 1, 2],
        key=lambda _: inner(),
    )


def by_map(inner: Call) -> object:
    return list(  # noqa: C417 - a C function that calls back
        map(lambda _: by_sort(inner), "x")
    )


def by_comprehension(inner: Call) -> object:
    return {key: [by_map(inner) for _ in "1"] for key in "k"}


# fmt: on


def in_class_body(inner: Call) -> object:
    class Body:
        class Inner:
            value = by_comprehension(inner)

    return Body


class Outer:
    class Nested:
        def method(self, inner: Call) -> object:
            def closure(*arguments: object, **keywords: object) -> object:
                return in_class_body(inner)

            return closure(1, two=2)

        @classmethod
        def of_class(cls, inner: Call) -> object:
            return cls().method(inner)

        @staticmethod
        def static(inner: Call) -> object:
            return Outer.Nested.of_class(inner)

        def __getattr__(self, name: str) -> object:
            return Outer.Nested.static(self.inner_call)

        def __init__(self, inner_call: Call = leaf) -> None:
            self.inner_call = inner_call


async def coroutine(inner: Call) -> object:
    return by_next(inner)


# fmt: off
async def awaiting(inner: Call) -> object:
    return (
        await coroutine(inner)
    )
# fmt: on


def by_send(inner: Call) -> None:
    awaiting(inner).send(None)


def decorated(function: Step) -> Step:
    def wrapper(inner: Any) -> Any:
        try:
            inner.no_such_attribute  # noqa: B018 - raises
        except AttributeError:
            return function(inner)
        finally:
            pass

    return wrapper


@decorated
@decorated
def by_decorators(inner: Call) -> object:
    with open(os.devnull):  # noqa: PTH123 - a context manager in C
        return by_for(inner)


def execute(source: str, file: str, **namespace: object) -> Dict[str, Any]:
    exec(compile(source, file, "exec"), namespace)
    return namespace


def by_non_ascii(inner: Call) -> object:
    return execute(NON_ASCII_SOURCE, NON_ASCII_FILE)["enter"](inner)


def by_module(inner: Call) -> None:
    execute("import sys\n\nbelow(\n    1)\n", "module.py", below=lambda _: inner())


def by_long_name(inner: Call) -> object:
    return execute(f"def {LONG_NAME}(inner):\n    return inner()\n", "long.py")[LONG_NAME](inner)


def by_wide_name(inner: Call) -> object:
    return execute(f"def {WIDE_NAME}(inner):\n    return inner()\n", "wide.py")[WIDE_NAME](inner)


def by_long_table(inner: Call) -> object:
    body = "".join(f"    value = {line}\n" for line in range(LONG_TABLE_LINES))
    return execute(f"def table(inner):\n{body}    return inner()\n", "table.py")["table"](inner)


def nested() -> object:
    def above(step: Step, below: Call) -> Call:
        return lambda: step(below)

    chain: Call = functools.partial(recursive, 200, leaf)
    for step in (by_send, by_decorators, by_module, by_long_table, by_long_name, by_wide_name, by_non_ascii):
        chain = above(step, chain)
    return Outer.Nested(chain).missing_attribute


class Worker(threading.Thread):
    def run(self) -> None:
        nested()


def run_many(count: int) -> None:
    """Threads that end before the others begin, so that thread states have been freed and used again."""
    threads = [threading.Thread(target=abs, args=(1,)) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def account(name: str, frame: "FrameType | None", thread_pointer: int) -> Account:
    stack = []
    while frame is not None:
        code = frame.f_code
        name_of_code = getattr(code, "co_qualname", code.co_name)
        stack.append([name_of_code, code.co_filename, code.co_firstlineno, frame.f_lineno])
        frame = frame.f_back
    return {"name": name, "thread_pointer": thread_pointer, "stack": stack[::-1]}


def publish(threads: List[Account]) -> Any:
    print("ready\n" + json.dumps({"pid": os.getpid(), "threads": threads}), flush=True)


def report(names: Dict[int, str], announcements: int) -> None:
    """Gives the account of every other thread once so many have announced that they block."""
    for _ in range(announcements):
        os.read(announce_reader, 1)
    own = threading.get_ident()
    frames = sys._current_frames()
    publish([account(names.get(ident, "raw"), frame, ident) for ident, frame in frames.items() if ident != own])
    leaf()


def main_nested() -> None:
    run_many(8)
    worker = Worker()
    names = {threading.get_ident(): "main"}
    worker.start()
    names[worker.ident or 0] = "worker"
    _thread.start_new_thread(recursive, (3, leaf))
    _thread.start_new_thread(report, (names, 3))
    nested()


def main_deep() -> None:
    sys.setrecursionlimit(5000)
    _thread.start_new_thread(report, ({threading.get_ident(): "main"}, 1))
    recursive(2500, leaf)


def main_holding() -> None:
    _thread.start_new_thread(recursive, (3, leaf))
    os.read(announce_reader, 1)
    own = threading.get_ident()
    other = [account("raw", frame, ident) for ident, frame in sys._current_frames().items() if ident != own]
    # One line again; the sum never ends and never looks whether another thread wants the GIL.
    publish([account("main", sys._getframe(), own), *other]), sum(itertools.repeat(0))


def main_subinterpreter() -> None:
    try:
        import _interpreters as interpreters
    except ImportError:
        import _xxsubinterpreters as interpreters
    run = getattr(interpreters, "exec", None) or interpreters.run_string
    _thread.start_new_thread(report, ({threading.get_ident(): "main"}, 1))
    lines = "import os", "def leaf():", "    return (os.write({}, b'!'), os.read({}, 1))", "", "leaf()"
    run(interpreters.create(), "\n".join(lines).format(announce_writer, never_reader))


if __name__ == "__main__":
    globals()["main_" + sys.argv[1]]()
