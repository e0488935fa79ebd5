/* dictionary.h: which of many known sequences of elements is this one: n-grams, labels. Elements are strings or
 * the bits of numbers; the table is open addressing over FNV-1a. */
#ifndef SDX_OPS_DICTIONARY_H
#define SDX_OPS_DICTIONARY_H

#include "../../base/arena.h"
#include "../../base/tensor.h"

typedef struct sdx_item {
    const char *string; /* NULL: a number */
    uint64_t bits;
} sdx_item;

/* Element i; one NaN is every NaN, and -0 is 0. */
sdx_item sdx_item_at(const sdx_tensor *t, int64_t i);

typedef struct sdx_entry {
    const sdx_item *item; /* [count] */
    int64_t count, value;
} sdx_entry;

typedef struct sdx_dictionary {
    sdx_entry *slot; /* [mask + 1]; item NULL: free */
    uint64_t mask;
} sdx_dictionary;

/* Room for `entries`, which are then put in; all memory is the arena's. */
sdx_status sdx_dictionary_init(sdx_dictionary *d, sdx_arena *arena, size_t entries, sdx_error *err);
/* Of equal sequences the last one stays. */
void sdx_dictionary_put(sdx_dictionary *d, const sdx_item *item, int64_t count, int64_t value);
/* item[0], item[step], ...: the value put in with them, or -1. */
int64_t sdx_dictionary_find(const sdx_dictionary *d, const sdx_item *item, int64_t count, int64_t step);

#endif
