/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * Native frames without frame pointers: one step from a frame to its caller by the rows of its code page.
 *
 * Owns no map.  User space turns the .eh_frame of mapped files into rows, for 4-KiB pages of code that were met; see
 * pyflame_ebpf/unwind/rows.py. */
#ifndef PYFLAME_NATIVE_STACK_H
#define PYFLAME_NATIVE_STACK_H

#include "cpython_stack.h" /* pf_ functions */
#include "sample.h"
#include "x86_64.h"

/* Registers of the frame being unwound, and where its code is. */
struct native_walk {
    pf_u64 ip;
    pf_u64 sp;
    pf_u64 bp;
    pf_u64 exact;    /* 1: ip was interrupted, 0: it is a return address, which may lie behind its function */
    pf_u64 callee_exact; /* exact of the frame that this one called */
    pf_u64 outcome;  /* enum native_outcome */
    pf_u64 cfa;      /* of native_common_step */
    pf_u64 words;    /* ... and how many words below the CFA it read */
    pf_u64 saved[PF_SAVED_WORDS]; /* memory below the CFA */
    pf_u64 interrupted[PF_OTHER_END]; /* registers of the innermost frame, or of one that a signal interrupted */
    struct unwind_page_key page; /* keys of lookups: the verifier knows nothing of what is here */
    pf_u32 chunk;
    pf_u32 reserved;
    struct unwind_row row;
};

/* The only mapping that can hold an address. */
PF_INLINE const struct mapping *native_mapping(const struct process_mappings *mappings, pf_u64 address)
{
    pf_u64 index = 0;
#pragma unroll
    for (pf_u64 step = PF_MAPPINGS / 2; step; step /= 2)
        index += step & pf_at_most(mappings->mapping[pf_masked(index + step, PF_MAPPINGS - 1)].start, address);
    return &mappings->mapping[pf_masked(index, PF_MAPPINGS - 1)];
}

/* The key of an address's page of rows; all code without unwind data shares page 0 of file 0. */
PF_INLINE void native_page_key(struct unwind_page_key *key, const struct mapping *mapping, pf_u64 in_image)
{
    key->file = mapping->file;
    key->page = pf_selected(pf_at_most(mapping->file, 0), in_image >> 12, 0);
}

/* The index of the chunk that holds the row for an offset in the page. */
PF_INLINE pf_u64 native_chunk(const struct unwind_page *page, pf_u64 offset)
{
    pf_u64 chunk = page->chunk;
#pragma unroll
    for (int i = 1; i < PF_UNWIND_CHUNKS; i++)
        chunk -= pf_at_most(page->first[i], offset);
    return chunk;
}

/* The row of a chunk that holds for an offset in the page. */
PF_INLINE const struct unwind_row *native_row(const struct unwind_chunk *chunk, pf_u64 offset)
{
    pf_u64 index = 0;
#pragma unroll
    for (pf_u64 step = PF_UNWIND_CHUNK_ROWS / 2; step; step /= 2)
        index += step & pf_at_most(chunk->row[pf_masked(index + step, PF_UNWIND_CHUNK_ROWS - 1)].start, offset);
    return &chunk->row[pf_masked(index, PF_UNWIND_CHUNK_ROWS - 1)];
}

enum native_step {
    PF_STEP_CALLER = 0,  /* the walk holds the caller's registers */
    PF_STEP_END = 1,     /* walk->outcome says why */
};

PF_INLINE int native_end(struct native_walk *walk, pf_u64 outcome)
{
    walk->outcome = outcome;
    return PF_STEP_END;
}

/* Whether a frame cannot end there, because it is not above the stack pointer or not aligned. */
PF_INLINE int native_no_end(const struct native_walk *walk, pf_u64 cfa)
{
    return pf_at_most(cfa, walk->sp) || (cfa & 7);
}

/* Whether a return address is not in user space; 0 is the root's, and allowed. */
PF_INLINE int native_no_return(pf_u64 ip)
{
    return ip && pf_at_most(ip, 0);
}

/* Where the frame ends from which a step was made; 0 if the step led nowhere, for then it is not known. */
PF_INLINE pf_u64 native_frame_end(const struct native_walk *walk, int step)
{
    return step == PF_STEP_CALLER || walk->outcome == PF_NATIVE_COMPLETE ? walk->sp : 0;
}

/* Goes on to a caller whose frame ends at cfa. */
PF_INLINE int native_caller(struct native_walk *walk, pf_u64 cfa, pf_u64 ip, pf_u64 bp)
{
    if (native_no_end(walk, cfa))
        return native_end(walk, PF_NATIVE_NOT_ADVANCING);
    if (native_no_return(ip))
        return native_end(walk, PF_NATIVE_UNREADABLE);
    walk->sp = cfa;
    walk->ip = ip;
    walk->bp = bp;
    walk->callee_exact = walk->exact;
    walk->exact = 0;
    return ip ? PF_STEP_CALLER : native_end(walk, PF_NATIVE_COMPLETE);
}

/* The address by which a frame's code is looked up. */
PF_INLINE pf_u64 native_address(const struct native_walk *walk)
{
    return walk->ip - 1 + walk->exact;
}

/* Whether the row is of a rare kind.  Nearly all code has its CFA relative to rsp or rbp, and the caller's rbp
 * unchanged or saved not far below the CFA. */
PF_INLINE int native_is_rare(const struct native_walk *walk)
{
    pf_u64 from_bp = (pf_u64)(walk->row.kind & 15) - PF_CFA_RSP, saved = walk->row.kind >> 4;
    return (from_bp | saved) > 1;
}

/* Goes on to the caller by a row that is not rare.  Returns not 0 if there is none; native_common_end says why. */
PF_INLINE pf_u64 native_common_step(struct native_walk *walk)
{
    pf_u64 saved = -(pf_u64)(walk->row.kind >> 4), place = (pf_u64)(long long)walk->row.rbp_offset;
    pf_u64 sp = walk->sp, bp = walk->bp;
    pf_u64 from_bp = PF_CFA_RSP - (pf_u64)(walk->row.kind & 15);
    pf_u64 cfa = pf_selected(from_bp, sp, bp) + (pf_u64)(long long)walk->row.cfa_offset;

    /* One read, from the caller's rbp, if it was saved, to the return address; zeros if it fails.  Not from further
     * down: memory that is not the frame's may be on a page that was never touched. */
    pf_u64 words = pf_masked(pf_selected(saved, 1, -place), PF_SAVED_WORDS - 1);
    PF_READ_USER(walk->saved, words * 8, cfa - words * 8);
    pf_u64 ip = walk->saved[pf_masked(words - 1, PF_SAVED_WORDS - 1)];
    pf_u64 failed = ((pf_at_most(cfa, sp) | pf_at_most(ip, 0)) & 1) | (cfa & 7);
    walk->cfa = cfa;
    walk->words = words;
    walk->sp = pf_selected(pf_at_most(failed, 0), sp, cfa);
    walk->bp = pf_selected(saved, bp, walk->saved[0]);
    walk->ip = ip;
    walk->callee_exact = walk->exact;
    walk->exact = 0;
    return failed;
}

/* Why native_common_step found no caller. */
PF_INLINE void native_common_end(struct native_walk *walk)
{
    pf_u64 cfa = walk->cfa, size = pf_masked(walk->words, PF_SAVED_WORDS - 1) * 8;
    walk->outcome = walk->page.file ? PF_NATIVE_UNREADABLE : PF_NATIVE_NO_UNWIND_DATA;
    if (PF_READ_USER(walk->saved, size, cfa - size))
        return;
    if (native_no_end(walk, cfa)) {
        walk->outcome = walk->page.file ? PF_NATIVE_NOT_ADVANCING : PF_NATIVE_NO_UNWIND_DATA;
    } else if (!walk->ip) {
        walk->sp = cfa;
        walk->outcome = PF_NATIVE_COMPLETE;
    }
}

/* The registers that the kernel saved for a signal handler, from the saved rsp: gregs[] of ucontext_t. */
PF_INLINE int native_signal_step(struct native_walk *walk)
{
    pf_u64 place = walk->sp + (pf_u64)(long long)walk->row.cfa_offset;
    pf_u64 sp = pf_read_pointer(place), ip = pf_read_pointer(place + 8);
    if (!ip || PF_READ_USER(walk->interrupted, sizeof(walk->interrupted), place - sizeof(walk->interrupted)))
        return native_end(walk, PF_NATIVE_UNREADABLE);
    walk->bp = walk->interrupted[PF_OTHER_RBP];
    walk->sp = sp; /* may be lower: the handler may have run on a stack of its own */
    walk->ip = ip;
    walk->callee_exact = 0;
    walk->exact = 1;
    return PF_STEP_CALLER;
}

/* Whether a register still has the value with which the thread was interrupted.  It has in the frame that was
 * interrupted; scratch registers have in its caller too, for only assembly that knows its callee keeps its frame in one
 * over a call. */
PF_INLINE int native_knows(const struct native_walk *walk, pf_u64 other)
{
    return walk->exact | (walk->callee_exact & (PF_SCRATCH_REGISTERS >> other));
}

/* A word of the stack; sets ``failed`` if it cannot be read. */
PF_INLINE pf_u64 native_word(pf_u64 address, int *failed)
{
    pf_u64 value = 0;
    if (PF_READ_USER(&value, sizeof(value), address))
        *failed = 1;
    return value;
}

/* Goes on to the caller by a row of any kind but PF_CFA_NONE. */
PF_INLINE int native_rare_step(struct native_walk *walk)
{
    int failed = 0;
    pf_u64 kind = walk->row.kind & 15, saved = walk->row.kind >> 4, bp = walk->bp, cfa, ip;
    pf_u64 offset = (pf_u64)(long long)walk->row.cfa_offset, other = offset & 15;

    if (kind == PF_CFA_ROOT)
        return native_end(walk, PF_NATIVE_COMPLETE);
    if (kind == PF_CFA_SIGNAL)
        return native_signal_step(walk);
    if (kind == PF_CFA_RSP)
        cfa = walk->sp + offset;
    else if (kind == PF_CFA_RBP)
        cfa = bp + offset;
    else if (kind == PF_CFA_PLT)
        cfa = walk->sp + 8 + ((int)(walk->ip & 15) >= walk->row.cfa_offset ? 8 : 0);
    else if (kind == PF_CFA_RBP_DEREF)
        cfa = native_word(bp + offset, &failed);
    else if (kind == PF_CFA_RSP_DEREF_PLUS || kind == PF_CFA_RBP_DEREF_PLUS)
        cfa = native_word((kind == PF_CFA_RSP_DEREF_PLUS ? walk->sp : bp) + (pf_u64)(long long)(short)offset, &failed) +
              (pf_u64)((long long)offset >> 16);
    else if (kind == PF_CFA_REGISTER && other < PF_OTHER_END && native_knows(walk, other))
        cfa = walk->interrupted[other] + (pf_u64)((long long)offset >> 4);
    else if (kind == PF_CFA_INDEXED && other < PF_OTHER_END && native_knows(walk, other))
        cfa = native_word(walk->sp + 8 * walk->interrupted[other] + (offset >> 4 & 0xfff), &failed) +
              (pf_u64)((long long)offset >> 16);
    else
        return native_end(walk, kind == PF_CFA_NONE ? PF_NATIVE_NO_UNWIND_DATA : PF_NATIVE_UNSUPPORTED);
    pf_u64 at = (pf_u64)((long long)walk->row.rbp_offset * 8);
    if (saved == PF_RBP_BELOW_CFA || saved == PF_RBP_AT_CFA)
        bp = native_word(cfa + at, &failed);
    else if (saved == PF_RBP_AT_RBP)
        bp = native_word(bp + at, &failed);
    else if (saved == PF_RBP_AT_RSP)
        bp = native_word(walk->sp + at, &failed);
    else if (saved == PF_RBP_UNKNOWN)
        bp = 0;
    ip = native_word(cfa - 8, &failed);
    if (failed)
        return native_end(walk, PF_NATIVE_UNREADABLE);
    return native_caller(walk, cfa, ip, bp);
}

/* Code without unwind data (JIT compilers, Go, some assembly): follows rbp if it looks like a frame pointer. */
PF_INLINE int native_frame_pointer_step(struct native_walk *walk)
{
    pf_u64 cfa = walk->bp + 16;
    if (native_no_end(walk, cfa) || PF_READ_USER(walk->saved, 16, walk->bp) || native_no_return(walk->saved[1]))
        return native_end(walk, PF_NATIVE_NO_UNWIND_DATA);
    return native_caller(walk, cfa, walk->saved[1], walk->saved[0]);
}

#endif
