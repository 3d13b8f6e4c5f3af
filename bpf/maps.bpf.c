/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * The maps, and the sample under construction.
 *
 * The *.bpf.c files are compiled as one text, in the order of pyflame_ebpf/sampling/program_text.py: bcc rewrites
 * map.lookup() and the like in the main file alone, neither in headers nor in macros, so code that uses a map stands in
 * one of these files.
 *
 *     on_tick ─▶ (process) ─▶ thread ─▶ (search) ─▶ (walk) ─▶ native ─▶ unwind ⇄ (rare) ─▶ finish
 *            ─▶ (new_stack) ─▶ (codes) ─▶ (send) ─▶ (copy)
 *
 * Each arrow is a tail call; the kernel allows 33 in one tick.  A sample is built in one struct per CPU, because a tick
 * cannot interrupt a tick on its own CPU. */

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

#define PF_PAGE_SIZE 4096
#define PF_NEW_CODES 64 /* new code objects that one tick sends */

/* ---- a sample under construction ---- */

struct sample {
    u64 last_tick;       /* ns of the monotonic clock, 0: none to compare with; stays from one sample to the next */
    u64 window;          /* likewise: when the time began that is compared with the budget */
    u64 spent;           /* ns of that time which samples took */
    u32 together;        /* ticks for which one stack is walked; stays likewise */
    u32 passed;          /* ticks since the last stack was walked, this one included; stays likewise */
    u32 weight;          /* ticks that this sample is counted for */
    u32 unused;
    u64 now;
    u64 thread_pointer;  /* pthread_self() */
    u64 thread_state;    /* address of the PyThreadState */
    u64 gil_holder;      /* contents of tstate_current */
    u64 gil_address;     /* of the struct that says who holds the GIL */
    u32 tid;
    u32 layout;
    u32 gil;             /* enum gil_state */
    u32 kernel_mode;     /* 1: the tick interrupted the kernel */
    u32 search_stages;
    u32 long_stages;     /* tail calls of this tick to stages that call themselves */
    u32 new_codes;       /* entries of new_code */
    u32 sent_codes;      /* ... that were sent */
    u32 unsent;          /* 1: user space may lack code objects of this stack */
    u32 scanned;         /* frames that were looked through for new code objects */
    u32 copies;          /* records with the stack's memory that may still be sent */
    u64 copied;          /* the memory below this address was sent */
    struct cpython_search search;
    struct cpython_walk walk;
    struct cpython_scratch scratch;
    u16 new_code[PF_NEW_CODES]; /* indices of frames */
    u64 addresses[PF_MAX_KERNEL_FRAMES];
    u64 python_first;    /* index of the first Python frame */
    u64 python_end;      /* ... and behind the last */
    u64 mappings;        /* as in process_entry */
    u64 native_end;      /* index behind the last native frame that there is room for */
    struct saved_registers entered; /* of user space, as they were on entry to the kernel */
    struct native_walk native;
    struct stack_record record; /* the frames are right behind it */
    struct stack_frame frames[PF_STACK_FRAMES];
};

/* A code object, and the memory of a stack, under construction. */
struct code_scratch {
    struct code_record record;
    u8 payload[PF_CODE_PAYLOAD];
};

struct copy_scratch {
    struct stack_copy_record record;
    u8 memory[PF_STACK_COPY_MAX + PF_PAGE_SIZE];
};

struct counter_block {
    u64 value[PF_COUNTER_END];
};

/* ---- the maps ---- */

/* Large values are characters: of any other field and array element bcc compiles a printer, a second's work. */
struct sample_memory {
    char bytes[sizeof(struct sample)];
};
struct code_memory {
    char bytes[sizeof(struct code_scratch)];
};
struct copy_memory {
    char bytes[sizeof(struct copy_scratch)];
};
struct mappings_memory {
    char bytes[sizeof(struct process_mappings)];
};
struct chunk_memory {
    char bytes[sizeof(struct unwind_chunk)];
};

/* By CPU number: a value of a per-CPU map is 32 KiB at the most. */
BPF_TABLE("array", u32, struct sample_memory, samples, PF_CPUS);
BPF_TABLE("array", u32, struct copy_memory, copy_scratches, PF_CPUS);
BPF_TABLE("percpu_array", u32, struct code_memory, code_scratches, 1);
BPF_TABLE("percpu_array", u32, struct counter_block, counters, 1);

BPF_TABLE("array", u32, struct settings, settings, 1);
BPF_TABLE("array", u32, struct cpython_layout, layouts, PF_MAX_LAYOUTS);
BPF_TABLE("hash", u32, u64, targets, 16384); /* ns since boot at which the process started, by tgid */
BPF_TABLE("lru_hash", u32, struct process_entry, processes, 16384);
BPF_TABLE("hash", struct file_key, struct executable_entry, executables, 1024);
BPF_TABLE("lru_hash", struct thread_key, struct thread_entry, threads, 32768);
BPF_TABLE("lru_hash", u64, u32, known_stacks, 65536);
BPF_TABLE("lru_hash", u64, u32, known_codes, 65536);

BPF_TABLE("array", u32, struct mappings_memory, mappings, PF_MAPPED_PROCESSES);
BPF_TABLE("hash", struct unwind_page_key, struct unwind_page, unwind_pages, PF_UNWIND_PAGES + 1);
BPF_TABLE("array", u32, struct chunk_memory, unwind_chunks, PF_UNWIND_CHUNKS_IN_ALL + 1);

BPF_TABLE("hash", struct count_key, u64, counts_0, 32768);
BPF_TABLE("hash", struct count_key, u64, counts_1, 32768);
BPF_TABLE("prog", u32, u32, stages, PF_STAGE_END);
BPF_RINGBUF_OUTPUT(records, PF_RING_PAGES);
BPF_RINGBUF_OUTPUT(copies, PF_COPY_PAGES); /* of stacks: they are large, and must not displace records */

/* ---- what all stages use ---- */

PF_INLINE void count_many(u32 counter, u64 number)
{
    u32 zero = 0;
    struct counter_block *block = counters.lookup(&zero);
    if (block && counter < PF_COUNTER_END)
        block->value[counter] += number;
}

PF_INLINE void count(u32 counter)
{
    count_many(counter, 1);
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

/* Adds the time that this sample took.  Stacks are walked less often from now on if the budget is used up: the sooner
 * it was, the less often. */
PF_INLINE void end_sample(struct sample *sample)
{
    u32 zero = 0;
    struct settings *set = settings.lookup(&zero);
    u64 now = bpf_ktime_get_ns(), took = now - sample->now;
    if (took > PF_TICK_LONGEST)
        took = PF_TICK_LONGEST;
    count_many(PF_COUNTER_SAMPLING_NS, took);
    if (!set || !set->budget)
        return;
    u64 elapsed = now - sample->window;
    if (elapsed > PF_BUDGET_WINDOW) {
        sample->window = now;
        sample->spent = 0;
        return;
    }
    sample->spent += took;
    if (sample->spent <= set->budget)
        return;
    u32 together = sample->together > set->ticks ? sample->together : set->ticks;
    together <<= elapsed < PF_BUDGET_WINDOW / 8 ? 3 : elapsed < PF_BUDGET_WINDOW / 4 ? 2 : 1;
    sample->together = together < PF_TICKS_TOGETHER ? together : PF_TICKS_TOGETHER;
    sample->window = now;
    sample->spent = 0;
}

PF_INLINE void next_stage(struct tick_context *ctx, u32 stage)
{
    stages.call(ctx, stage);
    struct sample *sample = current_sample(); /* a tail call that works does not return */
    if (!sample)
        return;
    count_many(PF_COUNTER_TAIL_CALLS_FAILED, sample->weight);
    end_sample(sample);
}

/* Whether a task is of a process that was asked for: this one, not one that had its number before. */
PF_INLINE int is_target(u64 task, u32 tgid)
{
    u64 *start = targets.lookup(&tgid);
    if (!start)
        return 0;
    return pf_read_start(task) - *start < PF_START_RESOLUTION;
}
