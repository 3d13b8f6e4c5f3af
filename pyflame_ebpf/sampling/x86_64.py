"""x86-64's own numbers on the way to the kernel; arm64's would stand in a module beside this one."""

from __future__ import annotations

SYS_PERF_EVENT_OPEN = 298  # arch/x86/entry/syscalls/syscall_64.tbl

# -D name → (struct, member): where the kernel keeps a thread's registers (bpf/x86_64.h).
REGISTER_OFFSETS = {
    "PF_TASK_FSBASE": ("task_struct", "thread.fsbase"),
}
# ... in kernels that have no helper for it.
STACK_OFFSETS = {
    "PF_TASK_STACK": ("task_struct", "stack"),
}
