/* The numbers of numpy.random.default_rng(seed).random(dtype=numpy.float32), in order, for seeds of
 * up to 64 bits: NumPy's SeedSequence, and PCG64, whose 64 bits make two numbers. */
#pragma once
#include <stdint.h>

typedef unsigned __int128 Wide;
typedef struct {
    Wide state, increment;
    uint64_t bits;
    int half; /* whether the high half of `bits` comes next */
} Random;

static uint64_t next_bits(Random *random) {
    const Wide multiplier = (Wide)0x2360ED051FC65DA4 << 64 | 0x4385DF649FCCF645;
    random->state = random->state * multiplier + random->increment;
    uint64_t mixed = (uint64_t)(random->state >> 64) ^ (uint64_t)random->state;
    int turn = (int)(random->state >> 122);
    return mixed >> turn | mixed << (-turn & 63);
}

static float next_number(Random *random) {
    random->bits = random->half ? random->bits >> 32 : next_bits(random);
    random->half = !random->half;
    return (float)((uint32_t)random->bits >> 8) / (1 << 24);
}

static uint32_t hash(uint32_t word, uint32_t *constant, uint32_t multiplier) {
    word ^= *constant;
    *constant *= multiplier;
    word *= *constant;
    return word ^ word >> 16;
}

static Random seeded(uint64_t seed) {
    uint32_t pool[4] = {(uint32_t)seed, (uint32_t)(seed >> 32)}, constant = 0x43B0D7E5;
    for (int i = 0; i < 4; i++) pool[i] = hash(pool[i], &constant, 0x931E8875);
    for (int from = 0; from < 4; from++) {
        for (int to = 0; to < 4; to++) {
            if (from == to) continue;
            uint32_t hashed = hash(pool[from], &constant, 0x931E8875);
            uint32_t mixed = pool[to] * 0xCA01F9DD - hashed * 0x4973F715;
            pool[to] = mixed ^ mixed >> 16;
        }
    }
    Wide words[4] = {0};
    constant = 0x8B51F9DD;
    for (int i = 0; i < 8; i++) {
        words[i / 2] |= (Wide)hash(pool[i % 4], &constant, 0x58F38DED) << (i % 2 * 32);
    }
    Random random = {.increment = (words[2] << 64 | words[3]) << 1 | 1};
    random.state = random.increment + (words[0] << 64 | words[1]);
    next_bits(&random);
    return random;
}
