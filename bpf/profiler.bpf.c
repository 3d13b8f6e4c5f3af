/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * The programs: a tick of the CPU clock becomes a counted stack.
 *
 *     on_tick ─▶ (process) ─▶ thread ─▶ (search) ─▶ (walk) ─▶ native ─▶ unwind ─▶ finish
 *            ─▶ (new_stack) ─▶ (codes) ─▶ (send) ─▶ (copy)
 *
 * Each arrow is a tail call (33 at the most in one tick).  A sample is under construction in one per-CPU struct;
 * a tick can't interrupt a tick on its own CPU.  bcc rewrites map.lookup() and the like in this file only, not in
 * headers or macros, so all maps live here. */

/* Under their own names bcc looks these helpers up in its index of all kernel symbols, and builds that index anew at
 * every use: a second at each start. */
static long (*pf_probe_read_user)(void *, u32, const void *) = (void *)BPF_FUNC_probe_read_user;
static long (*pf_probe_read_kernel)(void *, u32, const void *) = (void *)BPF_FUNC_probe_read_kernel;

#define PF_INLINE static inline __attribute__((always_inline))
#define PF_READ_USER(destination, size, address) pf_probe_read_user((destination), (size), (void *)(address))
#define PF_READ_KERNEL(destination, size, address) pf_probe_read_kernel((destination), (size), (void *)(address))

#include "sample.h"
#include "cpython_stack.h"
#include "native_stack.h"
#include "process_image.h"

/* x86-64's struct bpf_perf_event_data: saved registers of what the tick interrupted. */
struct tick_context {
    u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
    u64 sample_period;
    u64 addr;
};

#define PF_KERNEL_STACK_SIZE 16384 /* x86-64 without KASAN */
#define PF_REGISTERS_SIZE 168      /* struct pt_regs */
#define PF_REGISTER_CS 17
#define PF_USER_CS 0x33

#define PF_PAGE_SIZE 4096

#define PF_NEW_CODES 64       /* new code objects that one tick sends */
#define PF_CODES_PER_STAGE 4

enum stage {
    PF_STAGE_PROCESS,
    PF_STAGE_THREAD,
    PF_STAGE_SEARCH,
    PF_STAGE_WALK,
    PF_STAGE_NATIVE,
    PF_STAGE_UNWIND,
    PF_STAGE_RARE,
    PF_STAGE_FINISH,
    PF_STAGE_NEW_STACK,
    PF_STAGE_CODES,
    PF_STAGE_SEND,
    PF_STAGE_COPY,
    PF_STAGES,
};

/* A sample under construction. */
struct sample {
    u64 last_tick;
    u64 now;
    u64 thread_pointer;
    u64 thread_state;
    u64 gil_holder;  /* contents of tstate_current */
    u64 gil_address; /* of the struct that says who holds the GIL */
    u32 tid;
    u32 layout;
    u32 gil;
    u32 kernel_mode;
    u32 search_stages;
    u32 long_stages; /* those of this tick that there may be several of */
    u32 new_codes;
    u32 sent_codes;
    u32 unsent;
    u32 scanned;
    u32 copies; /* records with its memory that may be sent yet */
    u64 copied; /* up to here */
    struct cpython_search search;
    struct cpython_walk walk;
    struct cpython_scratch scratch;
    u16 new_code[PF_NEW_CODES];
    u64 addresses[PF_MAX_KERNEL_FRAMES];
    u64 python_first; /* where Python frames begin and end */
    u64 python_end;
    u64 mappings;   /* as in process_entry */
    u64 native_end; /* where native frames end if the stack is too deep */
    struct native_walk native;
    struct stack_record record; /* the frames are right behind it */
    struct stack_frame frames[PF_STACK_FRAMES];
};

struct code_scratch {
    struct code_record record;
    u8 payload[PF_CODE_PAYLOAD];
};

struct counter_block {
    u64 value[PF_COUNTERS];
};

/* bcc compiles a printer of every field and array element of a map's values, which takes a second for these two;
 * characters it takes as one string. */
struct sample_memory {
    char bytes[sizeof(struct sample)];
};
struct code_memory {
    char bytes[sizeof(struct code_scratch)];
};
struct copy_scratch {
    struct stack_copy_record record;
    u8 memory[PF_STACK_COPY_MAX + PF_PAGE_SIZE];
};
struct copy_memory {
    char bytes[sizeof(struct copy_scratch)];
};

BPF_TABLE("array", u32, struct sample_memory, samples, PF_CPUS); /* a per-CPU map's values are 32 KiB at the most */
BPF_TABLE("array", u32, struct copy_memory, copy_scratches, PF_CPUS);
BPF_TABLE("percpu_array", u32, struct code_memory, code_scratches, 1);
BPF_TABLE("percpu_array", u32, struct counter_block, counters, 1);
BPF_TABLE("array", u32, struct settings, settings, 1);
BPF_TABLE("array", u32, struct cpython_layout, layouts, PF_MAX_LAYOUTS);
BPF_TABLE("hash", u32, u32, targets, 16384);
BPF_TABLE("lru_hash", u32, struct process_entry, processes, 16384);
BPF_TABLE("hash", struct file_key, struct executable_entry, executables, 1024);
BPF_TABLE("lru_hash", struct thread_key, struct thread_entry, threads, 32768);
BPF_TABLE("lru_hash", u64, u32, known_stacks, 65536);
BPF_TABLE("lru_hash", u64, u32, known_codes, 65536);
struct mappings_memory {
    char bytes[sizeof(struct process_mappings)];
};
struct chunk_memory {
    char bytes[sizeof(struct unwind_chunk)];
};
BPF_TABLE("array", u32, struct mappings_memory, mappings, PF_MAPPED_PROCESSES);
BPF_TABLE("hash", struct unwind_page_key, struct unwind_page, unwind_pages, PF_UNWIND_PAGES + 1);
BPF_TABLE("array", u32, struct chunk_memory, unwind_chunks, PF_UNWIND_CHUNKS_IN_ALL + 1);
BPF_TABLE("hash", struct count_key, u64, counts_0, 32768);
BPF_TABLE("hash", struct count_key, u64, counts_1, 32768);
BPF_TABLE("prog", u32, u32, stages, PF_STAGES);
BPF_RINGBUF_OUTPUT(records, PF_RING_PAGES);
BPF_RINGBUF_OUTPUT(copies, PF_COPY_PAGES); /* of stacks: they are large, and must not displace records */

PF_INLINE void count(u32 counter)
{
    u32 zero = 0;
    struct counter_block *block = counters.lookup(&zero);
    if (block && counter < PF_COUNTERS)
        block->value[counter]++;
}

PF_INLINE struct sample *current_sample(void)
{
    u32 cpu = bpf_get_smp_processor_id();
    return (struct sample *)samples.lookup(&cpu);
}

PF_INLINE int same_identity(const struct process_identity *a, const struct process_identity *b)
{
    return a->start == b->start && a->tgid == b->tgid && a->exec_id == b->exec_id;
}

/* ---- processes and threads ---- */

/* Tells user space of a process and enters it into the map; where the kernel side could not identify it, user space
 * answers by writing the entry. */
PF_INLINE void announce_process(u64 task, const struct process_identity *identity, u32 type)
{
    struct process_record record = {.type = type, .identity = *identity};
    struct process_entry entry = {.identity = *identity, .state = PF_PROCESS_ANNOUNCED};
    u32 tgid = identity->tgid;

    pf_read_executable(task, &record.executable, &record.start_code);
    if (!record.start_code) {
        entry.state = PF_PROCESS_OTHER;
    } else {
        struct executable_entry *executable = executables.lookup(&record.executable);
        entry.known = executable != 0;
        if (executable && !pf_identify(executable, record.start_code, &entry))
            count(PF_IDENTIFIED_IN_KERNEL);
    }
    struct process_entry *known = processes.lookup(&tgid);
    if (known && same_identity(&known->identity, identity)) {
        if (known->state == entry.state)
            return; /* announced before, and nothing has become known since */
        entry.mappings = known->mappings;
    }
    record.state = entry.state;
    record.layout = entry.layout;
    record.interpreters_head = entry.interpreters_head;
    record.tstate_current = entry.tstate_current;
    record.parent = pf_kernel_u32(pf_kernel_u64(task + PF_TASK_REAL_PARENT) + PF_TASK_TGID);
    PF_READ_KERNEL(record.comm, PF_COMM_SIZE, pf_kernel_u64(task + PF_TASK_GROUP_LEADER) + PF_TASK_COMM);
    if (records.ringbuf_output(&record, sizeof(record), 0)) {
        count(PF_PROCESSES_DROPPED);
        return;
    }
    processes.update(&tgid, &entry);
}

PF_INLINE void announce_thread(u32 tid, const struct process_identity *identity)
{
    struct thread_record record = {.type = PF_RECORD_THREAD, .tid = tid, .identity = *identity};
    bpf_get_current_comm(record.comm, PF_COMM_SIZE);
    records.ringbuf_output(&record, sizeof(record), BPF_RB_NO_WAKEUP);
}

/* Remembers the current thread, and which thread state it has if it has one. */
PF_INLINE void remember_thread(struct sample *sample, u32 state, u64 look_again)
{
    struct thread_key key = {.tgid = sample->record.identity.tgid, .tid = sample->tid};
    struct thread_entry entry = {.identity = sample->record.identity,
                                 .task = bpf_get_current_task(),
                                 .thread_state = sample->thread_state,
                                 .thread_pointer = sample->thread_pointer,
                                 .gil = sample->gil_address,
                                 .look_again = look_again,
                                 .state = state,
                                 .nested = sample->search.matches > 1};
    threads.update(&key, &entry);
}

/* ---- the stages of a sample ---- */

/* Adds the kernel's return addresses, by its own unwinder. */
PF_INLINE void push_addresses(struct sample *sample, void *ctx, u64 flags, u32 kind)
{
    int size = bpf_get_stack(ctx, sample->addresses, sizeof(sample->addresses), flags);
    if (size <= 0)
        return;
    u64 depth = sample->walk.depth, found = (u32)size / 8, hash = sample->walk.hash;
    struct stack_frame *frame = pf_frames_from(sample->frames, depth, PF_MAX_KERNEL_FRAMES);
    for (u64 i = 0; i < PF_MAX_KERNEL_FRAMES; i++, frame++) {
        /* Neither unrolled nor counted in another way: the verifier must see that it ends before the array does. */
        __asm__ volatile("" : "+r"(i));
        if (i >= found)
            break;
        u64 address = sample->addresses[i];
        frame->address = address;
        frame->code_id = 0;
        frame->position = 0;
        frame->kind = kind;
        hash = pf_hash(hash, address + kind);
    }
    sample->walk.hash = hash;
    sample->walk.depth = depth + found;
}

PF_INLINE void next_stage(struct tick_context *ctx, u32 stage)
{
    stages.call(ctx, stage);
    count(PF_TAIL_CALLS_FAILED); /* a tail call that works does not return */
}

/* Ends the search for Python frames. */
PF_INLINE void without_python(struct tick_context *ctx, struct sample *sample, u32 outcome)
{
    sample->walk.outcome = outcome;
    next_stage(ctx, PF_STAGE_NATIVE);
}

/* Starts on the frames of the thread state that the scratch holds. */
PF_INLINE void start_walk(struct tick_context *ctx, struct sample *sample, const struct cpython_layout *layout)
{
    sample->walk.frame = cpython_top_frame(layout, &sample->scratch);
    if (!sample->walk.frame) {
        without_python(ctx, sample, PF_NOT_PYTHON);
        return;
    }
    sample->python_first = sample->walk.depth;
    sample->walk.end = sample->walk.depth + PF_MAX_PYTHON_FRAMES;
    sample->walk.first = sample->walk.depth;
    sample->walk.first_hash = sample->walk.hash;
    sample->gil =
        cpython_gil_state(layout, &sample->scratch, sample->thread_state, sample->gil_holder, sample->gil_address);
    next_stage(ctx, PF_STAGE_WALK);
}

/* The thread state that is known without a search: the GIL's holder, or the one found before.  0: in the scratch. */
PF_INLINE int known_thread_state(struct sample *sample, const struct cpython_layout *layout,
                                 const struct process_entry *process, const struct thread_entry *thread)
{
    u64 address, found = thread && thread->state == PF_THREAD_PYTHON ? thread->thread_state : 0;

    sample->gil_holder = 0;
    if (process->tstate_current) {
        address = pf_read_pointer(process->tstate_current);
        sample->gil_holder = address;
        /* It may be another one than was found, where a thread has several. */
        if (!cpython_read_thread_state(layout, &sample->scratch, address, sample->thread_pointer)) {
            sample->thread_state = address;
            return 0;
        }
    }
    if (!found || cpython_read_thread_state(layout, &sample->scratch, found, sample->thread_pointer) ||
        !cpython_is_listed(layout, &sample->scratch, found))
        return -1;
    if (thread->nested && !cpython_is_active(layout, &sample->scratch))
        return -1;
    sample->thread_state = found;
    sample->gil_address = thread->gil;
    return 0;
}

PF_INLINE void count_missed_ticks(struct sample *sample, u64 now)
{
    u32 zero = 0;
    struct settings *set = settings.lookup(&zero);
    struct counter_block *block = counters.lookup(&zero);
    u64 last = sample->last_tick;
    sample->last_tick = now;
    if (!set || !block || !set->period || !last || now <= last)
        return;
    u64 periods = (now - last + set->period / 2) / set->period;
    if (periods > 1)
        block->value[PF_TICKS_MISSED] += periods - 1;
}

int on_tick(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    if (!sample)
        return 0;
    u64 now = bpf_ktime_get_ns();
    u64 id = bpf_get_current_pid_tgid();
    u32 tgid = id >> 32;

    count(PF_TICKS);
    count_missed_ticks(sample, now);
    if (!tgid) {
        sample->last_tick = 0; /* an idle CPU may skip ticks, and nothing is missed */
        count(PF_TICKS_IDLE);
        return 0;
    }
#ifdef PF_FILTER
    if (!targets.lookup(&tgid)) {
        count(PF_TICKS_FILTERED);
        return 0;
    }
#endif
    count(PF_SAMPLES);
    u64 task = bpf_get_current_task();
    struct thread_key key = {.tgid = tgid, .tid = (u32)id};
    struct thread_entry *thread = threads.lookup(&key);
    struct process_entry *process = processes.lookup(&tgid);
    int known = thread && process && thread->task == task && same_identity(&thread->identity, &process->identity);
    if (known)
        sample->record.identity = process->identity;
    else
        pf_read_identity(task, &sample->record.identity);
    sample->tid = (u32)id;
    sample->thread_state = 0;
    sample->gil_address = 0;
    sample->now = now;
    sample->gil = PF_GIL_STATE_UNKNOWN;
    sample->kernel_mode = !(ctx->cs & 3);
    sample->search_stages = 0;
    sample->long_stages = 0;
    sample->python_first = sample->python_end = 0;
    __builtin_memset(&sample->search, 0, sizeof(sample->search));
    __builtin_memset(&sample->walk, 0, sizeof(sample->walk));
    sample->walk.process = pf_hash(sample->record.identity.start, ((u64)tgid << 32) | sample->record.identity.exec_id);
    sample->walk.hash = sample->walk.process;
#ifndef PF_NO_KERNEL
    if (sample->kernel_mode)
        push_addresses(sample, ctx, 0, PF_FRAME_KERNEL);
#endif
    if (known && process->state != PF_PROCESS_ANNOUNCED)
        next_stage(ctx, PF_STAGE_THREAD);
    else
        next_stage(ctx, PF_STAGE_PROCESS);
    return 0;
}

/* Identifies a process that is new, or was not yet identified: at its exec a program has no libraries; by its first
 * ticks the dynamic linker may have loaded the interpreter. */
int stage_process(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    if (!sample)
        return 0;
    announce_process(bpf_get_current_task(), &sample->record.identity, PF_RECORD_PROCESS);
    next_stage(ctx, PF_STAGE_THREAD);
    return 0;
}

/* Finds the thread's Python stack, or what to do for one. */
int stage_thread(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    if (!sample)
        return 0;
    u32 tgid = sample->record.identity.tgid;
    struct process_entry *process = processes.lookup(&tgid);
    struct thread_key key = {.tgid = tgid, .tid = sample->tid};
    struct thread_entry *thread = threads.lookup(&key);
    if (!thread || thread->task != bpf_get_current_task() ||
        !same_identity(&thread->identity, &sample->record.identity)) {
        announce_thread(sample->tid, &sample->record.identity);
        remember_thread(sample, PF_THREAD_OTHER, 0);
        thread = 0;
    }
    /* Of a known program that is still being linked it is known that it runs no Python code. */
    u32 outcome = process && process->known ? PF_NOT_PYTHON : PF_NOT_IDENTIFIED;
    if (!process || process->state == PF_PROCESS_ANNOUNCED)
        goto native;
    outcome = PF_NOT_PYTHON;
    if (process->state != PF_PROCESS_PYTHON)
        goto native;
    sample->layout = process->layout;
    struct cpython_layout *layout = layouts.lookup(&sample->layout);
    if (!layout)
        goto native;
    if (thread && thread->state == PF_THREAD_PYTHON) /* a thread with a thread state keeps its pointer */
        sample->thread_pointer = thread->thread_pointer;
    else
        sample->thread_pointer = pf_kernel_u64(bpf_get_current_task() + PF_TASK_FSBASE);
    if (!known_thread_state(sample, layout, process, thread)) {
        start_walk(ctx, sample, layout);
        return 0;
    }
    if (thread && thread->state == PF_THREAD_OTHER && sample->now < thread->look_again)
        goto native;
    /* A runtime that cannot be read is on a page that the process has not touched: the interpreter has not begun. */
    u64 first = process->interpreters_head ? pf_read_pointer(process->interpreters_head) : 0;
    if (!first && sample->gil_holder)
        first = pf_read_pointer(sample->gil_holder + layout->tstate_interp);
    sample->search.interpreter = first;
    next_stage(ctx, PF_STAGE_SEARCH);
    return 0;
native:
    without_python(ctx, sample, outcome);
    return 0;
}

/* Once for each of the two, and not to be merged by the compiler: the verifier refuses a pointer that may be either. */
#define KEEP_REGISTERS(walk, registers)                      \
    do {                                                     \
        volatile struct tick_context *now = (registers);     \
        u64 *kept = (walk)->interrupted;                     \
        (walk)->ip = now->ip;                                \
        (walk)->sp = now->sp;                                \
        (walk)->bp = now->bp;                                \
        kept[PF_OTHER_R8] = now->r8;                         \
        kept[PF_OTHER_R9] = now->r9;                         \
        kept[PF_OTHER_R10] = now->r10;                       \
        kept[PF_OTHER_R11] = now->r11;                       \
        kept[PF_OTHER_R12] = now->r12;                       \
        kept[PF_OTHER_R13] = now->r13;                       \
        kept[PF_OTHER_R14] = now->r14;                       \
        kept[PF_OTHER_R15] = now->r15;                       \
        kept[PF_OTHER_RDI] = now->di;                        \
        kept[PF_OTHER_RSI] = now->si;                        \
        kept[PF_OTHER_RBP] = now->bp;                        \
        kept[PF_OTHER_RBX] = now->bx;                        \
        kept[PF_OTHER_RDX] = now->dx;                        \
        kept[PF_OTHER_RAX] = now->ax;                        \
        kept[PF_OTHER_RCX] = now->cx;                        \
        __asm__ volatile("" ::: "memory");                   \
    } while (0)

/* What the thread's registers were when it entered the kernel: at the top of its kernel stack, 16 bytes lower in
 * kernels that are built for FRED.  The code segment's two low bits say which place it is. */
PF_INLINE int user_registers(struct tick_context *ctx, struct native_walk *walk)
{
    struct tick_context *entered = (struct tick_context *)walk->entered;
    if (ctx->cs & 3) {
        KEEP_REGISTERS(walk, ctx);
        return 0;
    }
    u64 task = bpf_get_current_task();
    u64 top = pf_kernel_u64(task + PF_TASK_STACK) + PF_KERNEL_STACK_SIZE - PF_REGISTERS_SIZE;
    PF_READ_KERNEL(walk->entered, PF_REGISTERS_SIZE, top);
    if (walk->entered[PF_REGISTER_CS] != PF_USER_CS) {
        PF_READ_KERNEL(walk->entered, PF_REGISTERS_SIZE, top - 16);
        if (walk->entered[PF_REGISTER_CS] != PF_USER_CS)
            return -1;
    }
    KEEP_REGISTERS(walk, entered);
    return 0;
}

#define PF_COPIES 4 /* records with a stack's memory: 128 KiB */
#define PF_BELOW_STACK 256 /* bytes: registers may be saved below the stack pointer */

/* Begins with the native frames, by the registers that the thread had in user space. */
int stage_native(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    if (!sample)
        return 0;
    u32 tgid = sample->record.identity.tgid;
    struct process_entry *process = processes.lookup(&tgid);
    sample->native.outcome = PF_NATIVE_NONE;
    sample->copies = 0;
#ifdef PF_NO_NATIVE
    process = 0;
#endif
    if (!process || user_registers(ctx, &sample->native)) {
        next_stage(ctx, PF_STAGE_FINISH);
        return 0;
    }
    sample->mappings = process->mappings;
    sample->copies = process->no_copies ? 0 : PF_COPIES;
    sample->native.exact = 1;
    sample->native.callee_exact = 0;
    sample->native_end = sample->walk.depth + PF_MAX_NATIVE_FRAMES;
    next_stage(ctx, PF_STAGE_UNWIND);
    return 0;
}

/* Tells user space what the walk lacked: a mapping, or the rows of a page. */
PF_INLINE void send_miss(const struct sample *sample)
{
    const struct native_walk *walk = &sample->native;
    struct miss_record record = {.type = PF_RECORD_MISS, .identity = sample->record.identity};

    record.address = native_address(walk);
    if (walk->outcome == PF_NATIVE_PAGE_MISS) {
        record.file = walk->page.file;
        record.address = walk->page.page;
    }
    records.ringbuf_output(&record, sizeof(record), 0);
}

/* Says of the outermost frame where it ends: where its caller would begin. */
PF_INLINE void end_frame(struct sample *sample, int step)
{
    u64 above = sample->walk.depth - 1;
    if (above < PF_STACK_FRAMES)
        sample->frames[above].code_id = native_frame_end(&sample->native, step);
}

#define PF_UNWIND_STEPS 640 /* frames in one stage: some 350 verified instructions each */
#define PF_LONG_STAGES 28   /* leaves enough tail calls for what comes before and after them */

/* Adds native frames until the root, or until something is missing.
 *
 * The verifier follows the loop turn by turn, and keeps every branch that it has not followed yet: 8,192 at the most.
 * Hence few branches in a turn, no limit of the stack checked in it, and ways out that use nothing of it. */
int stage_unwind(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    if (!sample)
        return 0;
    struct native_walk *walk = &sample->native;
    u32 slot = sample->mappings - 1;
    struct process_mappings *mapped = (struct process_mappings *)mappings.lookup(&slot);
    u64 depth = sample->walk.depth;

    if (++sample->long_stages > PF_LONG_STAGES || depth >= sample->native_end ||
        depth >= PF_STACK_FRAMES - PF_UNWIND_STEPS) {
        walk->outcome = PF_NATIVE_TOO_DEEP;
        goto end;
    }
    walk->outcome = PF_NATIVE_NO_MAPPING;
    if (!mapped)
        goto miss;
    struct stack_frame *frame = pf_frames_from(sample->frames, depth, PF_UNWIND_STEPS);
    for (int step = 0; step < PF_UNWIND_STEPS; step++, frame++) {
        u64 address = native_address(walk);
        sample->walk.hash = pf_hash(sample->walk.hash, address);
        sample->walk.depth++;
        frame->address = address;
        frame->code_id = 0; /* until its end is known */
        frame->position = 0;
        frame->kind = PF_FRAME_NATIVE;

        const struct mapping *mapping = native_mapping(mapped, address);
        if (address - mapping->start >= (u64)mapping->pages << 12)
            goto miss;
        u64 in_image = address - mapping->bias, offset = in_image & 4095;
        native_page_key(&walk->page, mapping, in_image);
        struct unwind_page *page = unwind_pages.lookup(&walk->page);
        if (!page)
            goto page_miss;
        walk->chunk = native_chunk(page, offset);
        struct unwind_chunk *chunk = (struct unwind_chunk *)unwind_chunks.lookup(&walk->chunk);
        if (!chunk)
            goto page_miss;
        walk->row = *native_row(chunk, offset);
        if (native_is_rare(walk)) {
            next_stage(ctx, PF_STAGE_RARE);
            return 0;
        }
        u64 failed = native_common_step(walk);
        frame->code_id = walk->sp;
        if (failed)
            goto failed;
    }
    next_stage(ctx, PF_STAGE_UNWIND);
    return 0;
failed:
    native_common_end(walk);
    end_frame(sample, PF_STEP_END);
    goto end;
page_miss:
    walk->outcome = PF_NATIVE_PAGE_MISS;
miss:
    send_miss(sample);
end:
    next_stage(ctx, PF_STAGE_FINISH);
    return 0;
}

/* One frame of a kind that few functions have. */
int stage_rare(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    if (!sample)
        return 0;
    struct native_walk *walk = &sample->native;
    sample->long_stages++;
    int result = (walk->row.kind & 15) == PF_CFA_NONE ? native_frame_pointer_step(walk) : native_rare_step(walk);
    end_frame(sample, result);
    next_stage(ctx, result == PF_STEP_END ? PF_STAGE_FINISH : PF_STAGE_UNWIND);
    return 0;
}

#define PF_SEARCH_STAGES 12                /* of 128 thread states each */
#define PF_SEARCH_PAUSE 20000000ULL        /* ns between two searches of a long list by a thread that is not in it */

int stage_search(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    if (!sample)
        return 0;
    struct cpython_layout *layout = layouts.lookup(&sample->layout);
    if (!layout)
        return 0;
    int result = cpython_search_threads(layout, &sample->search, sample->thread_pointer);
    if (result == PF_SEARCH_CONTINUE) {
        if (++sample->search_stages < PF_SEARCH_STAGES) {
            next_stage(ctx, PF_STAGE_SEARCH);
            return 0;
        }
        result = PF_SEARCH_FAILED;
    }
    if (result == PF_SEARCH_FAILED) {
        without_python(ctx, sample, PF_NO_THREAD_STATE);
        return 0;
    }
    if (!sample->search.found) {
        remember_thread(sample, PF_THREAD_OTHER, sample->search_stages ? sample->now + PF_SEARCH_PAUSE : 0);
        without_python(ctx, sample, PF_NOT_PYTHON);
        return 0;
    }
    sample->thread_state = sample->search.found;
    if (cpython_read_thread_state(layout, &sample->scratch, sample->thread_state, sample->thread_pointer)) {
        without_python(ctx, sample, PF_UNREADABLE_THREAD_STATE);
        return 0;
    }
    sample->gil_address = cpython_gil(layout, &sample->scratch);
    remember_thread(sample, PF_THREAD_PYTHON, 0);
    start_walk(ctx, sample, layout);
    return 0;
}

int stage_walk(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    if (!sample)
        return 0;
    struct cpython_layout *layout = layouts.lookup(&sample->layout);
    if (!layout)
        return 0;
    sample->long_stages++;
    if (cpython_walk_frames(layout, &sample->scratch, &sample->walk, sample->frames) == PF_WALK_CONTINUE)
        next_stage(ctx, PF_STAGE_WALK);
    sample->python_end = sample->walk.depth;
    next_stage(ctx, PF_STAGE_NATIVE);
    return 0;
}

/* Sends a stack that user space has not got. */
PF_INLINE void send_stack(struct sample *sample)
{
    u32 one = 1;
    u64 stack_id = sample->record.stack_id, depth = pf_bounded(sample->walk.depth, PF_STACK_FRAMES);
    sample->record.type = PF_RECORD_STACK;
    sample->record.frames = depth;
    sample->record.unsent = sample->unsent;
    u64 size = sizeof(sample->record) + depth * sizeof(struct stack_frame);
    if (records.ringbuf_output(&sample->record, size, BPF_RB_NO_WAKEUP))
        count(PF_STACKS_DROPPED);
    else if (sample->unsent)
        count(PF_STACKS_UNFINISHED);
    else if (!sample->copies)
        known_stacks.update(&stack_id, &one);
}

/* Whether the memory of this stack is to be sent. */
PF_INLINE int wants_copy(const struct sample *sample)
{
    if (sample->native.outcome != PF_NATIVE_NO_MAPPING && sample->native.outcome != PF_NATIVE_PAGE_MISS)
        return 0;
    return sample->copies;
}

int stage_finish(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    u32 zero = 0;
    struct settings *set = settings.lookup(&zero);
    if (!sample || !set)
        return 0;
    if (wants_copy(sample)) {
        sample->walk.hash = pf_hash(sample->walk.hash, sample->now); /* what follows these frames is not known yet */
        sample->copied = (sample->native.sp & ~7ULL) - PF_BELOW_STACK;
    } else {
        sample->copies = 0;
    }
    sample->record.stack_id = sample->walk.hash;
    struct count_key key = {.identity = sample->record.identity,
                            .stack_id = sample->record.stack_id,
                            .tid = sample->tid,
                            .outcome = sample->walk.outcome,
                            .gil = sample->gil,
                            .kernel_mode = sample->kernel_mode,
                            .native = sample->native.outcome};
    u64 one = 1, *found;
    int failed;
    if (set->counts) {
        found = counts_1.lookup(&key);
        failed = found ? 0 : counts_1.insert(&key, &one);
    } else {
        found = counts_0.lookup(&key);
        failed = found ? 0 : counts_0.insert(&key, &one);
    }
    if (found) {
        *found += 1; /* one thread runs on one CPU at a time, and the key names the thread */
        return 0;
    }
    if (failed)
        count(PF_COUNTS_FULL);
    u64 stack_id = sample->record.stack_id;
    if (known_stacks.lookup(&stack_id))
        return 0;
    sample->new_codes = 0;
    sample->sent_codes = 0;
    sample->unsent = 0;
    sample->scanned = sample->python_first;
    stages.call(ctx, PF_STAGE_NEW_STACK);
    sample->unsent = 1; /* the limit of tail calls has been met */
    send_stack(sample);
    return 0;
}

#define PF_SCAN_STEPS 512 /* frames looked through in one stage */

/* Lists the frames whose code objects user space has not got. */
int stage_new_stack(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    if (!sample)
        return 0;
    u64 depth = sample->python_end, previous = 0;
    u64 index = pf_bounded(sample->scanned, PF_STACK_FRAMES - PF_SCAN_STEPS);
    for (u32 step = 0; step < PF_SCAN_STEPS; step++, index++) {
        if (index >= depth)
            break;
        u64 code_id = sample->frames[index].code_id;
        if (!code_id || code_id == previous)
            continue;
        previous = code_id;
        if (known_codes.lookup(&code_id))
            continue;
        u64 slot = sample->new_codes;
        if (slot >= PF_NEW_CODES) {
            sample->unsent = 1;
            break;
        }
        sample->new_code[slot] = index;
        sample->new_codes = slot + 1;
    }
    sample->scanned += PF_SCAN_STEPS;
    if (sample->scanned < depth && sample->scanned < PF_STACK_FRAMES)
        stages.call(ctx, PF_STAGE_NEW_STACK);
    stages.call(ctx, sample->new_codes ? PF_STAGE_CODES : PF_STAGE_SEND);
    sample->unsent = 1;
    send_stack(sample);
    return 0;
}

PF_INLINE void send_code(struct sample *sample, struct code_scratch *scratch, const struct cpython_layout *layout,
                         const struct stack_frame *frame)
{
    u64 code_id = frame->code_id;
    u32 one = 1;
    if (known_codes.lookup(&code_id))
        return;
    scratch->record.type = PF_RECORD_CODE;
    scratch->record.layout = sample->layout;
    scratch->record.identity = sample->record.identity;
    scratch->record.code_id = code_id;
    scratch->record.reserved = 0;
    u64 size = pf_bounded(cpython_copy_code(layout, &scratch->record, scratch->payload, frame->address), PF_CODE_PAYLOAD);
    u64 wakeup = scratch->record.missing ? 0 : BPF_RB_NO_WAKEUP; /* user space must hurry to read what is missing */
    if (records.ringbuf_output(scratch, sizeof(scratch->record) + size, wakeup)) {
        count(PF_CODES_DROPPED);
        sample->unsent = 1;
        return;
    }
    known_codes.update(&code_id, &one);
}

int stage_codes(struct tick_context *ctx)
{
    u32 zero = 0;
    struct sample *sample = current_sample();
    struct code_scratch *scratch = (struct code_scratch *)code_scratches.lookup(&zero);
    if (!sample || !scratch)
        return 0;
    struct cpython_layout *layout = layouts.lookup(&sample->layout);
    if (!layout)
        return 0;
    for (int i = 0; i < PF_CODES_PER_STAGE; i++) {
        u32 slot = sample->sent_codes;
        if (slot >= sample->new_codes || slot >= PF_NEW_CODES)
            break;
        sample->sent_codes = slot + 1;
        u32 index = sample->new_code[slot];
        if (index < PF_STACK_FRAMES)
            send_code(sample, scratch, layout, &sample->frames[index]);
    }
    if (sample->sent_codes < sample->new_codes)
        stages.call(ctx, PF_STAGE_CODES);
    else
        stages.call(ctx, PF_STAGE_SEND);
    sample->unsent = 1; /* the limit of tail calls has been met: the other codes follow when the stack is next met */
    send_stack(sample);
    return 0;
}

int stage_send(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    if (!sample)
        return 0;
    send_stack(sample);
    if (sample->copies)
        stages.call(ctx, PF_STAGE_COPY);
    return 0;
}

/* Sends the memory of a stack that could not be walked to its root. */
int stage_copy(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    u32 cpu = bpf_get_smp_processor_id();
    struct copy_scratch *copy = (struct copy_scratch *)copy_scratches.lookup(&cpu);
    if (!sample || !copy)
        return 0;
    u64 start = sample->copied, size = 0;
    for (int page = 0; page < PF_STACK_COPY_MAX / PF_PAGE_SIZE; page++) {
        u64 rest = PF_PAGE_SIZE - ((start + size) & (PF_PAGE_SIZE - 1)); /* of the page */
        u64 place = pf_bounded(size, PF_STACK_COPY_MAX);
        if (PF_READ_USER(&copy->memory[place], pf_bounded(rest, PF_PAGE_SIZE), start + size)) {
            sample->copies = 1; /* the memory ends here */
            break;
        }
        size += rest;
    }
    if (!size) {
        u64 top = sample->native.sp & ~7ULL;
        if (start < top) { /* no page below the stack pointer's has been touched */
            sample->copied = top;
            sample->copies = PF_COPIES;
            stages.call(ctx, PF_STAGE_COPY);
        }
        return 0;
    }
    copy->record.type = PF_RECORD_STACK_COPY;
    copy->record.size = size;
    copy->record.identity = sample->record.identity;
    copy->record.stack_id = sample->record.stack_id;
    copy->record.start = start;
    copy->record.ip = sample->native.ip;
    copy->record.sp = sample->native.sp;
    copy->record.bp = sample->native.bp;
    __builtin_memcpy(copy->record.interrupted, sample->native.interrupted, sizeof(copy->record.interrupted));
    copy->record.exact = sample->native.exact;
    copy->record.callee_exact = sample->native.callee_exact;
    if (copies.ringbuf_output(copy, sizeof(copy->record) + pf_bounded(size, PF_STACK_COPY_MAX), 0)) {
        count(PF_COPIES_DROPPED);
        return 0;
    }
    sample->copied = start + size;
    if (--sample->copies)
        stages.call(ctx, PF_STAGE_COPY);
    return 0;
}

/* ---- processes that begin and end ---- */

int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
    u64 task = bpf_get_current_task();
    struct process_identity identity;
    pf_read_identity(task, &identity);
#ifdef PF_FILTER
    if (!targets.lookup(&identity.tgid))
        return 0;
#endif
    announce_process(task, &identity, PF_RECORD_EXEC);
    return 0;
}

#ifdef PF_FOLLOW_CHILDREN
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
    u32 parent = pf_kernel_u32(ctx->args[0] + PF_TASK_TGID), child = pf_kernel_u32(ctx->args[1] + PF_TASK_TGID);
    u32 one = 1;
    if (child != parent && targets.lookup(&parent))
        targets.update(&child, &one);
    return 0;
}
#endif

int on_exit(struct bpf_raw_tracepoint_args *ctx)
{
    u64 task = bpf_get_current_task(), id = bpf_get_current_pid_tgid();
    struct thread_key key = {.tgid = id >> 32, .tid = (u32)id};
    threads.delete(&key); /* its number may be given to another thread */
    u64 leader = pf_kernel_u64(task + PF_TASK_GROUP_LEADER);
    u64 signal = pf_kernel_u64(task + PF_TASK_SIGNAL);
    if (pf_kernel_u32(signal + PF_SIGNAL_LIVE))
        return 0; /* other threads live on */
    struct exit_record record = {.type = PF_RECORD_EXIT};
    pf_read_identity(task, &record.identity);
    u32 tgid = record.identity.tgid;
    if (!processes.lookup(&tgid))
        return 0;
    /* Threads that are gone, this one, and a first thread that ended before and has not been reaped. */
    record.cpu = pf_kernel_u64(signal + PF_SIGNAL_SUM_SCHED_RUNTIME) + pf_kernel_u64(task + PF_TASK_SUM_EXEC_RUNTIME);
    if (leader != task)
        record.cpu += pf_kernel_u64(leader + PF_TASK_SUM_EXEC_RUNTIME);
    PF_READ_KERNEL(record.comm, PF_COMM_SIZE, leader + PF_TASK_COMM);
    records.ringbuf_output(&record, sizeof(record), 0);
    processes.delete(&tgid);
#ifdef PF_FILTER
    targets.delete(&tgid);
#endif
    return 0;
}
