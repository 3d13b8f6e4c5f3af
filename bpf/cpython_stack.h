/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * CPython's thread states and frames, read from outside.
 *
 * Owns no map and keeps no state, so that it compiles for BPF and, with gcc, into a library that walks live processes
 * in ordinary tests.  The including file defines
 *     PF_READ_USER(destination, size, address)   0 if all bytes were copied
 *     PF_INLINE                                  how functions are declared
 * Every address comes from the target and may be anything; loops are bounded, and a read that fails is reported. */
#ifndef PYFLAME_CPYTHON_STACK_H
#define PYFLAME_CPYTHON_STACK_H

#include "sample.h"

#define PF_THREAD_LIST_STEPS 128 /* thread states looked at in one call of cpython_search_threads */
#define PF_FRAME_STEPS 128       /* frames read in one call of cpython_walk_frames */

#define PF_WINDOW 1024   /* bytes before the wanted frame that one read takes along */
#define PF_TICK_CODES 32 /* code objects remembered within one walk */

/* A code object met in this walk. */
struct cpython_met_code {
    pf_u64 address;
    pf_u64 id;
    pf_u64 walk; /* the walk's number: entries of others do not count */
};

/* Memory for structs that are read whole: a read of 200 bytes costs as much as one of 8. */
struct cpython_scratch {
    pf_u8 thread_state[PF_THREAD_STATE_READ + 8];
    pf_u64 code[PF_CODE_IDENTITY_SIZE / 8];
    pf_u64 gil[2]; /* from last_holder on */
    pf_u64 window_start;
    pf_u64 window_frames; /* frames that begin before this offset are whole in the window */
    pf_u64 frame;  /* offset in the window */
    pf_u64 check;  /* 1: the walk has not come to its first boundary yet, under which "below" must be */
    pf_u64 below;
    pf_u64 walks;
    struct cpython_met_code met[PF_TICK_CODES];
    pf_u8 window[2 * PF_WINDOW + PF_FRAME_READ_MAX + 8]; /* as far as a mask lets the verifier see */
};

/* Offsets come from a map and are bounded by masks that the verifier can see. */
#define PF_THREAD_FIELD(scratch, type, offset) \
    (*(type *)((scratch)->thread_state + ((offset) & (PF_THREAD_STATE_READ - 1))))
#define PF_FRAME_FIELD(bytes, type, offset) (*(type *)((bytes) + ((offset) & (PF_FRAME_READ_MAX - 1))))

PF_INLINE pf_u64 pf_read_pointer(pf_u64 address)
{
    pf_u64 value = 0;
    if (PF_READ_USER(&value, sizeof(value), address))
        return 0;
    return value;
}

/* A number of which the compiler knows nothing, so that it makes no branch in place of a mask. */
PF_INLINE pf_u64 pf_opaque(pf_u64 value)
{
    __asm__ volatile("" : "+r"(value));
    return value;
}

/* The value, at most the limit, by a comparison that the compiler must keep for the verifier to see. */
PF_INLINE pf_u64 pf_bounded(pf_u64 value, pf_u64 limit)
{
    value = pf_opaque(value);
    return value > limit ? limit : value;
}

/* An index of an array whose length is a power of two, by an AND that the compiler must keep: it makes an OR of a sum,
 * and up to Linux 6.1 the verifier forgets the bounds of an OR of two numbers. */
PF_INLINE pf_u64 pf_masked(pf_u64 index, pf_u64 mask)
{
    return pf_opaque(index) & mask;
}

/* -1 (all ones) if a <= b, else 0, without a branch, of which the verifier would follow both ways.  For addresses of
 * user space and smaller numbers. */
PF_INLINE pf_u64 pf_at_most(pf_u64 a, pf_u64 b)
{
    return (pf_u64)((long long)pf_opaque(a - b - 1) >> 63);
}

/* The first number if the mask is 0, the second if it is all ones. */
PF_INLINE pf_u64 pf_selected(pf_u64 mask, pf_u64 first, pf_u64 second)
{
    return first ^ ((first ^ second) & pf_opaque(mask));
}

/* The frames from a depth on, with room for so many. */
PF_INLINE struct stack_frame *pf_frames_from(struct stack_frame *frames, pf_u64 depth, pf_u64 room)
{
    frames += pf_bounded(depth, PF_STACK_FRAMES - room);
    /* The pointer must exist from here on.  Otherwise the compiler may keep the depth on the stack from before it was
     * bounded, and up to Linux 6.1 the verifier knows nothing of such a number. */
    __asm__ volatile("" : "+r"(frames));
    return frames;
}

/* One round of a 64-bit multiplicative hash; the constant is 2^64 divided by the golden ratio. */
PF_INLINE pf_u64 pf_hash(pf_u64 hash, pf_u64 word)
{
    hash = (hash ^ word) * 0x9e3779b97f4a7c15ULL;
    return hash ^ (hash >> 29);
}

/* ---- thread states ---- */

/* Reads a PyThreadState into the scratch.  Returns 0 if it belongs to the thread. */
PF_INLINE int cpython_read_thread_state(const struct cpython_layout *layout, struct cpython_scratch *scratch,
                                        pf_u64 address, pf_u64 thread_pointer)
{
    if (!address || PF_READ_USER(scratch->thread_state, PF_THREAD_STATE_READ, address))
        return -1;
    return PF_THREAD_FIELD(scratch, pf_u64, layout->tstate_thread_id) == thread_pointer ? 0 : -1;
}

/* Whether the thread state in the scratch is in its list; a freed one keeps its contents for a while. */
PF_INLINE int cpython_is_listed(const struct cpython_layout *layout, struct cpython_scratch *scratch, pf_u64 address)
{
    pf_u64 back = PF_THREAD_FIELD(scratch, pf_u64, layout->tstate_prev);
    if (back)
        back += layout->tstate_next;
    else
        back = PF_THREAD_FIELD(scratch, pf_u64, layout->tstate_interp) + layout->interp_threads_head;
    return pf_read_pointer(back) == address;
}

/* Whether the thread state in the scratch is attached to its thread; true if the release does not say. */
PF_INLINE int cpython_is_active(const struct cpython_layout *layout, struct cpython_scratch *scratch)
{
    if (layout->tstate_active == PF_OFFSET_NONE)
        return 1;
    return (PF_THREAD_FIELD(scratch, pf_u32, layout->tstate_active) & layout->tstate_active_mask) != 0;
}

struct cpython_search {
    pf_u64 interpreter;   /* 0: start with the first */
    pf_u64 thread_state;  /* next to look at; 0: go to the next interpreter */
    pf_u64 found;         /* newest thread state of this thread, an attached one before others */
    pf_u32 matches;
    pf_u32 found_active;
};

enum cpython_search_result {
    PF_SEARCH_DONE = 0,      /* the lists were read to their end; search->found is 0 if there is none */
    PF_SEARCH_CONTINUE = 1,
    PF_SEARCH_FAILED = 2,
};

/* Goes on through the interpreters' lists of thread states (newest first), looking for this thread pointer.
 *
 * Both ways through a turn count and compare by themselves, and the assembler's comments keep compilers from making one of
 * them: Linux 5.10 refuses a loop in which an instruction that is no jump runs on into one that the loop began with. */
PF_INLINE int cpython_search_threads(const struct cpython_layout *layout, struct cpython_search *search,
                                     pf_u64 thread_pointer)
{
    pf_u64 interpreter = search->interpreter, thread_state = search->thread_state;
    int step = 0;

    for (;;) {
        if (!thread_state) {
            if (!interpreter)
                return PF_SEARCH_DONE;
            if (PF_READ_USER(&thread_state, 8, interpreter + layout->interp_threads_head))
                return PF_SEARCH_FAILED;
            pf_u64 next;
            if (PF_READ_USER(&next, 8, interpreter + layout->interp_next))
                return PF_SEARCH_FAILED;
            interpreter = next;
            step++;
            __asm__ volatile("# interpreter" : "+r"(step));
            if (step >= PF_THREAD_LIST_STEPS)
                break;
            continue;
        }
        pf_u64 thread_id, next;
        if (PF_READ_USER(&thread_id, 8, thread_state + layout->tstate_thread_id) ||
            PF_READ_USER(&next, 8, thread_state + layout->tstate_next))
            return PF_SEARCH_FAILED;
        if (thread_id == thread_pointer) {
            pf_u32 active = 0;
            if (layout->tstate_active != PF_OFFSET_NONE &&
                PF_READ_USER(&active, 4, thread_state + layout->tstate_active))
                return PF_SEARCH_FAILED;
            active &= layout->tstate_active_mask;
            if (!search->found || (active && !search->found_active)) {
                search->found = thread_state;
                search->found_active = active;
            }
            search->matches++;
        }
        thread_state = next;
        step++;
        __asm__ volatile("# thread state" : "+r"(step));
        if (step >= PF_THREAD_LIST_STEPS)
            break;
    }
    search->interpreter = interpreter;
    search->thread_state = thread_state;
    return PF_SEARCH_CONTINUE;
}

/* Address of the struct _gil_runtime_state of the thread state in the scratch, 0 if the release has none there. */
PF_INLINE pf_u64 cpython_gil(const struct cpython_layout *layout, struct cpython_scratch *scratch)
{
    if (layout->gil_kind != PF_GIL_KIND_INTERPRETER)
        return 0;
    return pf_read_pointer(PF_THREAD_FIELD(scratch, pf_u64, layout->tstate_interp) + layout->interp_gil);
}

/* Whether the thread of the thread state in the scratch holds the GIL: enum gil_state.  ``holder`` is the contents of
 * tstate_current, ``gil`` the result of cpython_gil. */
PF_INLINE int cpython_gil_state(const struct cpython_layout *layout, struct cpython_scratch *scratch, pf_u64 address,
                                pf_u64 holder, pf_u64 gil)
{
    int held;
    if (layout->gil_kind == PF_GIL_KIND_THREAD_FLAG) {
        held = PF_THREAD_FIELD(scratch, int, layout->tstate_holds_gil) != 0;
    } else if (layout->gil_kind == PF_GIL_KIND_TSTATE_CURRENT) {
        held = holder == address;
    } else if (gil) {
        /* last_holder is a pointer, locked the int behind it, in every release that has them here */
        if (PF_READ_USER(scratch->gil, sizeof(scratch->gil), gil + layout->gil_last_holder))
            return PF_GIL_STATE_UNKNOWN;
        held = (int)scratch->gil[1] > 0 && scratch->gil[0] == address;
    } else {
        return PF_GIL_STATE_UNKNOWN;
    }
    return held ? PF_GIL_STATE_HELD : PF_GIL_STATE_NOT_HELD;
}

/* ---- frames ---- */

/* Begins a walk.  Returns the innermost frame of the thread state in the scratch, 0 if it runs no Python code.
 *
 * 3.11 and 3.12 make a new CFrame the current one before they set its frame: for some instructions the frame is garbage
 * from the C stack.  A true frame belongs to a call of the evaluation loop that began above the frame of the CFrame
 * before.  The walk checks that at its first boundary, and if it is not so begins again with the latter frame. */
PF_INLINE pf_u64 cpython_top_frame(const struct cpython_layout *layout, struct cpython_scratch *scratch)
{
    pf_u64 frames[2] = {}; /* current_frame and previous, in this order in both releases */

    scratch->walks++;
    scratch->window_frames = 0;
    scratch->check = 0;
    pf_u64 frame = PF_THREAD_FIELD(scratch, pf_u64, layout->tstate_frame);
    if (!frame || layout->cframe_current_frame == PF_OFFSET_NONE)
        return frame;
    if (PF_READ_USER(frames, sizeof(frames), frame + layout->cframe_current_frame))
        return 0;
    scratch->below = frames[1] ? pf_read_pointer(frames[1] + layout->cframe_current_frame) : 0;
    scratch->check = 1;
    return frames[0];
}

/* A frame's place in its code: the integer that the frame holds, or its pointer less the code object's address.  User
 * space makes a byte offset of it. */
PF_INLINE int cpython_position(const struct cpython_layout *layout, const pf_u8 *frame, pf_u64 code)
{
    pf_u64 is_pointer = layout->instruction_kind >> 1;
    return (int)(PF_FRAME_FIELD(frame, pf_u64, layout->frame_instruction) - (code & -is_pointer));
}

/* Reads a frame and those before it into the window, unless it is there already.  Returns 0 if it could be read.
 *
 * From 3.11 on frames lie one behind the other on a stack of their own, callers below, so that one read brings many.
 * It begins no earlier than the page of the frame: the page before may not be there. */
PF_INLINE int cpython_read_frame(struct cpython_scratch *scratch, pf_u64 address, pf_u64 size)
{
    pf_u64 offset = address - scratch->window_start;
    scratch->frame = offset;
    if (offset < scratch->window_frames)
        return 0;
    pf_u64 back = address & 4095;
    back = pf_selected(pf_at_most(PF_WINDOW, back), back, PF_WINDOW);
    scratch->frame = back;
    scratch->window_start = address - back;
    scratch->window_frames = back + 1;
    return PF_READ_USER(scratch->window, pf_masked(back + size, 2 * PF_WINDOW - 1), address - back);
}

enum cpython_walk_result {
    PF_WALK_DONE = 0,
    PF_WALK_CONTINUE = 1,
};

struct cpython_walk {
    pf_u64 frame;      /* next to read, 0 at the end */
    pf_u64 process;    /* hash of the process's identity */
    pf_u64 hash;       /* of the stack so far */
    pf_u64 depth;      /* frames of the stack so far, kernel frames among them */
    pf_u64 end;        /* the depth at which the stack is too deep */
    pf_u64 outcome;    /* enum outcome */
    pf_u64 first;      /* depth and hash before the first Python frame */
    pf_u64 first_hash;
};

/* Identifies a code object by process, address and contents, since addresses are used again.  Returns 0 if it cannot be
 * read, or if the frame is a boundary, which has none.
 *
 * The hash is a sum of products with odd constants: in a chain each product would wait for the one before. */
PF_INLINE pf_u64 cpython_code_id(const struct cpython_layout *layout, struct cpython_scratch *scratch,
                                 struct cpython_walk *walk, pf_u64 code, pf_u64 boundary)
{
    struct cpython_met_code *met = &scratch->met[(code >> 5 ^ code >> 10) & (PF_TICK_CODES - 1)];
    if (pf_opaque((met->address ^ code) | (met->walk ^ scratch->walks)) & ~boundary) {
        long long unread = PF_READ_USER(scratch->code, PF_CODE_IDENTITY_SIZE, code + layout->code_identity) >> 31;
        const pf_u64 *word = scratch->code;
        pf_u64 sum = word[0] * 0x9e3779b97f4a7c15ULL + word[1] * 0xc2b2ae3d27d4eb4fULL +
                     word[2] * 0x165667b19e3779f9ULL + word[3] * 0xd6e8feb86659fd93ULL +
                     word[4] * 0xff51afd7ed558ccdULL + word[5] * 0xc4ceb9fe1a85ec53ULL +
                     word[6] * 0xbf58476d1ce4e5b9ULL + word[7] * 0x94d049bb133111ebULL +
                     word[8] * 0x87c37b91114253d5ULL + word[9] * 0x4cf5ad432745937fULL +
                     word[10] * 0xa0761d6478bd642fULL + word[11] * 0xe7037ed1a0b428dbULL;
        met->address = code;
        met->walk = scratch->walks;
        met->id = pf_selected(unread, pf_hash(pf_hash(walk->process, code), sum) | 1, 0);
        walk->outcome = pf_selected(unread, walk->outcome, PF_OUTCOME_UNREADABLE_CODE);
    }
    return met->id & ~boundary;
}

/* At a boundary, or where the walk cannot go on: whether it must begin again, because it began with garbage. */
PF_INLINE int cpython_was_stale(struct cpython_scratch *scratch, struct cpython_walk *walk, pf_u64 below)
{
    if (!scratch->check)
        return 0;
    scratch->check = 0;
    /* Greenlets cut the chain of CFrames: where one ends nothing can be compared. */
    if (below == scratch->below || !below || !scratch->below)
        return 0;
    walk->depth = walk->first;
    walk->hash = walk->first_hash;
    walk->outcome = PF_OUTCOME_COMPLETE;
    scratch->walks++; /* code objects that cannot be read must be noticed again */
    return 1;
}

/* Reads up to PF_FRAME_STEPS frames, innermost first, into frames[walk->depth] and on.
 *
 * The verifier follows the loop turn by turn: each way out of a turn and, as far as the next branch, each way through
 * it. Hence few branches. */
PF_INLINE int cpython_walk_frames(const struct cpython_layout *layout, struct cpython_scratch *scratch,
                                  struct cpython_walk *walk, struct stack_frame *frames)
{
    pf_u64 size = layout->frame_size, depth = walk->depth;
    pf_u64 tag_mask = layout->frame_code_tag_mask, shim = layout->frame_owner_shim;

    if (!walk->frame)
        return PF_WALK_DONE;
    if (depth >= walk->end || depth >= PF_STACK_FRAMES - PF_FRAME_STEPS) {
        walk->outcome = PF_OUTCOME_TOO_DEEP;
        return PF_WALK_DONE;
    }
    struct stack_frame *out = pf_frames_from(frames, depth, PF_FRAME_STEPS);
    for (int step = 0; step < PF_FRAME_STEPS; step++, out++) {
        pf_u64 address = walk->frame;
        if (!address)
            return PF_WALK_DONE;
        if (cpython_read_frame(scratch, address, size)) {
            scratch->window_frames = 0;
            walk->outcome = PF_OUTCOME_UNREADABLE_FRAME;
            walk->frame = cpython_was_stale(scratch, walk, address) ? scratch->below : 0;
            return PF_WALK_CONTINUE;
        }
        const pf_u8 *frame = scratch->window + pf_masked(scratch->frame, 2 * PF_WINDOW - 1);
        /* A boundary stands for the C function that called the evaluation loop, and lies in that call's C frame. */
        pf_u64 boundary = pf_opaque(pf_at_most(shim, PF_FRAME_FIELD(frame, pf_u8, layout->frame_owner)));
        pf_u64 code = PF_FRAME_FIELD(frame, pf_u64, layout->frame_code) & ~tag_mask;
        pf_u64 code_id = cpython_code_id(layout, scratch, walk, code, boundary);
        pf_u64 position = (pf_u32)cpython_position(layout, frame, code);
        pf_u64 entry = (PF_FRAME_FIELD(frame, pf_u8, layout->frame_is_entry) & layout->frame_is_entry_mask) |
                       layout->frame_always_entry;
        pf_u64 kind = pf_selected(boundary, PF_FRAME_PYTHON | entry << 8, PF_FRAME_BOUNDARY);

        out->address = pf_selected(boundary, code, address);
        out->code_id = code_id;
        out->position = position & ~boundary;
        out->kind = kind;
        walk->hash = pf_hash(walk->hash, pf_selected(boundary, code_id + position + entry, PF_FRAME_BOUNDARY));
        walk->depth++;
        walk->frame = PF_FRAME_FIELD(frame, pf_u64, layout->frame_previous);
        if ((entry | boundary) & scratch->check) {
            if (cpython_was_stale(scratch, walk, walk->frame))
                walk->frame = scratch->below;
            return PF_WALK_CONTINUE;
        }
    }
    return PF_WALK_CONTINUE;
}

/* ---- code objects ---- */

/* Copies a str object with its characters.  Returns its size in bytes, 0 if it is too long or cannot be read. */
PF_INLINE pf_u64 cpython_copy_str(const struct cpython_layout *layout, pf_u8 *destination, pf_u64 address)
{
    pf_u64 length = 0;
    pf_u8 state = 0;
    if (!address || PF_READ_USER(&length, 8, address + layout->str_length) ||
        PF_READ_USER(&state, 1, address + layout->str_state))
        return 0;
    if (!((state >> layout->str_compact_shift) & 1) || length > PF_STR_MAX)
        return 0;
    pf_u64 size = length * ((state >> layout->str_kind_shift) & 7);
    size += (state >> layout->str_ascii_shift) & 1 ? layout->str_ascii_data : layout->str_compact_data;
    if (size > PF_STR_MAX)
        return 0;
    size = pf_bounded(size, PF_STR_MAX);
    return PF_READ_USER(destination, size, address) ? 0 : size;
}

#define PF_NO_BYTES ((pf_u64)-1)
/* Copies the contents of a bytes object.  Returns their size, which may be 0 for a line table up to 3.9, or PF_NO_BYTES
 * if they are too long or cannot be read. */
PF_INLINE pf_u64 cpython_copy_bytes(const struct cpython_layout *layout, pf_u8 *destination, pf_u64 address)
{
    pf_u64 size = 0;
    if (!address || PF_READ_USER(&size, 8, address + layout->bytes_size) || size > PF_LINE_TABLE_MAX)
        return PF_NO_BYTES;
    size = pf_bounded(size, PF_LINE_TABLE_MAX);
    return PF_READ_USER(destination, size, address + layout->bytes_value) ? PF_NO_BYTES : size;
}

/* Fills the record and its payload, at most PF_CODE_PAYLOAD bytes, with a code object's name, file and line table.
 * Returns the size of the payload. */
#define PF_CODE_PAYLOAD (2 * PF_STR_MAX + PF_LINE_TABLE_MAX)
PF_INLINE pf_u64 cpython_copy_code(const struct cpython_layout *layout, struct code_record *record, pf_u8 *payload,
                                   pf_u64 address)
{
    record->missing = 0;
    record->address = address;
    record->first_line = 0;
    PF_READ_USER(&record->first_line, 4, address + layout->code_first_line);
    record->name = pf_read_pointer(address + layout->code_name);
    record->file = pf_read_pointer(address + layout->code_filename);
    record->line_table = pf_read_pointer(address + layout->code_line_table);

    pf_u64 name = cpython_copy_str(layout, payload, record->name);
    record->name_size = name;
    if (!name)
        record->missing |= PF_CODE_NO_NAME;

    name = pf_bounded(name, PF_STR_MAX);
    pf_u64 file = cpython_copy_str(layout, payload + name, record->file);
    record->file_size = file;
    if (!file)
        record->missing |= PF_CODE_NO_FILE;

    pf_u64 strings = pf_bounded(name + file, 2 * PF_STR_MAX);
    pf_u64 table = cpython_copy_bytes(layout, payload + strings, record->line_table);
    if (table == PF_NO_BYTES) {
        record->missing |= PF_CODE_NO_LINE_TABLE;
        table = 0;
    }
    record->line_table_size = table;
    return strings + table;
}

#endif
