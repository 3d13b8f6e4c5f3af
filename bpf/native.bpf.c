/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * A sample's native frames, from the registers that the thread had in user space to the thread's root. */

/* Keeps the registers that the thread has in user space.  Returns not 0 if it has none, like a kernel thread.  A tick
 * in the kernel finds them where the thread's entry to the kernel saved them. */
PF_INLINE int keep_user_registers(struct tick_context *ctx, struct sample *sample)
{
    if (PF_OF_USER_SPACE(&ctx->registers)) {
        PF_KEEP_REGISTERS(&sample->native, &ctx->registers);
        return 0;
    }
    PF_READ_KERNEL(&sample->entered, sizeof(sample->entered), PF_ENTRY_REGISTERS());
    if (!PF_OF_USER_SPACE(&sample->entered))
        return -1;
    PF_KEEP_REGISTERS(&sample->native, &sample->entered);
    return 0;
}

#define PF_COPIES 4        /* records with a stack's memory: 128 KiB */
#define PF_BELOW_STACK 256 /* bytes below the stack pointer that may hold saved registers */

/* Begins the native walk. */
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
    if (!process || keep_user_registers(ctx, sample)) {
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

/* Notes where the outermost frame ends, which is where its caller begins. */
PF_INLINE void end_frame(struct sample *sample, int step)
{
    u64 above = sample->walk.depth - 1;
    if (above < PF_STACK_FRAMES)
        sample->frames[above].code_id = native_frame_end(&sample->native, step);
}

#define PF_UNWIND_STEPS 640 /* frames in one stage: some 350 verified instructions each */
#define PF_LONG_STAGES 28   /* leaves enough tail calls for what comes before and after them */

/* Adds native frames until the thread's root, or until a mapping or rows are missing.
 *
 * The verifier follows the loop turn by turn, and keeps every branch that it has not followed yet: 8,192 at the most.
 * Hence few branches in a turn, limits of the stack that are checked before the loop, and exits that use nothing of the
 * turn that they leave. */
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

/* Goes from one frame to its caller by a row of a kind that few functions have. */
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
