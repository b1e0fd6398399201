/* Counts the instructions that an emulated arm64 program executes, by class.
 *
 * A plugin of QEMU's user-mode emulator (the interface of version 1: QEMU 4.2 to 8.2; Debian 12 has 7.2):
 *
 *     gcc -O2 -shared -fPIC -o count.so count.c
 *     qemu-aarch64 -plugin ./count.so PROGRAM
 *
 * The program asks for a reading by the system call getpriority(PRIO_PROCESS, 0x6b000000 + NUMBER), which
 * otherwise does nothing: no process has that number. A reading is one line on standard error,
 * `edgekit-count {"mark": NUMBER, "instructions": ..., ...}`, of all that was executed since the start.
 *
 * Each instruction is in exactly one of load, store, branch, integer, simd_fp, other; what is in fma, dot and
 * widening is in simd_fp too. All threads are counted, each by itself, so that none is lost; `calling` is
 * what the thread that asked has executed.
 */
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* QEMU's side, declared here because Debian packs no header for it. */
typedef uint64_t qemu_plugin_id_t;
struct qemu_plugin_tb; /* a block of instructions that QEMU translates in one go */
struct qemu_plugin_insn;
typedef struct {
    const char *target_name;
    struct { int min, cur; } version;
    bool system_emulation;
    struct { int smp_vcpus, max_vcpus; } system;
} qemu_info_t;
enum { NO_REGISTERS };
typedef void executed(unsigned cpu, void *of_block);
typedef void translated(qemu_plugin_id_t, struct qemu_plugin_tb *);
typedef void called(qemu_plugin_id_t, unsigned cpu, int64_t number, uint64_t, uint64_t, uint64_t, uint64_t,
                    uint64_t, uint64_t, uint64_t, uint64_t);
extern void qemu_plugin_register_vcpu_tb_trans_cb(qemu_plugin_id_t, translated *);
extern void qemu_plugin_register_vcpu_syscall_cb(qemu_plugin_id_t, called *);
extern void qemu_plugin_register_vcpu_tb_exec_cb(struct qemu_plugin_tb *, executed *, int flags,
                                                 void *of_block);
extern size_t qemu_plugin_tb_n_insns(const struct qemu_plugin_tb *);
extern struct qemu_plugin_insn *qemu_plugin_tb_get_insn(const struct qemu_plugin_tb *, size_t);
extern const void *qemu_plugin_insn_data(const struct qemu_plugin_insn *);
#define SEEN_BY_QEMU __attribute__((visibility("default")))
SEEN_BY_QEMU int qemu_plugin_version = 1;

enum counter {
    INSTRUCTIONS, LOAD, STORE, BRANCH, INTEGER, SIMD_FP, OTHER, /* the classes */
    FMA,      /* floating-point multiply-add, a vector of it or one */
    DOT,      /* dot product of int8, four products a lane: SDOT, UDOT */
    WIDENING, /* integer products into wider lanes, added or not: what int8 takes without DOT */
    LOAD_BYTES, STORE_BYTES,
    COUNTERS
};
static const char *const names[COUNTERS] = {
    "instructions", "load", "store", "branch", "integer", "simd_fp", "other", "fma", "dot", "widening",
    "load_bytes", "store_bytes",
};
enum { THREADS = 512 }; /* beyond them threads share a row, and may lose a few instructions */
static uint64_t totals[THREADS][COUNTERS];
typedef uint16_t sums[COUNTERS]; /* of one block: 512 instructions at most */

static const int64_t GETPRIORITY = 141; /* its number on arm64 */
static const uint64_t MARK = 0x6b000000, MARKS = 0x00ffffff;

/* Bits high..low of an instruction, as the Arm manual writes them. */
static uint32_t bits(uint32_t word, unsigned high, unsigned low)
{
    return word >> low & ((2u << (high - low)) - 1);
}

static bool is(uint32_t word, uint32_t mask, uint32_t value)
{
    return (word & mask) == value;
}

static void add_load(uint16_t *counts, unsigned bytes)
{
    counts[LOAD]++;
    counts[LOAD_BYTES] += bytes;
}

static void add_store(uint16_t *counts, unsigned bytes)
{
    counts[STORE]++;
    counts[STORE_BYTES] += bytes;
}

static void add_access(uint16_t *counts, bool load, unsigned bytes)
{
    load ? add_load(counts, bytes) : add_store(counts, bytes);
}

/* Reads and writes in one instruction: among the loads, with its bytes on both sides. */
static void add_exchange(uint16_t *counts, unsigned bytes)
{
    add_load(counts, bytes);
    counts[STORE_BYTES] += bytes;
}

/* LD1 to LD4 and ST1 to ST4, of whole vectors or of one lane. */
static unsigned structure_bytes(uint32_t word)
{
    static const uint8_t registers[16] = {[0] = 4, [2] = 4, [4] = 3, [6] = 3, [7] = 1, [8] = 2, [10] = 2};
    bool one_lane = bits(word, 24, 24);
    if (!one_lane)
        return registers[bits(word, 15, 12)] * (bits(word, 30, 30) ? 16 : 8);
    unsigned elements = (bits(word, 13, 13) << 1 | bits(word, 21, 21)) + 1, scale = bits(word, 15, 14);
    if (scale == 3) /* one element for all lanes */
        scale = bits(word, 11, 10);
    else if (scale == 2 && bits(word, 10, 10))
        scale = 3;
    return elements << scale;
}

/* Exclusive and ordered accesses, compare and swap. */
static void add_exclusive(uint32_t word, uint16_t *counts)
{
    unsigned bytes = 1u << bits(word, 31, 30);
    bool load = bits(word, 22, 22), ordered = bits(word, 23, 23), pair_or_swap = bits(word, 21, 21);
    if (pair_or_swap && ordered)
        add_exchange(counts, bytes); /* CAS */
    else if (pair_or_swap && !bits(word, 31, 31))
        add_exchange(counts, bits(word, 30, 30) ? 16 : 8); /* CASP */
    else
        add_access(counts, load, pair_or_swap ? 2 * bytes : bytes);
}

/* One register from or to memory, by any way of giving the address. */
static void add_single(uint32_t word, uint16_t *counts)
{
    unsigned size = bits(word, 31, 30), operation = bits(word, 23, 22);
    bool vector = bits(word, 26, 26), immediate = bits(word, 24, 24);
    bool atomic = !immediate && !vector && bits(word, 21, 21) && bits(word, 11, 10) == 0;
    if (atomic && !is(word, 0x0000fc00, 0x0000c000)) /* but LDAPR, which only loads */
        add_exchange(counts, 1u << size);
    else if (vector)
        add_access(counts, operation & 1, operation & 2 ? 16 : 1u << size);
    else if (size == 3 && operation == 2 && !atomic)
        counts[OTHER]++; /* a prefetch */
    else
        add_access(counts, operation != 0, 1u << size);
}

static void add_memory(uint32_t word, uint16_t *counts)
{
    bool vector = bits(word, 26, 26), load = bits(word, 22, 22);
    unsigned size = bits(word, 31, 30);
    if (is(word, 0x38000000, 0x28000000)) /* pairs */
        add_access(counts, load, vector ? 8u << size : size == 2 ? 16 : 8);
    else if (is(word, 0xbe000000, 0x0c000000))
        add_access(counts, load, structure_bytes(word));
    else if (is(word, 0x3f000000, 0x08000000))
        add_exclusive(word, counts);
    else if (is(word, 0x3b000000, 0x18000000) && (vector || size != 3)) /* from a place beside the code */
        add_load(counts, vector ? 4u << size : size == 1 ? 8 : 4);
    else if (is(word, 0x3a000000, 0x38000000))
        add_single(word, counts);
    else if (is(word, 0x3f200c00, 0x19000000)) /* LDAPUR, STLUR */
        add_access(counts, bits(word, 23, 22) != 0, 1u << size);
    else
        counts[OTHER]++; /* prefetches, tags */
}

static bool is_fma(uint32_t word)
{
    return is(word, 0xbf20fc00, 0x0e20cc00)     /* FMLA, FMLS: vectors of single and double */
           || is(word, 0xbf60fc00, 0x0e400c00)  /* of half */
           || is(word, 0xbf80b400, 0x0f801000)  /* by one lane */
           || is(word, 0xbfc0b400, 0x0f001000)
           || is(word, 0xff80b400, 0x5f801000)  /* of one number by a lane */
           || is(word, 0xffc0b400, 0x5f001000)
           || is(word, 0xff000000, 0x1f000000); /* FMADD and its kin: of one number */
}

static bool is_dot(uint32_t word)
{
    return is(word, 0x9fe0fc00, 0x0e809400) || is(word, 0x9fc0f400, 0x0f80e000); /* the latter by a lane */
}

static bool is_widening(uint32_t word)
{
    uint32_t vectors = word & 0x9f20fc00, by_lane = word & 0x9f00f400;
    return vectors == 0x0e208000 || vectors == 0x0e20a000 || vectors == 0x0e20c000 /* SMLAL, SMLSL, SMULL */
           || by_lane == 0x0f002000 || by_lane == 0x0f006000 || by_lane == 0x0f00a000;
}

static void add_simd_fp(uint32_t word, uint16_t *counts)
{
    counts[SIMD_FP]++;
    if (is_fma(word))
        counts[FMA]++;
    else if (is_dot(word))
        counts[DOT]++;
    else if (is_widening(word))
        counts[WIDENING]++;
}

/* Count one instruction; the groups are those of the manual's "A64 instruction set encoding", bits 28..25. */
static void add_instruction(uint32_t word, uint16_t *counts)
{
    uint32_t group = bits(word, 28, 25);
    counts[INSTRUCTIONS]++;
    if ((group & 5) == 4)
        add_memory(word, counts);
    else if ((group & 7) == 7)
        add_simd_fp(word, counts);
    else if ((group & 14) == 8 || (group & 7) == 5)
        counts[INTEGER]++;
    else if ((group & 14) == 10 && bits(word, 31, 25) != 0x6a) /* 0x6a: system calls, barriers, registers */
        counts[BRANCH]++;
    else
        counts[OTHER]++;
}

static void on_execution(unsigned cpu, void *of_block)
{
    uint64_t *row = totals[cpu % THREADS];
    const uint16_t *counts = of_block;
    for (int i = 0; i < COUNTERS; i++)
        row[i] += counts[i];
}

/* A block is decoded once, when QEMU translates it; each time it runs, its sums are added. They are kept for
 * ever: a block that QEMU has dropped may still be running in a thread. */
static void on_translation(qemu_plugin_id_t id, struct qemu_plugin_tb *block)
{
    uint16_t *counts = calloc(1, sizeof(sums));
    (void)id;
    if (!counts)
        abort();
    for (size_t i = 0; i < qemu_plugin_tb_n_insns(block); i++) {
        uint32_t word;
        memcpy(&word, qemu_plugin_insn_data(qemu_plugin_tb_get_insn(block, i)), sizeof word);
        add_instruction(word, counts);
    }
    qemu_plugin_register_vcpu_tb_exec_cb(block, on_execution, NO_REGISTERS, counts);
}

static unsigned long long total(int counter)
{
    unsigned long long sum = 0;
    for (int i = 0; i < THREADS; i++)
        sum += totals[i][counter];
    return sum;
}

static void on_system_call(qemu_plugin_id_t id, unsigned cpu, int64_t number, uint64_t a, uint64_t b,
                           uint64_t c, uint64_t d, uint64_t e, uint64_t f, uint64_t g, uint64_t h)
{
    (void)id, (void)c, (void)d, (void)e, (void)f, (void)g, (void)h;
    if (number != GETPRIORITY || a != 0 || (b & ~MARKS) != MARK)
        return;
    unsigned long long calling = totals[cpu % THREADS][INSTRUCTIONS];
    unsigned long long mark = b & MARKS;
    fprintf(stderr, "edgekit-count {\"mark\": %llu, \"calling\": %llu", mark, calling);
    for (int i = 0; i < COUNTERS; i++)
        fprintf(stderr, ", \"%s\": %llu", names[i], total(i));
    fputs("}\n", stderr);
}

SEEN_BY_QEMU int qemu_plugin_install(qemu_plugin_id_t id, const qemu_info_t *info, int argc, char **argv)
{
    static char line[2048]; /* one reading leaves in one write, so that no other line comes between */
    (void)argc, (void)argv;
    if (strcmp(info->target_name, "aarch64") != 0 || info->version.min > qemu_plugin_version) {
        fputs("edgekit's counter needs an arm64 program\n", stderr);
        return -1;
    }
    setvbuf(stderr, line, _IOLBF, sizeof line);
    qemu_plugin_register_vcpu_tb_trans_cb(id, on_translation);
    qemu_plugin_register_vcpu_syscall_cb(id, on_system_call);
    return 0;
}
