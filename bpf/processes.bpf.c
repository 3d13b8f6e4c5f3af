/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * Processes: how they are announced to user space, and how they begin and end. */

/* Tells user space of a process and enters it into the map.  If the process could not be identified here, user space
 * identifies it and writes the entry. */
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
            count(PF_COUNTER_IDENTIFIED_IN_KERNEL);
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
        count(PF_COUNTER_PROCESSES_DROPPED);
        return;
    }
    processes.update(&tgid, &entry);
}

/* Identifies a process that is new or was not identified yet: at its exec a program has no libraries, at its first
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

/* ---- tracepoints ---- */

int on_exec(struct bpf_raw_tracepoint_args *ctx)
{
    u64 task = bpf_get_current_task();
    struct process_identity identity;
    pf_read_identity(task, &identity);
#ifdef PF_FILTER
    if (!is_target(task, identity.tgid))
        return 0;
#endif
    announce_process(task, &identity, PF_RECORD_EXEC);
    return 0;
}

#ifdef PF_FOLLOW_CHILDREN
int on_fork(struct bpf_raw_tracepoint_args *ctx)
{
    u32 parent = pf_kernel_u32(ctx->args[0] + PF_TASK_TGID), child = pf_kernel_u32(ctx->args[1] + PF_TASK_TGID);
    if (child == parent || !is_target(ctx->args[0], parent))
        return 0;
    u64 start = pf_read_start(ctx->args[1]);
    if (targets.update(&child, &start))
        count(PF_COUNTER_TARGETS_FULL);
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
#ifdef PF_FILTER
    if (is_target(task, tgid))
        targets.delete(&tgid); /* also of a process that was never sampled: there is room for those that live */
#endif
    if (!processes.lookup(&tgid))
        return 0;
    /* The sum is of threads that are gone.  Added are this one, and a first thread that ended and was not reaped. */
    record.cpu = pf_kernel_u64(signal + PF_SIGNAL_SUM_SCHED_RUNTIME) + pf_kernel_u64(task + PF_TASK_SUM_EXEC_RUNTIME);
    if (leader != task)
        record.cpu += pf_kernel_u64(leader + PF_TASK_SUM_EXEC_RUNTIME);
    PF_READ_KERNEL(record.comm, PF_COMM_SIZE, leader + PF_TASK_COMM);
    records.ringbuf_output(&record, sizeof(record), 0);
    processes.delete(&tgid);
    return 0;
}
