"""Names in live processes: debug files in their roots and mounts, code that they make themselves."""

from __future__ import annotations

import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from _recordings import record_for

from pyflame_ebpf.symbols.mapped_file import MappedFile
from pyflame_ebpf.symbols.native_symbols import JIT, NativeSymbols
from pyflame_ebpf.symbols.perf_map import open_perf_map
from tests.elf.libraries import Build, address_of, run
from tests.symbols.mapped import mapped_at

COMPILER = """
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>
/* mov $1000000, %ecx; 1: dec %ecx; jnz 1b; ret */
static const unsigned char loop[] = {0xb9, 0x40, 0x42, 0x0f, 0, 0xff, 0xc9, 0x75, 0xfc, 0xc3};
int main(void) {
    char name[64];
    void *code = mmap(0, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    memcpy(code, loop, sizeof loop);
    snprintf(name, sizeof name, "/tmp/perf-%d.map", getpid());
    FILE *map = fopen(name, "w");
    fprintf(map, "%lx %zx compiled loop\\n", (unsigned long)code, sizeof loop);
    fclose(map);
    write(1, "ready\\n", 6);
    fcntl(0, F_SETFL, O_NONBLOCK);
    for (char end; read(0, &end, 1);) ((void (*)(void))code)();
    unlink(name);
    return 0;
}
"""
WAIT = '#include <unistd.h>\nint main(void) { write(1, "ready\\n", 6); char c; return (int)read(0, &c, 1); }'


@pytest.fixture
def symbols() -> Iterator[NativeSymbols]:
    symbols = NativeSymbols()
    yield symbols
    symbols.close()


@contextmanager
def ready(*command: str | Path) -> Iterator[int]:
    """The PID of a program that says when it is ready and ends with its input."""
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        try:
            yield process.pid
        finally:
            process.communicate()


def as_seen_by(pid: int, file: MappedFile) -> MappedFile:
    """The same file, of which another process asks."""
    return MappedFile(pid, file.mapping, file.open_mapped)


@pytest.mark.root
def test_files_of_a_process_in_another_root_are_looked_for_there(
    build: Build, symbols: NativeSymbols, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    debug = root / "usr/lib/debug/.build-id/ab/cdef0123.debug"
    for folder in (debug.parent, root / "tmp"):
        folder.mkdir(parents=True)
    program = build(WAIT, "-static", "-Wl,--build-id=0xabcdef0123", name="root/program")
    main = address_of(program, "main")
    run("objcopy", "--only-keep-debug", program, debug)
    run("strip", "-s", program)
    with ready("chroot", root, "/program") as pid:
        (root / f"tmp/perf-{pid}.map").write_bytes(b"10 10 x\n")
        assert symbols.lookup(mapped_at(pid, main), main)[1] == "main"
        with open_perf_map(pid) as file:
            assert file.read() == b"10 10 x\n"


@pytest.mark.root
def test_a_debug_file_in_a_process_s_root_names_nothing_for_processes_elsewhere(
    build: Build, symbols: NativeSymbols, tmp_path: Path
) -> None:
    root = tmp_path / "root"
    debug = root / "usr/lib/debug/.build-id/ab/cdef0123.debug"
    debug.parent.mkdir(parents=True)
    program = build(WAIT, "-static", "-Wl,--build-id=0xabcdef0123", name="root/program")
    main = address_of(program, "main")
    run("objcopy", "--redefine-sym", "main=evil", program, debug)
    run("strip", "-s", program)
    with ready("chroot", root, "/program") as pid:
        file = mapped_at(pid, main)
        names = [symbols.lookup(as_seen_by(each, file), main)[1] for each in (pid, os.getpid())]
        assert names[0] == "evil"
        assert names[1].startswith("program+0x")


@pytest.mark.root
def test_a_debug_file_that_a_process_has_mounted_names_nothing_for_others_with_the_same_root(
    build: Build, symbols: NativeSymbols, tmp_path: Path
) -> None:
    program = build(WAIT, "-static", "-Wl,--build-id=none", name="program")
    main = address_of(program, "main")
    debug, mounted = tmp_path / "mounted/x.debug", tmp_path / ".debug"
    for folder in (debug.parent, mounted):
        folder.mkdir()
    run("objcopy", "--redefine-sym", "main=evil", program, debug)
    run("strip", "-s", program)
    run("objcopy", f"--add-gnu-debuglink={debug}", program)
    mount = f"mount --bind {debug.parent} {mounted} && exec {program}"
    with ready("unshare", "-m", "sh", "-c", mount) as pid:
        file = mapped_at(pid, main)
        names = [symbols.lookup(as_seen_by(each, file), main)[1] for each in (pid, os.getpid())]
    assert names[0] == "evil"
    assert names[1].startswith("program+0x")


@pytest.mark.root
def test_code_that_a_program_made_is_named_though_program_and_perf_map_are_gone(build: Build) -> None:
    program = build(COMPILER, name="compiler")
    started: list[subprocess.Popen[bytes]] = []

    def start() -> None:
        started.append(subprocess.Popen([program], stdin=subprocess.PIPE, stdout=subprocess.PIPE))
        assert started[0].stdout is not None
        started[0].stdout.readline()

    def end() -> None:
        started[0].communicate()

    profile = record_for(3, 199, started=start, stopping=end)
    pid = started[0].pid
    named = Counter(
        any((frame.name, frame.file) == ("compiled loop", JIT) for frame in profile.frames_of(key.stack))
        for key in profile.samples.elements()
        if profile.processes[key.process].pid == pid
    )
    assert not Path(f"/tmp/perf-{pid}.map").exists()
    assert named[True] > 0.8 * named.total()


@pytest.mark.root
def test_links_of_a_process_in_another_root_lead_nowhere_else(build: Build, tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "tmp").mkdir(parents=True)
    program = build(WAIT, "-static", name="root/program")
    (tmp_path / "secret").write_bytes(b"10 10 x\n")
    with ready("chroot", root, f"/{program.name}") as pid:
        (root / f"tmp/perf-{pid}.map").symlink_to(tmp_path / "secret")
        with pytest.raises(OSError, match="symbolic link"):
            open_perf_map(pid)
