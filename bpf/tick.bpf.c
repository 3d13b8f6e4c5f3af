/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * A tick of the CPU clock: where a sample begins, and where it is counted. */

/* Adds the kernel's frames, which its own unwinder finds. */
PF_INLINE void add_kernel_frames(struct sample *sample, struct tick_context *ctx)
{
    int size = bpf_get_stack(ctx, sample->addresses, sizeof(sample->addresses), 0);
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
        frame->kind = PF_FRAME_KERNEL;
        hash = pf_hash(hash, address + PF_FRAME_KERNEL);
    }
    sample->walk.hash = hash;
    sample->walk.depth = depth + found;
}

/* Counts the ticks that the kernel skipped since the last one, by the time that has passed. */
PF_INLINE void count_missed_ticks(struct sample *sample, const struct settings *set, u64 now)
{
    u64 last = sample->last_tick;
    sample->last_tick = now;
    if (!set->period || !last || now <= last)
        return;
    u64 periods = (now - last + set->period / 2) / set->period;
    if (periods > 1)
        count_many(PF_COUNTER_TICKS_MISSED, (periods - 1) * set->ticks);
}

/* Whether the stack of this tick is not walked, because the next one that is will be counted for it. */
PF_INLINE int is_passed_over(struct sample *sample, const struct settings *set)
{
    sample->passed += set->ticks;
    if (sample->passed < sample->together)
        return 1;
    sample->weight = sample->passed;
    sample->passed = 0;
    return 0;
}

/* Begins a sample. */
int on_tick(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    u32 zero = 0;
    struct settings *set = settings.lookup(&zero);
    if (!sample || !set)
        return 0;
    u64 now = bpf_ktime_get_ns();
    u64 id = bpf_get_current_pid_tgid();
    u32 tgid = id >> 32;

    if (set->deadline && now >= set->deadline)
        return 0; /* the recording is over, and user space will stop the clock */
    count_many(PF_COUNTER_TICKS, set->ticks);
    count_missed_ticks(sample, set, now);
    if (!tgid) {
        sample->last_tick = 0; /* an idle CPU may skip ticks, and nothing is missed */
        count_many(PF_COUNTER_TICKS_IDLE, set->ticks);
        return 0;
    }
    u64 task = bpf_get_current_task();
#ifdef PF_FILTER
    if (!is_target(task, tgid)) {
        count_many(PF_COUNTER_TICKS_FILTERED, set->ticks);
        return 0;
    }
#endif
    if (is_passed_over(sample, set))
        return 0;
    count_many(PF_COUNTER_SAMPLES, sample->weight);
    count(PF_COUNTER_STACKS_WALKED);
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
    sample->kernel_mode = !PF_OF_USER_SPACE(&ctx->registers);
    sample->search_stages = 0;
    sample->long_stages = 0;
    sample->python_first = sample->python_end = 0;
    __builtin_memset(&sample->search, 0, sizeof(sample->search));
    __builtin_memset(&sample->walk, 0, sizeof(sample->walk));
    sample->walk.process = pf_hash(sample->record.identity.start, ((u64)tgid << 32) | sample->record.identity.exec_id);
    sample->walk.hash = sample->walk.process;
#ifndef PF_NO_KERNEL
    if (sample->kernel_mode)
        add_kernel_frames(sample, ctx);
#endif
    if (known && process->state != PF_PROCESS_ANNOUNCED)
        next_stage(ctx, PF_STAGE_THREAD);
    else
        next_stage(ctx, PF_STAGE_PROCESS);
    return 0;
}

/* Counts the sample, and begins to send what is new in it. */
int stage_finish(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    u32 zero = 0;
    struct settings *set = settings.lookup(&zero);
    if (!sample || !set)
        return 0;
    if (wants_copy(sample)) {
        sample->walk.hash = pf_hash(sample->walk.hash, sample->now); /* an id of its own: outer frames are not known */
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
    u64 weight = sample->weight, *found;
    int failed;
    if (set->counts) {
        found = counts_1.lookup(&key);
        failed = found ? 0 : counts_1.insert(&key, &weight);
    } else {
        found = counts_0.lookup(&key);
        failed = found ? 0 : counts_0.insert(&key, &weight);
    }
    if (found) {
        *found += weight; /* one thread runs on one CPU at a time, and the key names the thread */
        end_sample(sample);
        return 0;
    }
    if (failed)
        count_many(PF_COUNTER_COUNTS_FULL, weight);
    u64 stack_id = sample->record.stack_id;
    if (known_stacks.lookup(&stack_id)) {
        end_sample(sample);
        return 0;
    }
    sample->new_codes = 0;
    sample->sent_codes = 0;
    sample->unsent = 0;
    sample->scanned = sample->python_first;
    stages.call(ctx, PF_STAGE_NEW_STACK);
    sample->unsent = 1; /* the limit of tail calls is reached */
    send_stack(sample);
    end_sample(sample);
    return 0;
}
