"""What the programs are told of the kernel that they run on."""

from __future__ import annotations

import pytest

from pyflame_ebpf.host.btf import Btf, NoBtf
from pyflame_ebpf.sampling.kernel_flags import KERNEL_OFFSETS, kernel_flags

HELPERS = {"BPF_FUNC_task_pt_regs", "BPF_FUNC_get_current_task_btf"}


class Kernel(Btf):
    """A kernel with these names, and with all members but those of ``lacks``: each lies at the length of its name."""

    def __init__(self, names: set[str], lacks: str = "") -> None:
        self._names = names
        self._lacks = lacks

    def has_name(self, name: str) -> bool:
        return name in self._names

    def member_offset(self, struct_name: str, path: str) -> int:
        if path == self._lacks:
            raise NoBtf(f"struct {struct_name} has no member {path} in this kernel")
        return len(path)


OFFSETS = [f"-D{name}={len(path)}" for name, (_, path) in KERNEL_OFFSETS.items()]


def test_registers_are_had_from_the_helper_where_there_is_one() -> None:
    assert kernel_flags(Kernel(HELPERS)) == [*OFFSETS, "-DPF_TASK_PT_REGS"]
    assert kernel_flags(Kernel(HELPERS, lacks="stack")) == [*OFFSETS, "-DPF_TASK_PT_REGS"]


@pytest.mark.parametrize("missing", sorted(HELPERS))
def test_registers_are_had_from_the_end_of_the_kernel_stack_otherwise(missing: str) -> None:
    assert kernel_flags(Kernel(HELPERS - {missing})) == [*OFFSETS, "-DPF_TASK_STACK=5"]


def test_a_kernel_that_lacks_a_member_is_refused() -> None:
    with pytest.raises(NoBtf, match="no member live in this kernel"):
        kernel_flags(Kernel(HELPERS, lacks="live"))
