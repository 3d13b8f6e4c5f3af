/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0)
 *
 * What the kernel knows of a process: its identity, its executable, and from that the interpreter's place.
 *
 * Owns no map.  Offsets into kernel structs come from the kernel's own BTF as -D constants
 * (pyflame_ebpf/sampling/kernel_flags.py).  A process that lives 30 ms is over before user space has read its maps.
 * But if the executable file is known from an earlier process, the interpreter's addresses follow from mm->start_code
 * and, for an interpreter in a shared library, from the dynamic linker's list of loaded files (struct r_debug and
 * link_map of <link.h>, found by DT_DEBUG). */
#ifndef PYFLAME_PROCESS_IMAGE_H
#define PYFLAME_PROCESS_IMAGE_H

#include "sample.h"

#define PF_LINK_MAP_STEPS 32 /* libraries looked at; those that the program itself names come first */

struct link_map { /* the public part of <link.h>'s, the same in glibc and musl */
    pf_u64 l_addr;
    pf_u64 l_name;
    pf_u64 l_ld;
    pf_u64 l_next;
};
#define PF_R_DEBUG_MAP 8 /* offsetof(struct r_debug, r_map) */

PF_INLINE pf_u64 pf_kernel_u64(pf_u64 address)
{
    pf_u64 value = 0;
    PF_READ_KERNEL(&value, sizeof(value), address);
    return value;
}

PF_INLINE pf_u32 pf_kernel_u32(pf_u64 address)
{
    pf_u32 value = 0;
    PF_READ_KERNEL(&value, sizeof(value), address);
    return value;
}

/* Reads when the first thread of a task's process started, in ns since boot. */
PF_INLINE pf_u64 pf_read_start(pf_u64 task)
{
    return pf_kernel_u64(pf_kernel_u64(task + PF_TASK_GROUP_LEADER) + PF_TASK_START_BOOTTIME);
}

/* Reads the identity, which stays the same while the process runs one program, and no longer. */
PF_INLINE void pf_read_identity(pf_u64 task, struct process_identity *identity)
{
    identity->start = pf_read_start(task);
    identity->tgid = pf_kernel_u32(task + PF_TASK_TGID);
    identity->exec_id = pf_kernel_u32(task + PF_TASK_SELF_EXEC_ID);
}

/* Reads the process's executable file and the address of its code; all 0 for a kernel thread. */
PF_INLINE void pf_read_executable(pf_u64 task, struct file_key *file, pf_u64 *start_code)
{
    file->inode = 0;
    file->device = file->size = 0;
    *start_code = 0;
    pf_u64 mm = pf_kernel_u64(task + PF_TASK_MM);
    if (!mm)
        return;
    *start_code = pf_kernel_u64(mm + PF_MM_START_CODE);
    pf_u64 inode = pf_kernel_u64(pf_kernel_u64(mm + PF_MM_EXE_FILE) + PF_FILE_F_INODE);
    file->inode = pf_kernel_u64(inode + PF_INODE_I_INO);
    file->size = pf_kernel_u32(inode + PF_INODE_I_SIZE);
    file->device = pf_kernel_u32(pf_kernel_u64(inode + PF_INODE_I_SB) + PF_SUPER_BLOCK_S_DEV);
}

/* The bias at which the file that holds the interpreter was loaded; -1 if it is not loaded (yet). */
PF_INLINE pf_u64 pf_interpreter_bias(const struct executable_entry *executable, pf_u64 start_code)
{
    pf_u64 bias = start_code - executable->text;
    if (!executable->debug_entry)
        return bias;
    pf_u64 debug = pf_read_pointer(bias + executable->debug_entry);
    if (!debug)
        return -1;
    pf_u64 next = pf_read_pointer(debug + PF_R_DEBUG_MAP);
    for (int step = 0; step < PF_LINK_MAP_STEPS && next; step++) {
        struct link_map map;
        if (PF_READ_USER(&map, sizeof(map), next))
            return -1;
        if (map.l_ld - map.l_addr == executable->library_dynamic)
            return map.l_addr;
        next = map.l_next;
    }
    return -1;
}

/* Fills in a process entry from what is known of its executable.  Returns 0 if the interpreter was found. */
PF_INLINE int pf_identify(const struct executable_entry *executable, pf_u64 start_code, struct process_entry *entry)
{
    pf_u64 bias = pf_interpreter_bias(executable, start_code);
    if (bias == (pf_u64)-1)
        return -1;
    /* A note on a page that is not resident goes unchecked: the executable and the place of the library's dynamic
     * section have agreed already. */
    pf_u64 build_id;
    if (executable->build_id && !PF_READ_USER(&build_id, 8, bias + executable->build_id) &&
        build_id != executable->build_id_start)
        return -1;
    entry->interpreters_head = executable->interpreters_head ? bias + executable->interpreters_head : 0;
    entry->tstate_current = executable->tstate_current ? bias + executable->tstate_current : 0;
    entry->layout = executable->layout;
    entry->state = PF_PROCESS_PYTHON;
    return 0;
}

#endif
