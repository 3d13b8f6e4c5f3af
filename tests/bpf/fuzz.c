/* Walks memory that is made up: must end, stay inside its buffers (the sanitizers watch) and keep its promises.
 *
 *     fuzz LAYOUTS ROUNDS SEED     LAYOUTS: a file of packed struct cpython_layout
 *
 * Prints how often each outcome came up, for the test to see that the rounds went deep enough to mean something. */
#include "harness.c"

#include <stdio.h>

#define MEMORY 8192
#define MAX_LAYOUTS 64

static unsigned long long state;

static unsigned long long random_word(void) /* xorshift64, Marsaglia 2003 */
{
    state ^= state << 13;
    state ^= state >> 7;
    state ^= state << 17;
    return state;
}

/* Words of the kinds that structures hold: pointers, small numbers, zeros, and anything. */
static unsigned long long likely_word(void)
{
    unsigned long long word = random_word();
    switch (word >> 61) {
    case 0:
        return word;
    case 1:
        return 0;
    case 2:
        return word & 0xff;
    case 3:
        return word & 0xfff;
    case 4:
        return word & 0xff000000ffULL; /* two 4-byte numbers */
    default:
        return (word & 0xffff8) + 0x7f0000000000ULL;
    }
}

static void require(int promise, const char *what)
{
    if (promise)
        return;
    fprintf(stderr, "broken: %s\n", what);
    exit(1);
}

/* Any offsets at all; the shifts are those that cpython_layout gives, since larger ones are not C. */
static void scramble(struct cpython_layout *layout)
{
    for (size_t i = 0; i < sizeof(*layout); i++)
        if (random_word() & 1)
            ((unsigned char *)layout)[i] = random_word();
    layout->str_kind_shift &= 7;
    layout->str_compact_shift &= 7;
    layout->str_ascii_shift &= 7;
    layout->frame_is_entry_mask &= 1;
    layout->frame_always_entry &= 1;
}

static void walk(const struct cpython_layout *layout, unsigned long *outcomes, unsigned long *kinds)
{
    struct cpython_walk walk;
    struct stack_frame *frames = malloc(PF_STACK_FRAMES * sizeof(*frames));
    int more = harness_walk_from(layout, likely_word(), random_word(), &walk, frames);

    require(!more, "a walk within the limit of tail calls");
    require(walk.depth <= PF_MAX_PYTHON_FRAMES, "depth");
    require(walk.outcome < PF_OUTCOME_END, "outcome");
    require(memory.reads <= 2 * TAIL_CALLS * PF_FRAME_STEPS, "reads of a walk");
    for (unsigned long i = 0; i < walk.depth; i++) {
        unsigned kind = frames[i].kind;
        int boundary = kind == PF_FRAME_BOUNDARY, entry = kind == (PF_FRAME_PYTHON | PF_FRAME_ENTRY);
        require(boundary || entry || kind == PF_FRAME_PYTHON, "kind of a frame");
        require(!boundary || !frames[i].code_id, "a boundary has no code");
        kinds[boundary ? 2 : entry]++;
    }
    outcomes[walk.outcome]++;
    free(frames);
}

static void find(const struct cpython_layout *layout, unsigned long *results, unsigned long *found)
{
    struct cpython_search search;
    unsigned long long pointer = likely_word();
    int result = harness_find_thread(layout, likely_word(), pointer, &search);

    require(result >= PF_SEARCH_DONE && result <= PF_SEARCH_FAILED, "result of a search");
    require(memory.reads <= 3 * SEARCH_STAGES * PF_THREAD_LIST_STEPS + 1, "reads of a search");
    results[result]++;
    *found += search.found != 0;
    harness_is_known(layout, search.found, pointer);
    int gil = harness_gil_state(layout, search.found, pointer, likely_word());
    require(gil >= -1 && gil <= PF_GIL_STATE_NOT_HELD, "GIL state");
}

static void copy(const struct cpython_layout *layout, unsigned long *whole)
{
    struct code_record record;
    unsigned char *payload = malloc(PF_CODE_PAYLOAD);
    unsigned long long size = harness_copy_code(layout, likely_word(), &record, payload);

    require(record.name_size <= PF_STR_MAX && record.file_size <= PF_STR_MAX, "size of a name");
    require(record.line_table_size <= PF_LINE_TABLE_MAX, "size of a line table");
    require(size == (unsigned long long)record.name_size + record.file_size + record.line_table_size, "size");
    require(!record.name_size == !!(record.missing & PF_CODE_NO_NAME), "a missing name is said");
    require(!record.file_size == !!(record.missing & PF_CODE_NO_FILE), "a missing file is said");
    require(!record.line_table_size || !(record.missing & PF_CODE_NO_LINE_TABLE), "a missing table is empty");
    *whole += record.missing == 0;
    free(payload);
}

static void identify(unsigned long *identified)
{
    struct executable_entry executable = {
        .text = likely_word(),
        .debug_entry = likely_word(),
        .library_dynamic = likely_word() & 0xfff,
        .build_id = random_word() & 1 ? likely_word() : 0,
        .interpreters_head = likely_word(),
    };
    struct process_entry entry;
    *identified += harness_identify(&executable, likely_word(), &entry) == 0;
    require(memory.reads <= PF_LINK_MAP_STEPS + 3, "reads of an identification");
}

int main(int argc, char **argv)
{
    struct cpython_layout layouts[MAX_LAYOUTS];
    unsigned long outcomes[PF_OUTCOME_END] = {0}, results[3] = {0}, kinds[3] = {0};
    unsigned long found = 0, whole = 0, identified = 0;

    if (argc != 4)
        return 2;
    FILE *file = fopen(argv[1], "rb");
    if (!file)
        return 2;
    size_t count = fread(layouts, sizeof(*layouts), MAX_LAYOUTS, file);
    fclose(file);
    if (!count)
        return 2;
    unsigned long rounds = strtoul(argv[2], 0, 10);
    state = strtoul(argv[3], 0, 10) * 2 + 1;
    unsigned char *bytes = malloc(MEMORY);

    for (unsigned long round = 0; round < rounds; round++) {
        for (size_t i = 0; i < MEMORY; i += 8) {
            unsigned long long word = likely_word();
            memcpy(bytes + i, &word, 8);
        }
        unsigned fail_every = round % 4 == 0 ? 2 + random_word() % 200 : 0;
        struct cpython_layout layout = layouts[random_word() % count];
        if (round % 4 == 1)
            scramble(&layout);
        harness_use_bytes(bytes, (8 + random_word() % (MEMORY - 8)) & ~7ULL, fail_every);
        walk(&layout, outcomes, kinds);
        memory.reads = 0;
        find(&layout, results, &found);
        copy(&layout, &whole);
        memory.reads = 0;
        identify(&identified);
    }
    for (int i = 0; i < PF_OUTCOME_END; i++)
        printf("outcome_%d %lu\n", i, outcomes[i]);
    for (int i = 0; i < 3; i++)
        printf("search_%d %lu\n", i, results[i]);
    printf("inner %lu\nentry %lu\nboundary %lu\n", kinds[0], kinds[1], kinds[2]);
    printf("found %lu\nwhole_codes %lu\nidentified %lu\n", found, whole, identified);
    free(bytes);
    free(scratch);
    return 0;
}
