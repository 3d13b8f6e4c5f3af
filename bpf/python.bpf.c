/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * A sample's Python frames: the thread, its thread state, and the frames from there on. */

PF_INLINE void announce_thread(u32 tid, const struct process_identity *identity)
{
    struct thread_record record = {.type = PF_RECORD_THREAD, .tid = tid, .identity = *identity};
    bpf_get_current_comm(record.comm, PF_COMM_SIZE);
    records.ringbuf_output(&record, sizeof(record), BPF_RB_NO_WAKEUP);
}

/* Remembers the current thread and its thread state, if it has one; look_again in ns of the monotonic clock. */
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

/* Goes on to the native frames of a thread that has no Python frames. */
PF_INLINE void without_python(struct tick_context *ctx, struct sample *sample, u32 outcome)
{
    sample->walk.outcome = outcome;
    next_stage(ctx, PF_STAGE_NATIVE);
}

/* Begins the walk through the frames of the thread state that the scratch holds. */
PF_INLINE void start_walk(struct tick_context *ctx, struct sample *sample, const struct cpython_layout *layout)
{
    sample->walk.frame = cpython_top_frame(layout, &sample->scratch);
    if (!sample->walk.frame) {
        without_python(ctx, sample, PF_OUTCOME_NOT_PYTHON);
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

/* Reads a thread state that is known without a search into the scratch: the GIL's holder, or the one that was found
 * before.  Returns 0 if there is one. */
PF_INLINE int known_thread_state(struct sample *sample, const struct cpython_layout *layout,
                                 const struct process_entry *process, const struct thread_entry *thread)
{
    u64 address, found = thread && thread->state == PF_THREAD_PYTHON ? thread->thread_state : 0;

    sample->gil_holder = 0;
    if (process->tstate_current) {
        address = pf_read_pointer(process->tstate_current);
        sample->gil_holder = address;
        /* A thread with several may hold the GIL with another one than was found. */
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

/* Finds the thread's thread state, or begins the search for it. */
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
    /* A known program that is still being linked runs no Python code. */
    u32 outcome = process && process->known ? PF_OUTCOME_NOT_PYTHON : PF_OUTCOME_NOT_IDENTIFIED;
    if (!process || process->state == PF_PROCESS_ANNOUNCED)
        goto native;
    outcome = PF_OUTCOME_NOT_PYTHON;
    if (process->state != PF_PROCESS_PYTHON)
        goto native;
    sample->layout = process->layout;
    struct cpython_layout *layout = layouts.lookup(&sample->layout);
    if (!layout)
        goto native;
    if (thread && thread->state == PF_THREAD_PYTHON) /* a thread with a thread state keeps its pointer */
        sample->thread_pointer = thread->thread_pointer;
    else
        sample->thread_pointer = PF_THREAD_POINTER(bpf_get_current_task());
    if (!known_thread_state(sample, layout, process, thread)) {
        start_walk(ctx, sample, layout);
        return 0;
    }
    if (thread && thread->state == PF_THREAD_OTHER && sample->now < thread->look_again)
        goto native;
    /* If the runtime cannot be read, the process has not touched its page: the interpreter has not begun. */
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

#define PF_SEARCH_STAGES 12         /* of PF_THREAD_LIST_STEPS thread states each */
#define PF_SEARCH_PAUSE 20000000ULL /* ns between two searches of a long list for a thread that is not in it */

/* Looks for the thread in the interpreters' lists of thread states. */
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
        without_python(ctx, sample, PF_OUTCOME_NO_THREAD_STATE);
        return 0;
    }
    if (!sample->search.found) {
        remember_thread(sample, PF_THREAD_OTHER, sample->search_stages ? sample->now + PF_SEARCH_PAUSE : 0);
        without_python(ctx, sample, PF_OUTCOME_NOT_PYTHON);
        return 0;
    }
    sample->thread_state = sample->search.found;
    if (cpython_read_thread_state(layout, &sample->scratch, sample->thread_state, sample->thread_pointer)) {
        without_python(ctx, sample, PF_OUTCOME_UNREADABLE_THREAD_STATE);
        return 0;
    }
    sample->gil_address = cpython_gil(layout, &sample->scratch);
    remember_thread(sample, PF_THREAD_PYTHON, 0);
    start_walk(ctx, sample, layout);
    return 0;
}

/* Adds Python frames. */
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
