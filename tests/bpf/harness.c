/* The walker headers of bpf/ as an ordinary library: over the memory of a live process, or over bytes or pages made up
 * by a test.
 *
 * The stages of the programs are played here as plain calls, with the kernel's limit of tail calls. */
#define _GNU_SOURCE
#include <stddef.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

/* ---- memory: of a process, bytes that repeat for ever so that every address leads somewhere, or pages ---- */

#define PAGE 4096

struct harness_memory {
    int pid; /* 0: bytes or pages */
    unsigned fail_every; /* bytes: each such read fails, 0: none */
    const unsigned char *present; /* pages: one byte for each that says whether it can be read; 0: bytes */
    unsigned long long start;     /* pages: the address of the first */
    const unsigned char *bytes;
    unsigned long long size;
    unsigned long long reads;
};

static struct harness_memory memory;

/* Whether all of it lies on pages that are present. */
static int is_present(unsigned long long size, unsigned long long address)
{
    for (unsigned long long i = 0; i < size; i++) {
        unsigned long long place = address + i - memory.start;
        if (place >= memory.size || !memory.present[place / PAGE])
            return 0;
    }
    return 1;
}

static int read_user(void *destination, unsigned long long size, unsigned long long address)
{
    memory.reads++;
    if (memory.pid) {
        struct iovec local = {destination, size}, remote = {(void *)address, size};
        long copied = process_vm_readv(memory.pid, &local, 1, &remote, 1, 0);
        if (copied == (long)size)
            return 0;
    } else if (memory.present) {
        if (is_present(size, address)) {
            memcpy(destination, memory.bytes + (address - memory.start), size);
            return 0;
        }
    } else if (!memory.fail_every || memory.reads % memory.fail_every) {
        for (unsigned long long i = 0; i < size; i++)
            ((unsigned char *)destination)[i] = memory.bytes[(address + i) % memory.size];
        return 0;
    }
    memset(destination, 0, size); /* as bpf_probe_read_user does */
    return -1;
}

/* ---- a kernel of our own: its structs lie in this process, members in an order that no kernel has ---- */

struct fake_super_block {
    int s_dev;
};
struct fake_inode {
    struct fake_super_block *i_sb;
    long i_size;
    unsigned long i_ino;
};
struct fake_file {
    long other;
    struct fake_inode *f_inode;
};
struct fake_mm {
    struct fake_file *exe_file;
    unsigned long start_code;
};
struct fake_task {
    unsigned long start_boottime;
    unsigned self_exec_id;
    int tgid;
    struct fake_mm *mm;
    struct fake_task *group_leader;
};

#define PF_TASK_GROUP_LEADER offsetof(struct fake_task, group_leader)
#define PF_TASK_START_BOOTTIME offsetof(struct fake_task, start_boottime)
#define PF_TASK_TGID offsetof(struct fake_task, tgid)
#define PF_TASK_SELF_EXEC_ID offsetof(struct fake_task, self_exec_id)
#define PF_TASK_MM offsetof(struct fake_task, mm)
#define PF_MM_START_CODE offsetof(struct fake_mm, start_code)
#define PF_MM_EXE_FILE offsetof(struct fake_mm, exe_file)
#define PF_FILE_F_INODE offsetof(struct fake_file, f_inode)
#define PF_INODE_I_INO offsetof(struct fake_inode, i_ino)
#define PF_INODE_I_SIZE offsetof(struct fake_inode, i_size)
#define PF_INODE_I_SB offsetof(struct fake_inode, i_sb)
#define PF_SUPER_BLOCK_S_DEV offsetof(struct fake_super_block, s_dev)

static int read_kernel(void *destination, unsigned long long size, unsigned long long address)
{
    if (address < 4096) { /* a NULL pointer and a member of it */
        memset(destination, 0, size);
        return -1;
    }
    memcpy(destination, (const void *)address, size);
    return 0;
}

#define PF_INLINE static inline
#define PF_READ_USER(destination, size, address) read_user((destination), (size), (address))
#define PF_READ_KERNEL(destination, size, address) read_kernel((destination), (size), (address))

#include "cpython_stack.h"
#include "native_stack.h"
#include "process_image.h"

#define TAIL_CALLS 33     /* MAX_TAIL_CALL_CNT, include/linux/bpf.h */
#define SEARCH_STAGES 12  /* PF_SEARCH_STAGES of python.bpf.c */

/* One per CPU in the programs, and never cleared between samples; on the heap for the address sanitizer's fences. */
static struct cpython_scratch *scratch;

void harness_use_process(int pid)
{
    memory = (struct harness_memory){.pid = pid};
}

void harness_use_bytes(const unsigned char *bytes, unsigned long long size, unsigned fail_every)
{
    memory = (struct harness_memory){.bytes = bytes, .size = size, .fail_every = fail_every};
}

/* Pages of PAGE bytes from an address on; reads that touch one that is not present fail, and so do those elsewhere. */
void harness_use_pages(const unsigned char *bytes, unsigned long long start, unsigned long long size,
                       const unsigned char *present)
{
    memory = (struct harness_memory){.bytes = bytes, .start = start, .size = size, .present = present};
}

static void allocate(void)
{
    if (!scratch)
        scratch = calloc(1, sizeof(*scratch));
    if (!scratch)
        abort();
}

/* What stage_search does: enum cpython_search_result, PF_SEARCH_CONTINUE when the list is longer than it looks. */
int harness_find_thread(const struct cpython_layout *layout, pf_u64 interpreters_head, pf_u64 thread_pointer,
                        struct cpython_search *search)
{
    int result = PF_SEARCH_CONTINUE;

    *search = (struct cpython_search){.interpreter = pf_read_pointer(interpreters_head)};
    for (int stage = 0; stage < SEARCH_STAGES && result == PF_SEARCH_CONTINUE; stage++)
        result = cpython_search_threads(layout, search, thread_pointer);
    return result;
}

/* Whether a known thread state would be used again: it is the thread's, and the interpreter still lists it. */
int harness_is_known(const struct cpython_layout *layout, pf_u64 thread_state, pf_u64 thread_pointer)
{
    allocate();
    return !cpython_read_thread_state(layout, scratch, thread_state, thread_pointer) &&
           cpython_is_listed(layout, scratch, thread_state);
}

/* enum gil_state of a thread, -1 when its state cannot be read. */
int harness_gil_state(const struct cpython_layout *layout, pf_u64 thread_state, pf_u64 thread_pointer,
                      pf_u64 tstate_current)
{
    allocate();
    if (cpython_read_thread_state(layout, scratch, thread_state, thread_pointer))
        return -1;
    return cpython_gil_state(layout, scratch, thread_state, tstate_current ? pf_read_pointer(tstate_current) : 0,
                             cpython_gil(layout, scratch));
}

/* What start_walk and stage_walk do, from a frame on; frames has room for PF_STACK_FRAMES.  1 when the walk was not
 * done within the tail calls of one sample. */
int harness_walk_from(const struct cpython_layout *layout, pf_u64 frame, pf_u64 process, struct cpython_walk *walk,
                      struct stack_frame *frames)
{
    int result = frame ? PF_WALK_CONTINUE : PF_WALK_DONE;

    allocate();
    scratch->walks++; /* as cpython_top_frame does */
    scratch->window_frames = 0;
    *walk = (struct cpython_walk){.frame = frame, .process = process, .hash = process, .end = PF_MAX_PYTHON_FRAMES};
    for (int stage = 0; stage < TAIL_CALLS && result == PF_WALK_CONTINUE; stage++)
        result = cpython_walk_frames(layout, scratch, walk, frames);
    return result == PF_WALK_CONTINUE;
}

/* The same from a thread state; -1 when that cannot be read or belongs to another thread. */
int harness_walk(const struct cpython_layout *layout, pf_u64 thread_state, pf_u64 thread_pointer, pf_u64 process,
                 struct cpython_walk *walk, struct stack_frame *frames)
{
    allocate();
    if (cpython_read_thread_state(layout, scratch, thread_state, thread_pointer))
        return -1;
    return harness_walk_from(layout, cpython_top_frame(layout, scratch), process, walk, frames);
}

/* Size of what stands behind the record; payload has room for harness_code_payload() bytes. */
pf_u64 harness_copy_code(const struct cpython_layout *layout, pf_u64 address, struct code_record *record,
                         pf_u8 *payload)
{
    return cpython_copy_code(layout, record, payload, address);
}

unsigned harness_code_payload(void)
{
    return PF_CODE_PAYLOAD;
}

int harness_identify(const struct executable_entry *executable, pf_u64 start_code, struct process_entry *entry)
{
    return pf_identify(executable, start_code, entry);
}

/* Builds the kernel's structs of a process from the record's own fields and reads them back; thread: not its first. */
void harness_read_process(const struct process_record *given, int thread, struct process_record *read)
{
    struct fake_super_block super_block = {.s_dev = (int)given->executable.device};
    struct fake_inode inode = {&super_block, (long)0x700000000 | given->executable.size, given->executable.inode};
    struct fake_file file = {0, &inode};
    struct fake_mm mm = {&file, given->start_code};
    struct fake_task leader = {.start_boottime = given->identity.start,
                               .self_exec_id = given->identity.exec_id,
                               .tgid = (int)given->identity.tgid,
                               .mm = given->start_code ? &mm : 0,
                               .group_leader = &leader};
    struct fake_task other = leader;
    other.start_boottime = ~0UL;
    pf_u64 task = (pf_u64)(thread ? &other : &leader);

    pf_read_identity(task, &read->identity);
    pf_read_executable(task, &read->executable, &read->start_code);
}

/* A frame of native code: its registers, and the row that holds there. */
struct native_frame {
    pf_u64 ip;
    pf_u64 sp;
    pf_u64 bp;
    pf_u64 exact;
    pf_u64 callee_exact;
    pf_u64 interrupted[PF_OTHER_END];
    pf_u64 file;    /* 0: code without unwind data, which has the row for frame pointers */
    struct unwind_row row;
    pf_u64 outcome; /* enum native_outcome, of a frame that has no caller */
    pf_u64 end;
};

/* What stage_unwind and stage_rare do with one frame, which becomes its caller; enum native_step. */
int harness_native_step(struct native_frame *frame)
{
    struct native_walk walk;
    int step = PF_STEP_CALLER;

    memset(&walk, 0xa5, sizeof(walk)); /* one per CPU, and never cleared */
    walk.ip = frame->ip;
    walk.sp = frame->sp;
    walk.bp = frame->bp;
    walk.exact = frame->exact;
    walk.callee_exact = frame->callee_exact;
    memcpy(walk.interrupted, frame->interrupted, sizeof(walk.interrupted));
    walk.page.file = frame->file;
    walk.row = frame->row;
    walk.outcome = PF_NATIVE_NO_MAPPING;
    if (native_is_rare(&walk)) {
        step = (walk.row.kind & 15) == PF_CFA_NONE ? native_frame_pointer_step(&walk) : native_rare_step(&walk);
    } else if (native_common_step(&walk)) {
        native_common_end(&walk);
        step = PF_STEP_END;
    }
    frame->ip = walk.ip;
    frame->sp = walk.sp;
    frame->bp = walk.bp;
    frame->exact = walk.exact;
    frame->callee_exact = walk.callee_exact;
    memcpy(frame->interrupted, walk.interrupted, sizeof(walk.interrupted));
    frame->outcome = walk.outcome;
    frame->end = native_frame_end(&walk, step);
    return step;
}
