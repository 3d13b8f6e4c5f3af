/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * x86-64's registers: where the kernel keeps a thread's, and which of them the native walk starts with.
 *
 * Owns no map.  The rows of native_stack.h and `enum other_register` of sample.h are x86-64's too. */
#ifndef PYFLAME_X86_64_H
#define PYFLAME_X86_64_H

#include "sample.h"

/* struct pt_regs, which is the same in all kernels: it begins struct bpf_perf_event_data of the kernel's user API. */
struct saved_registers {
    pf_u64 r15, r14, r13, r12, bp, bx, r11, r10, r9, r8, ax, cx, dx, si, di, orig_ax, ip, cs, flags, sp, ss;
};

/* struct bpf_perf_event_data: what the tick interrupted. */
struct tick_context {
    struct saved_registers registers;
    pf_u64 sample_period;
    pf_u64 addr;
};

/* Whether these are registers of user space, which runs at privilege level 3. */
#define PF_OF_USER_SPACE(registers) (((registers)->cs & 3) == 3)

/* pthread_self() of a task: glibc and musl keep it in the base of the fs segment. */
#define PF_THREAD_POINTER(task) pf_kernel_u64((task) + PF_TASK_FSBASE)

/* Registers that a function may change: r8 to r11, rdi, rsi, rdx, rax and rcx as bits of enum other_register. */
#define PF_SCRATCH_REGISTERS 0x730f

#ifdef PF_TASK_PT_REGS
/* Helpers by number, since the oldest bcc that is supported does not name them (include/uapi/linux/bpf.h). */
static void *(*pf_get_current_task_btf)(void) = (void *)158;
static void *(*pf_task_pt_regs)(void *) = (void *)175;
#define PF_ENTRY_REGISTERS() pf_task_pt_regs(pf_get_current_task_btf())
#else
/* Up to Linux 5.14 no helper says where they are.  THREAD_SIZE is a macro, so BTF does not have it: 16 KiB without
 * KASAN.  They end where the stack does. */
#define PF_KERNEL_STACK_SIZE 16384
#define PF_ENTRY_REGISTERS()                                                     \
    (pf_kernel_u64(bpf_get_current_task() + PF_TASK_STACK) + PF_KERNEL_STACK_SIZE - \
     sizeof(struct saved_registers))
#endif

/* Copies registers into the walk.  A macro, used once for each source, with accesses that the compiler must not merge:
 * the verifier refuses a pointer that may be the context's or a map's. */
#define PF_KEEP_REGISTERS(walk, registers)                   \
    do {                                                     \
        volatile struct saved_registers *now = (registers);  \
        pf_u64 *kept = (walk)->interrupted;                  \
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

#endif
