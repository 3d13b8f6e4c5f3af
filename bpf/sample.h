/* The contract between the BPF programs and user space: structs, enums and limits, and nothing else.
 *
 * Includes nothing, so that clang under bcc, gcc in the tests and the ctypes mirror in pyflame_ebpf/bpf_abi.py
 * can all take it as it stands.  Every struct is laid out without implicit padding; a test compares each size,
 * offset and enum value with the mirror. */
#ifndef PYFLAME_SAMPLE_H
#define PYFLAME_SAMPLE_H

typedef unsigned char pf_u8;
typedef unsigned short pf_u16;
typedef unsigned int pf_u32;
typedef unsigned long long pf_u64;

#define PF_OFFSET_NONE 0xffff /* this release has no such field */

/* How a frame says where it is in its code (cpython_layout.instruction_kind). */
enum instruction_kind {
    PF_LASTI_BYTES = 0,  /* f_lasti: int, bytes; up to 3.9 */
    PF_LASTI_UNITS = 1,  /* f_lasti: int, 2-byte code units; 3.10 */
    PF_PREV_INSTR = 2,   /* prev_instr: pointer to the last executed code unit; 3.11, 3.12 */
    PF_INSTR_PTR = 3,    /* instr_ptr: pointer to the code unit being executed; 3.13 and later */
};

/* Which thread holds the GIL (cpython_layout.gil_kind). */
enum gil_kind {
    PF_GIL_UNKNOWN = 0,
    PF_GIL_TSTATE_CURRENT = 1,  /* a global pointer to the holder; up to 3.11 */
    PF_GIL_INTERPRETER = 2,     /* interp->ceval.gil->{last_holder,locked}; 3.12, 3.13 */
    PF_GIL_THREAD_FLAG = 3,     /* tstate->holds_gil; 3.14 and later */
};

/* Where one build of CPython keeps what the walker reads.  Offsets are bytes from the start of the named struct. */
struct cpython_layout {
    pf_u16 version;               /* major << 8 | minor: 0x030c is 3.12 */
    pf_u8 instruction_kind;       /* enum instruction_kind */
    pf_u8 gil_kind;               /* enum gil_kind */

    pf_u16 interp_next;           /* PyInterpreterState */
    pf_u16 interp_threads_head;
    pf_u16 interp_gil;            /* pointer to struct _gil_runtime_state */
    pf_u16 gil_last_holder;       /* struct _gil_runtime_state */
    pf_u16 gil_locked;

    pf_u16 tstate_prev;           /* PyThreadState */
    pf_u16 tstate_next;
    pf_u16 tstate_interp;
    pf_u16 tstate_thread_id;
    pf_u16 tstate_frame;          /* frame, cframe or current_frame */
    pf_u16 tstate_active;         /* 4-byte word, not zero while attached: 3.12 _status.active, 3.13+ state */
    pf_u16 tstate_active_mask;    /* the bits of that word that mean attached */
    pf_u16 tstate_holds_gil;
    pf_u16 cframe_current_frame;  /* CFrame; PF_OFFSET_NONE: tstate_frame is the frame itself */

    pf_u16 frame_size;            /* bytes of a frame that hold all of the fields below, at most PF_FRAME_READ_MAX */
    pf_u16 frame_previous;        /* PyFrameObject or _PyInterpreterFrame */
    pf_u16 frame_code;
    pf_u16 frame_instruction;
    pf_u16 frame_owner;           /* PF_OFFSET_NONE before 3.12 */
    pf_u8 frame_owner_shim;       /* an owner of this value or more is not a Python frame */
    pf_u8 frame_code_tag_mask;    /* low bits of frame_code that are not address */
    pf_u16 frame_is_entry;        /* 3.11 */
    pf_u16 frame_tlbc_index;      /* free-threaded 3.14 and later */

    pf_u16 code_identity;         /* PyCodeObject: start of PF_CODE_IDENTITY_SIZE bytes that tell codes apart */
    pf_u16 code_first_line;
    pf_u16 code_filename;
    pf_u16 code_name;             /* co_qualname where there is one, else co_name */
    pf_u16 code_line_table;
    pf_u16 code_instructions;     /* co_code_adaptive, the base of PF_PREV_INSTR and PF_INSTR_PTR */
    pf_u16 code_first_traceable;  /* _co_firsttraceable; 3.11 and later */
    pf_u16 code_tlbc;             /* co_tlbc; free-threaded 3.14 and later */

    pf_u16 str_length;            /* PyASCIIObject */
    pf_u16 str_state;             /* the one byte that holds the three bit fields below */
    pf_u8 str_kind_shift;         /* 3 bits */
    pf_u8 str_compact_shift;      /* 1 bit */
    pf_u8 str_ascii_shift;        /* 1 bit */
    pf_u8 bytes_value;            /* PyBytesObject.ob_sval */
    pf_u16 str_ascii_data;        /* sizeof(PyASCIIObject) */
    pf_u16 str_compact_data;      /* sizeof(PyCompactUnicodeObject) */
    pf_u16 bytes_size;            /* PyBytesObject.ob_size */
    pf_u16 reserved;
};

#define PF_FRAME_READ_MAX 128
#define PF_CODE_IDENTITY_SIZE 96

#endif
