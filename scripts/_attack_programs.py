"""Programs of attackers: each is run by ``python -c`` as a plain user, and prints "ready" when it has begun."""

from __future__ import annotations

# argv: the process's name as escaped text, the file name in its code objects.
NAMED = r"""
import ctypes, sys
name = sys.argv[1].encode().decode("unicode_escape").encode("latin-1")
ctypes.CDLL(None).prctl(15, name, 0, 0, 0)
print("ready", flush=True)
exec(compile("while True:\n  for i in range(2000): pass\n", sys.argv[2], "exec"))
"""

GENERATED = r"""
import ctypes, mmap
code = mmap.mmap(-1, 4096, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, 7)
code.write(bytes.fromhex("b9002d3101ffc975fcc3"))  # mov $20000000, %ecx; 1: dec %ecx; jnz 1b; ret
address = ctypes.addressof(ctypes.c_char.from_buffer(code))
run = ctypes.CFUNCTYPE(None)(address)
"""

# argv: the process's name.
NAMED_WITH_GENERATED_CODE = (
    GENERATED
    + r"""
import sys
ctypes.CDLL(None).prctl(15, sys.argv[1].encode().decode("unicode_escape").encode("latin-1"), 0, 0, 0)
print("ready", flush=True)
while True: run()
"""
)

# argv: how many children end before the one that computes.
MANY_CHILDREN = r"""
import os, sys
for _ in range(int(sys.argv[1])):
    pid = os.fork()
    if not pid: os._exit(0)
    os.waitpid(pid, 0)
pid = os.fork()
if not pid:
    import time
    def computes_after_many_children():
        while time.process_time() < 2: pass
    computes_after_many_children()
    os._exit(0)
os.waitpid(pid, 0)
"""

# argv: the kind of perf map.
PERF_MAP = (
    GENERATED
    + r"""
import os, sys
kind, path = sys.argv[1], f"/tmp/perf-{os.getpid()}.map"
if kind == "fifo": os.mkfifo(path)
elif kind == "sparse": open(path, "w").truncate(2 << 30)
elif kind == "link": os.symlink("/etc/shadow", path)
elif kind == "directory": os.mkdir(path)
elif kind == "lines": open(path, "w").write(f"{address:x} 1000 f\n" * 2000000)
elif kind == "overlap":
    open(path, "w").writelines(f"{address - n:x} {2 * n + 4096:x} f{n}\n" for n in range(200000))
elif kind == "text":
    open(path, "w").write(f"{address:x} 1000 \x1b[31m;x\u202e<script>" + "A" * 100000 + "\n0 0 0\nzz\n")
elif kind == "binary": open(path, "wb").write(os.urandom(1 << 20))
grows = open(path, "a") if kind == "grows" else None
print("ready", flush=True)
while True:
    run()
    if grows: grows.write(f"{address:x} 1000 grows\n" * 1000)
"""
)

# argv: which structure of the interpreter it corrupts.
CORRUPT = r"""
import ctypes, sys, threading, time
kind = sys.argv[1]
def code(name, file, first=1, table=None):
    made = compile("x = 0\nfor i in range(20000): x += i\n", "x", "exec")
    made = made.replace(co_name=name, co_filename=file, co_firstlineno=first if first >= 0 else 1234567)
    if first < 0:
        place = ctypes.string_at(id(made), 160).index((1234567).to_bytes(4, "little"))
        ctypes.c_int.from_address(id(made) + place).value = first
    return made if table is None else made.replace(co_linetable=table)
print("ready", flush=True)
def for_ever(make):
    number = 0
    while True:
        number += 1
        exec(make(number))
if kind == "names":
    bad = [
        "a;b 5", "new\nline 7", "\x1b[2J", "</script><script>alert(1)</script>", "\u202e", "\ud800", "nul\0", "",
        " ", "'=cmd()", "[bold red]x[/]", "\U0001f600" * 300, "f (file.py:1)",
    ]
    made = [code(text, text + "/" + text) for text in bad]
    for_ever(lambda number: made[number % len(made)])
elif kind == "long names": for_ever(lambda n: code("N" * (1 << 20) + str(n), "F" * (1 << 20) + str(n)))
elif kind == "lines":
    made = [code("n", "n.py", first) for first in (-1, -2**31, 2**31 - 1)]
    tables = (b"", b"\xff" * 999, bytes(range(256)) * 30, b"\xf7" + b"\xff" * 60)
    made += [code("t", "t.py", 1, table) for table in tables]
    for_ever(lambda number: made[number % len(made)])
elif kind == "line tables": for_ever(lambda n: code(f"t{n}", "t.py", n, bytes([0xd8, 1]) * ((1 << 19) - 8)))
elif kind == "code objects":
    for_ever(lambda n: compile(f"def f{n}():\n  for i in range(60): pass\nf{n}()", f"g{n}", "exec"))
elif kind == "threads":
    def turn():
        while True: sum(range(20000))
    for _ in range(4): threading.Thread(target=turn, daemon=True).start()
    state = ctypes.pythonapi.PyThreadState_Get
    state.restype = ctypes.c_void_p
    here = state()
    ctypes.c_void_p.from_address(here + 8).value = here  # the next thread state of this one is itself
    time.sleep(600)
elif kind == "depth":
    sys.setrecursionlimit(20000)
    threading.stack_size(512 << 20)
    def down(left):
        if left: return down(left - 1)
        while True: sum(range(5000))
    threading.Thread(target=down, args=(5000,)).start()
"""
CORRUPTIONS = ("names", "long names", "lines", "line tables", "code objects", "threads", "depth")
PERF_MAPS = ("fifo", "sparse", "link", "directory", "lines", "overlap", "text", "binary", "grows")

# argv: the ELF file whose code, one page at offset 4096, is run.
MAPPED = r"""
import ctypes, mmap, os, sys
file = os.open(sys.argv[1], os.O_RDONLY)
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_long]
at = libc.mmap(None, 8192, 5, 2, file, 0)
run = ctypes.CFUNCTYPE(None)(at + 4096)
print("ready", flush=True)
while True: run()
"""

# C: memory of a program that looks like CPython, in which every read waits for a fault handler that never answers.
UNANSWERED_MEMORY = r"""
#define _GNU_SOURCE
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <stdio.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>
char _PyRuntime[1 << 16] __attribute__((aligned(4096))) = {1};
char PyOS_FSPath[8] = {1};
int main(void) {
    int faults = syscall(SYS_userfaultfd, O_CLOEXEC);
    struct uffdio_api api = {.api = UFFD_API};
    struct uffdio_register range = {{(unsigned long)_PyRuntime, sizeof _PyRuntime}, UFFDIO_REGISTER_MODE_MISSING, 0};
    if (faults < 0 || ioctl(faults, UFFDIO_API, &api)) return 3;
    int flags = MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED;
    if (mmap(_PyRuntime, sizeof _PyRuntime, PROT_READ, flags, -1, 0) == MAP_FAILED) return 4;
    if (ioctl(faults, UFFDIO_REGISTER, &range)) return 5;
    puts("ready");
    fflush(stdout);
    for (;;) for (volatile int i = 0; i < 10000000; i++);
}
"""

# A program that names its function after its first argument, and becomes another of them now and then.
TURNS_INTO_OTHERS = r"""
import os, random, sys, time
token, program = sys.argv[1], sys.argv[2]
space = {"time": time, "end": time.process_time() + random.uniform(0.05, 0.4)}
exec(compile(f"def only_in_{token}():\n  while time.process_time() < end: pass\n", token, "exec"), space)
space[f"only_in_{token}"]()
if random.random() < 0.5: os._exit(0)
os.execv(sys.executable, [sys.executable, "-c", program, f"{token.split('x')[0]}x{random.randrange(10**6)}", program])
"""
