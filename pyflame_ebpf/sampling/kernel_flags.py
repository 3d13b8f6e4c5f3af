"""What the programs must know of the running kernel, as ``-D`` options for the compiler."""

from __future__ import annotations

from pyflame_ebpf.host.btf import Btf, kernel_btf
from pyflame_ebpf.sampling.x86_64 import REGISTER_OFFSETS, STACK_OFFSETS

KERNEL_OFFSETS = {
    "PF_TASK_GROUP_LEADER": ("task_struct", "group_leader"),
    "PF_TASK_START_BOOTTIME": ("task_struct", "start_boottime"),
    "PF_TASK_TGID": ("task_struct", "tgid"),
    "PF_TASK_SELF_EXEC_ID": ("task_struct", "self_exec_id"),
    "PF_TASK_MM": ("task_struct", "mm"),
    "PF_TASK_COMM": ("task_struct", "comm"),
    "PF_TASK_REAL_PARENT": ("task_struct", "real_parent"),
    "PF_TASK_SIGNAL": ("task_struct", "signal"),
    "PF_TASK_SUM_EXEC_RUNTIME": ("task_struct", "se.sum_exec_runtime"),
    "PF_SIGNAL_LIVE": ("signal_struct", "live"),
    "PF_SIGNAL_SUM_SCHED_RUNTIME": ("signal_struct", "sum_sched_runtime"),
    "PF_MM_START_CODE": ("mm_struct", "start_code"),
    "PF_MM_EXE_FILE": ("mm_struct", "exe_file"),
    "PF_FILE_F_INODE": ("file", "f_inode"),
    "PF_INODE_I_INO": ("inode", "i_ino"),
    "PF_INODE_I_SIZE": ("inode", "i_size"),
    "PF_INODE_I_SB": ("inode", "i_sb"),
    "PF_SUPER_BLOCK_S_DEV": ("super_block", "s_dev"),
    **REGISTER_OFFSETS,
}

TASK_PT_REGS = "PF_TASK_PT_REGS"  # defined: the kernel has both helpers
_HELPERS = ("BPF_FUNC_task_pt_regs", "BPF_FUNC_get_current_task_btf")  # Linux 5.15 and 5.11, enum bpf_func_id


def kernel_flags(btf: Btf | None = None) -> list[str]:
    """The places of kernel struct members, by default the running kernel's, and which helpers it has.

    Raises NoBtf if the kernel publishes no type information or lacks a member.
    """
    btf = btf or kernel_btf()
    flags = [f"-D{name}={btf.member_offset(*member)}" for name, member in KERNEL_OFFSETS.items()]
    if all(btf.has_name(helper) for helper in _HELPERS):
        return [*flags, f"-D{TASK_PT_REGS}"]
    return flags + [f"-D{name}={btf.member_offset(*member)}" for name, member in STACK_OFFSETS.items()]
