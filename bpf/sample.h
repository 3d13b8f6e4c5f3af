/* SPDX-License-Identifier: (GPL-2.0-only OR Apache-2.0) */
/* The contract between the BPF programs and user space: structs, enums and limits, and nothing else.
 *
 * Includes nothing, so that clang under bcc and gcc in the tests take it as it stands.  No struct has implicit padding.
 * The enumerators of one enum share a prefix that no other name has, _END is one more than the last.  A test compares
 * each size, offset and value with the ctypes mirror in pyflame_ebpf/sampling/abi.py. */
#ifndef PYFLAME_SAMPLE_H
#define PYFLAME_SAMPLE_H

typedef unsigned char pf_u8;
typedef unsigned short pf_u16;
typedef unsigned int pf_u32;
typedef unsigned long long pf_u64;

#define PF_OFFSET_NONE 0xffff /* this release has no such field */

/* How a frame says where it is in its code (CPythonLayout.instruction_kind). */
enum instruction_kind {
    PF_INSTRUCTION_LASTI_BYTES = 0, /* f_lasti: int, bytes; up to 3.9 */
    PF_INSTRUCTION_LASTI_UNITS = 1, /* f_lasti: int, 2-byte code units; 3.10 */
    PF_INSTRUCTION_PREV_INSTR = 2,  /* prev_instr: pointer to the last executed code unit; 3.11, 3.12 */
    PF_INSTRUCTION_INSTR_PTR = 3,   /* instr_ptr: pointer to the code unit being executed; 3.13 and later */
};

/* Which thread holds the GIL (CPythonLayout.gil_kind). */
enum gil_kind {
    PF_GIL_KIND_UNKNOWN = 0,
    PF_GIL_KIND_TSTATE_CURRENT = 1, /* a global pointer to the holder; up to 3.11 */
    PF_GIL_KIND_INTERPRETER = 2,    /* interp->ceval.gil->{last_holder,locked}; 3.12, 3.13 */
    PF_GIL_KIND_THREAD_FLAG = 3,    /* tstate->holds_gil; 3.14 and later */
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

    pf_u16 frame_size;            /* bytes of a frame that hold all fields below, at most PF_FRAME_READ_MAX */
    pf_u16 frame_previous;        /* PyFrameObject or _PyInterpreterFrame */
    pf_u16 frame_code;
    pf_u16 frame_instruction;
    pf_u16 frame_owner;           /* one byte */
    pf_u16 frame_owner_shim;      /* an owner of this value or more is not a Python frame; 256: there are none */
    pf_u16 frame_code_tag_mask;   /* low bits of frame_code that are not address */
    pf_u16 frame_is_entry;        /* one byte, 3.11 */
    pf_u8 frame_is_entry_mask;    /* 1: that byte tells whether a call of the evaluation loop began with the frame */
    pf_u8 frame_always_entry;     /* 1: every frame has a call of its own; up to 3.10 */

    pf_u16 code_identity;         /* PyCodeObject: start of PF_CODE_IDENTITY_SIZE bytes that tell codes apart */
    pf_u16 code_first_line;
    pf_u16 code_filename;
    pf_u16 code_name;             /* co_qualname where there is one, else co_name */
    pf_u16 code_line_table;
    pf_u16 code_instructions;     /* co_code_adaptive, which prev_instr and instr_ptr point into */

    pf_u16 str_length;            /* PyASCIIObject */
    pf_u16 str_state;             /* the one byte that holds the three bit fields below */
    pf_u8 str_kind_shift;         /* 3 bits */
    pf_u8 str_compact_shift;      /* 1 bit */
    pf_u8 str_ascii_shift;        /* 1 bit */
    pf_u8 bytes_value;            /* PyBytesObject.ob_sval */
    pf_u16 str_ascii_data;        /* sizeof(PyASCIIObject) */
    pf_u16 str_compact_data;      /* sizeof(PyCompactUnicodeObject) */
    pf_u16 bytes_size;            /* PyBytesObject.ob_size */
};

#define PF_FRAME_READ_MAX 128
#define PF_CODE_IDENTITY_SIZE 96
#define PF_THREAD_STATE_READ 256 /* bytes from the start of PyThreadState that hold every field above */
#define PF_MAX_LAYOUTS 256
#define PF_COMM_SIZE 16

/* ---- the stages of a sample, and how it ended ---- */

/* Each is a program, stage_NAME, that the one before reaches by a tail call. */
enum stage {
    PF_STAGE_PROCESS = 0,
    PF_STAGE_THREAD = 1,
    PF_STAGE_SEARCH = 2,
    PF_STAGE_WALK = 3,
    PF_STAGE_NATIVE = 4,
    PF_STAGE_UNWIND = 5,
    PF_STAGE_RARE = 6,
    PF_STAGE_FINISH = 7,
    PF_STAGE_NEW_STACK = 8,
    PF_STAGE_CODES = 9,
    PF_STAGE_SEND = 10,
    PF_STAGE_COPY = 11,
    PF_STAGE_END = 12,
};

enum outcome {
    PF_OUTCOME_COMPLETE = 0,         /* a Python stack, from the thread's entry to its leaf */
    PF_OUTCOME_NOT_PYTHON = 1,       /* no interpreter here, or this thread runs no Python code */
    PF_OUTCOME_NOT_IDENTIFIED = 2,   /* user space has not said yet whether this process is Python */
    PF_OUTCOME_NO_THREAD_STATE = 3,  /* the interpreter's list of threads is too long, or could not be read */
    PF_OUTCOME_UNREADABLE_THREAD_STATE = 4,
    PF_OUTCOME_UNREADABLE_FRAME = 5, /* the frames below it are missing */
    PF_OUTCOME_UNREADABLE_CODE = 6,  /* one frame or more has no name */
    PF_OUTCOME_TOO_DEEP = 7,         /* more than PF_MAX_PYTHON_FRAMES; the outermost are missing */
    PF_OUTCOME_END = 8,
};

/* How the walk through the native frames ended. */
enum native_outcome {
    PF_NATIVE_COMPLETE = 0,       /* at the thread's root */
    PF_NATIVE_NONE = 1,           /* not walked: a kernel thread, or native frames were not asked for */
    PF_NATIVE_NO_MAPPING = 2,     /* user space has not sent the mapping of an address (yet) */
    PF_NATIVE_PAGE_MISS = 3,      /* user space has not sent the rows of a page yet */
    PF_NATIVE_NO_UNWIND_DATA = 4, /* code without .eh_frame, and no frame pointer there */
    PF_NATIVE_UNSUPPORTED = 5,    /* an expression or register that rows cannot state */
    PF_NATIVE_UNREADABLE = 6,
    PF_NATIVE_NOT_ADVANCING = 7,
    PF_NATIVE_TOO_DEEP = 8,
};

enum gil_state {
    PF_GIL_STATE_UNKNOWN = 0,
    PF_GIL_STATE_HELD = 1,
    PF_GIL_STATE_NOT_HELD = 2,
};

enum frame_kind {
    PF_FRAME_KERNEL = 0,
    PF_FRAME_NATIVE = 1,
    PF_FRAME_PYTHON = 2,
    PF_FRAME_BOUNDARY = 3,   /* not a frame: here a call of the evaluation loop began */
};

#define PF_FRAME_ENTRY 0x100 /* with PF_FRAME_PYTHON: a call of the evaluation loop began with this frame */

/* One frame of a stack.  Kernel and native: the address.  Python: the code object and the place in it. */
struct stack_frame {
    pf_u64 address;   /* instruction, or code object; boundary: its place on the C stack, 0: unknown */
    pf_u64 code_id;   /* native: where its frame ends (CFA).  Python: hash of the process, and of the code object's
                       * address and contents, 0: unreadable */
    int position;     /* Python: f_lasti, or prev_instr or instr_ptr less the code object's address */
    pf_u32 kind;      /* enum frame_kind */
};

#define PF_MAX_KERNEL_FRAMES 127   /* what bpf_get_stack gives */
#define PF_MAX_PYTHON_FRAMES 2048  /* boundaries among them */
#define PF_MAX_NATIVE_FRAMES 8704  /* 500 calls of Python from C take some 8,000 in CPython 3.6 */
#define PF_STACK_FRAMES 11520      /* of one stack: the three above, and those that one stage adds before it looks */

/* One run of one program. */
struct process_identity {
    pf_u64 start;     /* ns since boot at which its first thread started */
    pf_u32 tgid;
    pf_u32 exec_id;   /* counts the programs that the process has executed */
};

/* ---- unwinding native frames ---- */

/* How a row finds the canonical frame address (low four bits of kind). */
enum cfa_kind {
    PF_CFA_NONE = 0,        /* no unwind data here */
    PF_CFA_RSP = 1,         /* rsp + offset */
    PF_CFA_RBP = 2,         /* rbp + offset */
    PF_CFA_PLT = 3,         /* a PLT entry: rsp + 8, and 8 more from byte "offset" of the entry on */
    PF_CFA_RBP_DEREF = 4,   /* the pointer at rbp + offset: functions that realign their stack */
    PF_CFA_ROOT = 5,        /* has no caller */
    PF_CFA_SIGNAL = 6,      /* registers are in the frame that the kernel pushed for a signal handler */
    PF_CFA_REGISTER = 7,    /* another register (enum other_register in the low four bits of offset) + offset >> 4 */
    PF_CFA_UNSUPPORTED = 8,
    PF_CFA_RSP_DEREF_PLUS = 9, /* the pointer at rsp + low half of offset, plus its high half: some assembly */
    PF_CFA_RBP_DEREF_PLUS = 10,
    PF_CFA_INDEXED = 11,   /* the pointer at rsp + 8 * register (low 4 bits of offset) + 12 bits, plus the high half */
};

/* Registers by which some code finds its frame: functions that realign or probe their stack, and assembly.  The order
 * is that of gregs[] in <sys/ucontext.h>, in which the kernel saves them for signal handlers. */
enum other_register {
    PF_OTHER_R8 = 0,
    PF_OTHER_R9 = 1,
    PF_OTHER_R10 = 2,
    PF_OTHER_R11 = 3,
    PF_OTHER_R12 = 4,
    PF_OTHER_R13 = 5,
    PF_OTHER_R14 = 6,
    PF_OTHER_R15 = 7,
    PF_OTHER_RDI = 8,
    PF_OTHER_RSI = 9,
    PF_OTHER_RBP = 10,
    PF_OTHER_RBX = 11,
    PF_OTHER_RDX = 12,
    PF_OTHER_RAX = 13,
    PF_OTHER_RCX = 14,
    PF_OTHER_END = 15,
};

/* How a row finds the caller's rbp (high four bits of kind). */
enum rbp_kind {
    PF_RBP_SAME = 0,
    PF_RBP_BELOW_CFA = 1,   /* saved at CFA + 8 * rbp_offset, which is -2 to -127 */
    PF_RBP_AT_RBP = 2,      /* saved at rbp + 8 * rbp_offset */
    PF_RBP_UNKNOWN = 3,
    PF_RBP_AT_RSP = 4,      /* saved at rsp + 8 * rbp_offset */
    PF_RBP_AT_CFA = 5,      /* saved at CFA + 8 * rbp_offset */
};

/* Holds from this offset in its 4-KiB page of code to the next row's. */
struct unwind_row {
    pf_u16 start;
    pf_u8 kind;
    signed char rbp_offset;
    int cfa_offset;
};

#define PF_SAVED_WORDS 128 /* below the CFA, where PF_RBP_BELOW_CFA finds rbp; a power of two */

#define PF_UNWIND_CHUNK_ROWS 64
#define PF_UNWIND_CHUNKS 8          /* of one page */
#define PF_UNWIND_CHUNKS_IN_ALL 24576 /* and one more, of page 0 of file 0: how frame pointers are followed */

struct unwind_chunk {
    struct unwind_row row[PF_UNWIND_CHUNK_ROWS]; /* unused ones start at 0xffff */
};

struct unwind_page_key {
    pf_u32 file;
    pf_u32 page;               /* of the image's addresses */
};

struct unwind_page {
    pf_u32 chunk;              /* index of its first chunk; the others follow */
    pf_u16 reserved[2];
    pf_u16 first[PF_UNWIND_CHUNKS]; /* the start of each chunk's first row, 0xffff where there is none */
};

#define PF_UNWIND_PAGES 16384

/* Executable memory of a process. */
struct mapping {
    pf_u64 start;              /* unused ones: 1 << 62 */
    pf_u64 bias;               /* address less bias is the address in the image */
    pf_u32 pages;
    pf_u32 file;               /* number that user space gave the file, 0: no unwind data */
};

#define PF_MAPPINGS 512        /* of one process */
#define PF_MAPPED_PROCESSES 1024

struct process_mappings {
    struct mapping mapping[PF_MAPPINGS]; /* by rising start */
};

/* ---- maps shared with user space ---- */

enum process_state {
    PF_PROCESS_ANNOUNCED = 0,  /* user space has been told, and has not answered */
    PF_PROCESS_OTHER = 1,      /* not Python, or a Python that cannot be walked */
    PF_PROCESS_PYTHON = 2,
};

struct process_entry {
    struct process_identity identity;
    pf_u64 interpreters_head;  /* address of the pointer to the first PyInterpreterState, 0: unknown */
    pf_u64 tstate_current;     /* address of the pointer to the thread state that holds the GIL, 0: none */
    pf_u32 layout;             /* index into the layouts map */
    pf_u32 state;              /* enum process_state */
    pf_u32 mappings;           /* 1 + index into the mappings map, 0: none yet */
    pf_u32 known;              /* not 0: its executable is in the executables map */
    pf_u32 no_copies;          /* not 0: do not send copies of its stacks, they did not help */
    pf_u32 reserved;
};

/* User space knows when a process started in clock ticks of 10 ms (/proc/PID/stat), the kernel in ns. */
#define PF_START_RESOLUTION 10000000

struct thread_key {
    pf_u32 tgid;
    pf_u32 tid;
};

enum thread_state {
    PF_THREAD_PYTHON = 1,
    PF_THREAD_OTHER = 2,       /* not in the interpreter's list when last looked */
};

struct thread_entry {
    struct process_identity identity;
    pf_u64 task;               /* the kernel's struct: while it is the same, so is the thread */
    pf_u64 thread_state;       /* address of its PyThreadState */
    pf_u64 thread_pointer;     /* fs base, that is pthread_self() */
    pf_u64 gil;                /* address of its struct _gil_runtime_state, 0: none */
    pf_u64 look_again;         /* PF_THREAD_OTHER: ns of the monotonic clock */
    pf_u32 state;
    pf_u32 nested;             /* not 0: the thread has several thread states (subinterpreters) */
};

/* An executable file, as the kernel knows it. */
struct file_key {
    pf_u64 inode;
    pf_u32 device;             /* major << 20 | minor */
    pf_u32 size;               /* lower half of its size: guards against an inode number that is used again */
};

/* How the programs find the interpreter in a process that runs this executable (see process_image.h). */
struct executable_entry {
    pf_u64 text;               /* lowest p_vaddr of an executable segment: mm->start_code is there */
    pf_u64 debug_entry;        /* address of DT_DEBUG's value, 0: the interpreter is in the executable itself */
    pf_u64 library_dynamic;    /* PT_DYNAMIC of the library that holds the interpreter */
    pf_u64 build_id;           /* address of the build id of the file that holds the interpreter, 0: unchecked */
    pf_u64 build_id_start;     /* its first 8 bytes */
    pf_u64 interpreters_head;  /* as in process_entry, before relocation; 0: none */
    pf_u64 tstate_current;
    pf_u32 layout;
    pf_u32 reserved;
};

/* Samples are counted by this key, in the one of two maps that settings.counts names. */
struct count_key {
    struct process_identity identity;
    pf_u64 stack_id;
    pf_u32 tid;
    pf_u8 outcome;             /* enum outcome */
    pf_u8 gil;                 /* enum gil_state */
    pf_u8 kernel_mode;
    pf_u8 native;              /* enum native_outcome */
};

struct settings {
    pf_u32 counts;             /* 0 or 1: the counts map in use */
    pf_u32 ticks;              /* ticks of the recording's frequency that one tick of the clock stands for */
    pf_u64 period;             /* ns between two ticks of the clock on one CPU */
    pf_u64 deadline;           /* ns of the monotonic clock from which on nothing is sampled, 0: none */
    pf_u64 budget;             /* ns that samples of one CPU may take in PF_BUDGET_WINDOW, 0: any time */
};

/* A CPU whose samples take more than their budget walks the stack of every second, fourth, ... tick only, and counts
 * that stack for the ticks passed over too.  So the profiler cannot displace the work that it samples, even where user
 * space does not get a CPU to notice. */
#define PF_BUDGET_WINDOW 1000000000 /* ns */
#define PF_TICK_LONGEST 4000000     /* ns: what a tick takes beyond that a virtual CPU was kept waiting */
#define PF_TICKS_TOGETHER 1048576   /* ticks that one stack can be counted for; at 100 kHz a stack in ten seconds */

/* What the programs count besides the samples of each key: one number per CPU each. */
enum counter {
    PF_COUNTER_TICKS = 0,              /* every tick of the recording's frequency */
    PF_COUNTER_TICKS_IDLE = 1,         /* ... of the idle task */
    PF_COUNTER_TICKS_FILTERED = 2,     /* ... of processes that were not asked for */
    PF_COUNTER_TICKS_MISSED = 3,       /* ... that the kernel skipped because the one before came too late */
    PF_COUNTER_SAMPLES = 4,
    PF_COUNTER_COUNTS_FULL = 5,        /* samples lost: no room in the counts map */
    PF_COUNTER_STACKS_DROPPED = 6,     /* stack records that found the ring buffer full; sent again, unless copied */
    PF_COUNTER_CODES_DROPPED = 7,
    PF_COUNTER_PROCESSES_DROPPED = 8,
    PF_COUNTER_STACKS_UNFINISHED = 9,  /* too many new code objects for one tick; sent again when next met */
    PF_COUNTER_TAIL_CALLS_FAILED = 10, /* samples lost: the kernel refused a tail call */
    PF_COUNTER_IDENTIFIED_IN_KERNEL = 11,
    PF_COUNTER_COPIES_DROPPED = 12,    /* copies of stacks that found their ring buffer full */
    PF_COUNTER_TARGETS_FULL = 13,      /* children that are not followed: no room in the targets map */
    PF_COUNTER_STACKS_WALKED = 14,     /* samples whose own stack was walked; the rest were counted with one of these */
    PF_COUNTER_SAMPLING_NS = 15,       /* time that samples took */
    PF_COUNTER_END = 16,
};

/* ---- records on the ring buffer: each begins with its type ---- */

enum record_type {
    PF_RECORD_PROCESS = 1,
    PF_RECORD_THREAD = 2,
    PF_RECORD_CODE = 3,
    PF_RECORD_STACK = 4,
    PF_RECORD_EXIT = 5,
    PF_RECORD_EXEC = 6,
    PF_RECORD_MISS = 7,
    PF_RECORD_STACK_COPY = 8,
};

/* A process that was met for the first time (PROCESS), or that has just executed another program (EXEC). */
struct process_record {
    pf_u32 type;
    pf_u32 parent;             /* tgid */
    struct process_identity identity;
    struct file_key executable;
    pf_u64 start_code;         /* mm->start_code, 0: kernel thread */
    pf_u64 interpreters_head;  /* as in process_entry, 0: unknown */
    pf_u64 tstate_current;
    pf_u32 state;              /* enum process_state as the kernel side found it */
    pf_u32 layout;
    char comm[PF_COMM_SIZE];
};

struct thread_record {
    pf_u32 type;
    pf_u32 tid;
    struct process_identity identity;
    char comm[PF_COMM_SIZE];
};

/* The native walk met an address without a mapping, or a page without rows. */
struct miss_record {
    pf_u32 type;
    pf_u32 file;               /* 0: no mapping */
    struct process_identity identity;
    pf_u64 address;            /* in the process, or page of the image */
};

/* The last thread of a process has ended. */
struct exit_record {
    pf_u32 type;
    pf_u32 reserved;
    struct process_identity identity;
    pf_u64 cpu;                /* ns that the scheduler charged to all of its threads */
    char comm[PF_COMM_SIZE];
};

struct stack_record {
    pf_u32 type;
    pf_u32 frames;
    struct process_identity identity;
    pf_u64 stack_id;
    pf_u32 unsent;             /* not 0: user space may lack code objects of this stack */
    pf_u32 reserved;
    /* struct stack_frame[frames], leaf first: kernel frames, Python frames and boundaries, native frames */
};

#define PF_STACK_COPY_MAX 32768    /* bytes in one record; several may be of one stack */

/* A stack whose native walk lacked a mapping or rows: the registers with which it stopped, and the memory of the stack
 * from there on, so that user space can finish it.  Its id is unlike that of any other stack. */
struct stack_copy_record {
    pf_u32 type;
    pf_u32 size;               /* bytes behind the record */
    struct process_identity identity;
    pf_u64 stack_id;
    pf_u64 start;              /* address of the first of those bytes */
    pf_u64 ip;                 /* registers of the frame whose caller was not found */
    pf_u64 sp;
    pf_u64 bp;
    pf_u64 interrupted[PF_OTHER_END]; /* this and the two below as in struct native_walk */
    pf_u32 exact;
    pf_u32 callee_exact;
};

/* Parts that a code record lacks; user space reads them from the addresses in it. */
#define PF_CODE_NO_NAME 1
#define PF_CODE_NO_FILE 2
#define PF_CODE_NO_LINE_TABLE 4

struct code_record {
    pf_u32 type;
    pf_u32 layout;
    struct process_identity identity;
    pf_u64 code_id;
    pf_u64 address;
    pf_u64 name;               /* addresses of the objects */
    pf_u64 file;
    pf_u64 line_table;
    pf_u32 first_line;
    pf_u32 missing;            /* PF_CODE_NO_ flags */
    pf_u32 name_size;          /* bytes of each part, in this order behind the record */
    pf_u32 file_size;
    pf_u32 line_table_size;
    pf_u32 reserved;
    /* str object with its characters; str object with its characters; contents of the line table */
};

#define PF_STR_MAX 2048            /* bytes of a str object with its characters; user space reads longer ones */
#define PF_LINE_TABLE_MAX 16384

#endif
