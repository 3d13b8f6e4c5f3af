/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * What user space does not have yet: stacks, their code objects, and the memory of stacks that lack rows. */

/* Sends the stack, and remembers that user space has it if all of its parts were sent. */
PF_INLINE void send_stack(struct sample *sample)
{
    u32 one = 1;
    u64 stack_id = sample->record.stack_id, depth = pf_bounded(sample->walk.depth, PF_STACK_FRAMES);
    sample->record.type = PF_RECORD_STACK;
    sample->record.frames = depth;
    sample->record.unsent = sample->unsent;
    u64 size = sizeof(sample->record) + depth * sizeof(struct stack_frame);
    if (records.ringbuf_output(&sample->record, size, BPF_RB_NO_WAKEUP))
        count(PF_COUNTER_STACKS_DROPPED);
    else if (sample->unsent)
        count(PF_COUNTER_STACKS_UNFINISHED);
    else if (!sample->copies)
        known_stacks.update(&stack_id, &one);
}

/* Whether the stack's memory is to be sent: its walk lacked something that user space has, and copies helped before. */
PF_INLINE int wants_copy(const struct sample *sample)
{
    if (sample->native.outcome != PF_NATIVE_NO_MAPPING && sample->native.outcome != PF_NATIVE_PAGE_MISS)
        return 0;
    return sample->copies;
}

#define PF_SCAN_STEPS 512    /* frames that one stage looks through */
#define PF_CODES_PER_STAGE 4

/* Lists the frames whose code objects user space does not have. */
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
    end_sample(sample);
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
    u64 size = cpython_copy_code(layout, &scratch->record, scratch->payload, frame->address);
    size = pf_bounded(size, PF_CODE_PAYLOAD);
    u64 wakeup = scratch->record.missing ? 0 : BPF_RB_NO_WAKEUP; /* user space must hurry to read the missing parts */
    if (records.ringbuf_output(scratch, sizeof(scratch->record) + size, wakeup)) {
        count(PF_COUNTER_CODES_DROPPED);
        sample->unsent = 1;
        return;
    }
    known_codes.update(&code_id, &one);
}

/* Sends the code objects of the list. */
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
    sample->unsent = 1; /* the limit of tail calls is reached: the other codes follow when the stack is next met */
    send_stack(sample);
    end_sample(sample);
    return 0;
}

/* Sends the stack after its code objects. */
int stage_send(struct tick_context *ctx)
{
    struct sample *sample = current_sample();
    if (!sample)
        return 0;
    send_stack(sample);
    if (sample->copies)
        stages.call(ctx, PF_STAGE_COPY);
    end_sample(sample);
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
        end_sample(sample);
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
        count(PF_COUNTER_COPIES_DROPPED);
        end_sample(sample);
        return 0;
    }
    sample->copied = start + size;
    if (--sample->copies)
        stages.call(ctx, PF_STAGE_COPY);
    end_sample(sample);
    return 0;
}
