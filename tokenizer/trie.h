/* trie.h: byte strings to values, by a double array: one probe per byte, and all prefixes of a text on one
 * walk. */
#ifndef SDX_TOKENIZER_TRIE_H
#define SDX_TOKENIZER_TRIE_H

#include <stddef.h>
#include <stdint.h>

#include "../base/status.h"

typedef struct sdx_string {
    const char *data;
    size_t size;
} sdx_string;

typedef struct sdx_trie_node {
    uint32_t base;   /* child by byte b: base ^ b, if that node's parent is this one */
    uint32_t parent; /* SDX_TRIE_FREE: unused */
    int32_t value;   /* >= 0, or -1: no key ends here */
} sdx_trie_node;

typedef struct sdx_trie {
    sdx_trie_node *node; /* [size]; node 0 is the root; owned */
    uint32_t size;       /* a multiple of 256, so that base ^ b is always inside */
} sdx_trie;

#define SDX_TRIE_NONE ((uint32_t)-1)
#define SDX_TRIE_FREE ((uint32_t)-2)

/* Later keys win over equal earlier ones. Keys are not kept. */
sdx_status sdx_trie_init(sdx_trie *trie, const sdx_string *key, const int32_t *value, size_t count,
                         sdx_error *err);
void sdx_trie_fini(sdx_trie *trie);
/* The node after `text`, or SDX_TRIE_NONE. */
uint32_t sdx_trie_walk(const sdx_trie *trie, const char *text, size_t size);
/* The value of exactly this key, or -1. */
int32_t sdx_trie_get(const sdx_trie *trie, const char *key, size_t size);

static inline uint32_t sdx_trie_step(const sdx_trie *trie, uint32_t node, unsigned char byte)
{
    uint32_t child = trie->node[node].base ^ byte;
    return trie->node[child].parent == node ? child : SDX_TRIE_NONE;
}

#endif
