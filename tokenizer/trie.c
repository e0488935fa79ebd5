/* trie.c: see trie.h. The double array of Aoe (1989), with Yata's (darts-clone) two ideas: children at base XOR
 * byte stay in one block of 256, and only the newest blocks are searched for room, which bounds the building
 * time at a small price in space. Built breadth first from sorted keys, without recursion: keys may be long. */
#include "trie.h"

#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"

enum { BLOCK = 256, OPEN_BLOCKS = 16 };

typedef struct entry {
    const unsigned char *data;
    uint32_t size, order;
    int32_t value;
} entry;

/* Keys entry[begin, end) share their first `depth` bytes, which lead to `node`. */
typedef struct range {
    uint32_t begin, end, depth, node;
} range;

typedef struct builder {
    sdx_trie *trie;
    uint32_t capacity;          /* nodes allocated */
    uint32_t used[OPEN_BLOCKS]; /* taken nodes of block k at [k % OPEN_BLOCKS] */
    range *queue;
    size_t head, tail, queue_capacity;
    sdx_error *err;
} builder;

static int compare_entries(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    size_t n = x->size < y->size ? x->size : y->size;
    int order = n ? memcmp(x->data, y->data, n) : 0;
    if (order) return order;
    if (x->size != y->size) return x->size < y->size ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

static sdx_status add_block(builder *b)
{
    sdx_trie *t = b->trie;
    if (t->size > UINT32_MAX / 4)
        return sdx_fail(b->err, SDX_ERR_FILE, "the vocabulary is too large for a trie");
    if (t->size == b->capacity) {
        size_t capacity = b->capacity ? (size_t)b->capacity * 2 : 16 * BLOCK;
        sdx_trie_node *node = sdx_realloc(t->node, capacity * sizeof *node);
        if (!node) return sdx_fail_memory(b->err, capacity * sizeof *node);
        t->node = node;
        b->capacity = (uint32_t)capacity;
    }
    for (uint32_t i = 0; i < BLOCK; i++) t->node[t->size + i] = (sdx_trie_node){0, SDX_TRIE_FREE, -1};
    b->used[t->size / BLOCK % OPEN_BLOCKS] = 0;
    t->size += BLOCK;
    return SDX_OK;
}

static bool fits(const sdx_trie *t, uint32_t base, const unsigned char *byte, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (t->node[base ^ byte[i]].parent != SDX_TRIE_FREE) return false;
    }
    return true;
}

/* A base where all children find a free node; byte: [count], count > 0. */
static sdx_status find_base(builder *b, const unsigned char *byte, uint32_t count, uint32_t *base)
{
    const sdx_trie *t = b->trie;
    uint32_t blocks = t->size / BLOCK;
    for (uint32_t k = blocks > OPEN_BLOCKS ? blocks - OPEN_BLOCKS : 0; k < blocks; k++) {
        if (b->used[k % OPEN_BLOCKS] + count > BLOCK) continue;
        for (uint32_t i = 0; i < BLOCK; i++) {
            *base = k * BLOCK + i;
            if (fits(t, *base, byte, count)) return SDX_OK;
        }
    }
    *base = t->size;
    return add_block(b);
}

static sdx_status push_range(builder *b, range r)
{
    if (b->tail == b->queue_capacity && b->head > b->tail / 2) {
        memmove(b->queue, b->queue + b->head, (b->tail - b->head) * sizeof r);
        b->tail -= b->head;
        b->head = 0;
    }
    if (b->tail == b->queue_capacity) {
        size_t capacity = b->queue_capacity ? b->queue_capacity * 2 : 1024;
        range *queue = sdx_realloc(b->queue, capacity * sizeof r);
        if (!queue) return sdx_fail_memory(b->err, capacity * sizeof r);
        b->queue = queue;
        b->queue_capacity = capacity;
    }
    b->queue[b->tail++] = r;
    return SDX_OK;
}

/* Gives r.node its value and its children, and queues them. */
static sdx_status expand(builder *b, const entry *key, range r)
{
    sdx_trie *t = b->trie;
    unsigned char byte[BLOCK];
    uint32_t count = 0, base;
    for (; r.begin < r.end && key[r.begin].size == r.depth; r.begin++)
        t->node[r.node].value = key[r.begin].value;
    for (uint32_t i = r.begin; i < r.end; i++) {
        unsigned char c = key[i].data[r.depth];
        if (!count || byte[count - 1] != c) byte[count++] = c;
    }
    if (!count) return SDX_OK;
    TRY(find_base(b, byte, count, &base));
    t->node[r.node].base = base;
    b->used[base / BLOCK % OPEN_BLOCKS] += count;
    for (uint32_t i = r.begin, k = 0; k < count; k++) {
        uint32_t child = base ^ byte[k], from = i;
        t->node[child].parent = r.node;
        while (i < r.end && key[i].data[r.depth] == byte[k]) i++;
        TRY(push_range(b, (range){from, i, r.depth + 1, child}));
    }
    return SDX_OK;
}

static sdx_status build(builder *b, const entry *key, uint32_t count)
{
    TRY(add_block(b));
    b->trie->node[0].parent = SDX_TRIE_NONE;
    b->used[0] = 1;
    TRY(push_range(b, (range){0, count, 0, 0}));
    while (b->head < b->tail) TRY(expand(b, key, b->queue[b->head++]));
    return SDX_OK;
}

sdx_status sdx_trie_init(sdx_trie *trie, const sdx_string *key, const int32_t *value, size_t count,
                         sdx_error *err)
{
    builder b = {.trie = trie, .err = err};
    *trie = (sdx_trie){0};
    entry *sorted = count <= INT32_MAX ? sdx_malloc(count * sizeof *sorted) : NULL;
    if (!sorted) return sdx_fail_memory(err, count * sizeof *sorted);
    for (size_t i = 0; i < count; i++) {
        sorted[i] = (entry){(const unsigned char *)key[i].data, (uint32_t)key[i].size, (uint32_t)i, value[i]};
    }
    qsort(sorted, count, sizeof *sorted, compare_entries);
    sdx_status status = build(&b, sorted, (uint32_t)count);
    if (status != SDX_OK) sdx_trie_fini(trie);
    free(b.queue);
    free(sorted);
    return status;
}

void sdx_trie_fini(sdx_trie *trie)
{
    free(trie->node);
    *trie = (sdx_trie){0};
}

uint32_t sdx_trie_walk(const sdx_trie *trie, const char *text, size_t size)
{
    uint32_t node = 0;
    for (size_t i = 0; i < size && node != SDX_TRIE_NONE; i++)
        node = sdx_trie_step(trie, node, (unsigned char)text[i]);
    return node;
}

int32_t sdx_trie_get(const sdx_trie *trie, const char *key, size_t size)
{
    uint32_t node = sdx_trie_walk(trie, key, size);
    return node == SDX_TRIE_NONE ? -1 : trie->node[node].value;
}
