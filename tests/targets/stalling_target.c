/* A program whose reading waits for a file system that may never answer, busy until it is killed.
 *
 *   memory FILE  exports _PyRuntime, as an executable that holds CPython does, and has the file mapped over it
 *   arguments FILE LONG  has the file mapped over its third argument, of 128 KiB
 *   execution FILE  executes itself again on SIGUSR1, and closes the file then, while the kernel holds a lock of it
 *   made_code  runs code of no file, which a perf map could name
 *
 * Prints "ready". */
#define _GNU_SOURCE
#include <fcntl.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define SIZE (1 << 16)

char _PyRuntime[SIZE] __attribute__((aligned(4096))) = {1};
char PyOS_FSPath[8] = {1};
static volatile sig_atomic_t execute;

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void on_signal(int number) {
    (void)number;
    execute = 1;
}

static char *mapped(int file, void *where) {
    char *memory = mmap(where, SIZE, PROT_READ, MAP_PRIVATE | (where ? MAP_FIXED : 0), file, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    return memory;
}

__attribute__((noinline)) void burn(char *program) {
    while (!execute)
        for (volatile int turn = 0; turn < 1000000; turn++)
            ;
    execl(program, program, "again", NULL);
    fail("exec");
}

static void run_made_code(void) {
    /* mov ecx, 100000000; dec ecx; jnz -4; ret */
    static const unsigned char code[] = {0xb9, 0x00, 0xe1, 0xf5, 0x05, 0xff, 0xc9, 0x75, 0xfc, 0xc3};
    char *memory = mmap(NULL, 4096, PROT_READ | PROT_WRITE | PROT_EXEC, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail("mmap");
    memcpy(memory, code, sizeof code);
    for (;;)
        ((void (*)(void))memory)();
}

int main(int argc, char **argv) {
    const char *what = argv[1];
    int file = argc > 2 ? open(argv[2], O_RDONLY | O_CLOEXEC) : -1;
    if (argc > 2 && file < 0)
        fail(argv[2]);
    if (!strcmp(what, "memory"))
        mapped(file, _PyRuntime);
    if (!strcmp(what, "arguments")) {
        unsigned long start = ((unsigned long)argv[3] + 4095) & -4096UL;
        if (strlen(argv[3]) < SIZE + 4096)
            fail("a longer argument is wanted");
        mapped(file, (void *)start);
    }
    if (!strcmp(what, "execution"))
        signal(SIGUSR1, on_signal);
    printf("ready\n");
    fflush(stdout);
    if (!strcmp(what, "made_code"))
        run_made_code();
    burn("/proc/self/exe");
    return 0;
}
