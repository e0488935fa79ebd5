/* bpe.h: the merges of byte-pair encoding, which are found by their pair. */
#ifndef SDX_TOKENIZER_BPE_H
#define SDX_TOKENIZER_BPE_H

#include "tokenizer.h"

typedef struct sdx_merge {
    int32_t left, right;
    int32_t id;    /* of the two as one; -1: a free slot */
    uint32_t rank; /* the smaller, the sooner */
} sdx_merge;

struct sdx_merges {
    sdx_merge *entry; /* [mask + 1], open addressing; in the arena */
    uint32_t mask, shift;
    bool *whole; /* [vocab.size]: merging this token's characters gives this token; in the arena */
};
typedef struct sdx_merges sdx_merges;

static inline uint32_t sdx_merge_slot(const sdx_merges *m, int32_t left, int32_t right)
{
    uint64_t key = (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
    return (uint32_t)(key * 0x9e3779b97f4a7c15u >> m->shift);
}

/* The merge of a pair, or NULL. The table is never full. */
static inline const sdx_merge *sdx_find_merge(const sdx_merges *m, int32_t left, int32_t right)
{
    for (uint32_t i = sdx_merge_slot(m, left, right);; i = (i + 1) & m->mask) {
        const sdx_merge *e = &m->entry[i];
        if (e->id < 0) return NULL;
        if (e->left == left && e->right == right) return e;
    }
}

/* Appends the ids of one word to s->ids. */
sdx_status sdx_bpe_word(const sdx_model_step *model, const sdx_vocab *vocab, const char *word, size_t size,
                        sdx_scratch *s, sdx_error *err);

#endif
