/* trie.c: see trie.h. The double array of Aoe (1989), with Yata's (darts-clone) two ideas: children at base XOR
 * byte stay in one block of 256, and only the newest blocks are searched for room, which bounds the building
 * time at a small price in space. Built breadth first from sorted keys, without recursion: keys may be long; from
 * where a key shares nothing with another, all of it at once. */
#include "trie.h"

#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"

enum { BLOCK = 256, OPEN_BLOCKS = 16, HEAD = 8 };

typedef struct entry {
    uint64_t
        head; /* the first 8 bytes, big-endian, zeros behind a shorter key: most of what is ever compared */
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
    uint32_t capacity;             /* nodes allocated */
    uint64_t free[OPEN_BLOCKS][4]; /* a bit per node: block k at [k % OPEN_BLOCKS] */
    uint32_t free_count[OPEN_BLOCKS];
    const entry *last;   /* of the sorted keys */
    uint32_t first_open; /* blocks before this one are full, or no longer searched */
    range *queue;
    size_t head, tail, queue_capacity;
    sdx_error *err;
} builder;

/* ---- sorting ------------------------------------------------------------------------------------------- */

static int compare_entries(const void *a, const void *b)
{
    const entry *x = a, *y = b;
    if (x->head != y->head) return x->head < y->head ? -1 : 1;
    size_t n = x->size < y->size ? x->size : y->size;
    int order = n ? memcmp(x->data, y->data, n) : 0;
    if (order) return order;
    if (x->size != y->size) return x->size < y->size ? -1 : 1;
    return x->order < y->order ? -1 : 1;
}

typedef struct head_order {
    uint64_t head;
    uint32_t order;
} head_order;

/* One pass of a radix sort by `bits` of the heads at `shift`. */
static void radix_pass(const head_order *from, head_order *to, size_t count, int shift, int bits)
{
    enum { RADIX = 1 << 11 };
    size_t start[RADIX + 1] = {0};
    uint64_t mask = ((uint64_t)1 << bits) - 1;
    for (size_t i = 0; i < count; i++) start[(from[i].head >> shift & mask) + 1]++;
    for (size_t i = 1; i < RADIX; i++) start[i] += start[i - 1];
    for (size_t i = 0; i < count; i++) to[start[from[i].head >> shift & mask]++] = from[i];
}

/* Sorts h[count] by head, keeping the order of equals. */
static void sort_heads(head_order *h, head_order *spare, size_t count)
{
    enum { BITS = 11, PASSES = 6 };
    for (int pass = 0; pass < PASSES; pass += 2) {
        radix_pass(h, spare, count, pass * BITS, BITS);
        radix_pass(spare, h, count, (pass + 1) * BITS, pass + 2 == PASSES ? 64 - (PASSES - 1) * BITS : BITS);
    }
}

static uint64_t head_of(const sdx_string *key)
{
    unsigned char bytes[HEAD] = {0};
    uint64_t head = 0;
    memcpy(bytes, key->data, key->size < HEAD ? key->size : HEAD);
    for (size_t i = 0; i < HEAD; i++) head = head << 8 | bytes[i];
    return head;
}

/* sorted: [count] entries; heads: room for 2 * count. */
static void sort_keys(const sdx_string *key, const int32_t *value, size_t count, head_order *heads,
                      entry *sorted)
{
    for (size_t i = 0; i < count; i++) heads[i] = (head_order){head_of(&key[i]), (uint32_t)i};
    sort_heads(heads, heads + count, count);
    for (size_t i = 0; i < count; i++) {
        uint32_t k = heads[i].order;
        sorted[i] =
            (entry){heads[i].head, (const unsigned char *)key[k].data, (uint32_t)key[k].size, k, value[k]};
    }
    for (size_t i = 0, end; i < count; i = end) {
        for (end = i + 1; end < count && sorted[end].head == sorted[i].head;) end++;
        if (end > i + 1) qsort(sorted + i, end - i, sizeof *sorted, compare_entries);
    }
}

static inline unsigned char byte_at(const entry *e, uint32_t depth)
{
    if (depth >= HEAD) return e->data[depth];
    return (unsigned char)(e->head >> (8 * (HEAD - 1 - depth)));
}

/* ---- placing ------------------------------------------------------------------------------------------- */

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
    memset(b->free[t->size / BLOCK % OPEN_BLOCKS], 0xff, sizeof b->free[0]);
    b->free_count[t->size / BLOCK % OPEN_BLOCKS] = BLOCK;
    t->size += BLOCK;
    return SDX_OK;
}

static void take(builder *b, uint32_t node)
{
    uint32_t k = node / BLOCK % OPEN_BLOCKS, i = node % BLOCK;
    b->free[k][i / 64] &= ~((uint64_t)1 << i % 64);
    b->free_count[k]--;
}

static bool fits(const uint64_t free[4], uint32_t base, const unsigned char *byte, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t at = base ^ byte[i];
        if (!(free[at / 64] >> at % 64 & 1)) return false;
    }
    return true;
}

/* A base inside a block where all children find a free node: only those that put the first child on one. */
static bool find_in_block(const uint64_t free[4], const unsigned char *byte, uint32_t count, uint32_t *base)
{
    for (uint32_t word = 0; word < 4; word++) {
        for (uint64_t left = free[word]; left; left &= left - 1) {
            *base = (word * 64 + (uint32_t)__builtin_ctzll(left)) ^ byte[0];
            if (fits(free, *base, byte + 1, count - 1)) return true;
        }
    }
    return false;
}

static inline uint32_t newest(uint32_t blocks, uint32_t window)
{
    return blocks > window ? blocks - window : 0;
}

/* A base for an only child: any free node does, which fills the older blocks, where several children rarely fit. */
static sdx_status find_single(builder *b, unsigned char byte, uint32_t *base)
{
    uint32_t blocks = b->trie->size / BLOCK, k = newest(blocks, OPEN_BLOCKS);
    if (k < b->first_open) k = b->first_open;
    while (k < blocks && !b->free_count[k % OPEN_BLOCKS]) k++;
    b->first_open = k;
    if (k == blocks) TRY(add_block(b));
    const uint64_t *free = b->free[k % OPEN_BLOCKS];
    uint32_t word = 0;
    while (!free[word]) word++;
    *base = k * BLOCK + ((word * 64 + (uint32_t)__builtin_ctzll(free[word])) ^ byte);
    return SDX_OK;
}

/* A base where all children find a free node; byte: [count], count > 0. */
static sdx_status find_base(builder *b, const unsigned char *byte, uint32_t count, uint32_t *base)
{
    uint32_t blocks = b->trie->size / BLOCK, need = 32 + 4 * count;
    if (count == 1) return find_single(b, *byte, base);
    for (uint32_t k = newest(blocks, OPEN_BLOCKS / 4); k < blocks; k++) {
        if (b->free_count[k % OPEN_BLOCKS] < need) continue;
        if (!find_in_block(b->free[k % OPEN_BLOCKS], byte, count, base)) continue;
        *base += k * BLOCK;
        return SDX_OK;
    }
    *base = b->trie->size;
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

/* The rest of one key: a chain of nodes, put down while the key is at hand. Sorted, keys lie all over memory. */
static sdx_status place_tail(builder *b, const entry *key, uint32_t depth, uint32_t node)
{
    enum { AHEAD = 8 };
    sdx_trie *t = b->trie;
    if (b->last - key > AHEAD) __builtin_prefetch(key[AHEAD].data + HEAD);
    for (; depth < key->size; depth++) {
        unsigned char byte = byte_at(key, depth);
        uint32_t base;
        TRY(find_single(b, byte, &base));
        t->node[node].base = base;
        t->node[base ^ byte].parent = node;
        node = base ^ byte;
        take(b, node);
    }
    t->node[node].value = key->value;
    return SDX_OK;
}

/* Gives r.node its value and its children, and queues those with more than one key. */
static sdx_status expand(builder *b, const entry *key, range r)
{
    sdx_trie *t = b->trie;
    unsigned char byte[BLOCK];
    uint32_t first[BLOCK + 1]; /* key that begins each child's range */
    uint32_t count = 0, base;
    for (; r.begin < r.end && key[r.begin].size == r.depth; r.begin++)
        t->node[r.node].value = key[r.begin].value;
    for (uint32_t i = r.begin; i < r.end; i++) {
        unsigned char c = byte_at(&key[i], r.depth);
        if (count && byte[count - 1] == c) continue;
        byte[count] = c;
        first[count++] = i;
    }
    if (!count) return SDX_OK;
    first[count] = r.end;
    TRY(find_base(b, byte, count, &base));
    t->node[r.node].base = base;
    for (uint32_t k = 0; k < count; k++) {
        t->node[base ^ byte[k]].parent = r.node;
        take(b, base ^ byte[k]);
    }
    for (uint32_t k = 0; k < count; k++) {
        uint32_t child = base ^ byte[k];
        if (first[k] + 1 == first[k + 1])
            TRY(place_tail(b, &key[first[k]], r.depth + 1, child));
        else
            TRY(push_range(b, (range){first[k], first[k + 1], r.depth + 1, child}));
    }
    return SDX_OK;
}

static sdx_status build(builder *b, const entry *key, uint32_t count)
{
    b->last = key + count - 1;
    TRY(add_block(b));
    b->trie->node[0].parent = SDX_TRIE_NONE;
    take(b, 0);
    TRY(push_range(b, (range){0, count, 0, 0}));
    while (b->head < b->tail) TRY(expand(b, key, b->queue[b->head++]));
    return SDX_OK;
}

sdx_status sdx_trie_init(sdx_trie *trie, const sdx_string *key, const int32_t *value, size_t count,
                         sdx_error *err)
{
    builder b = {.trie = trie, .err = err};
    *trie = (sdx_trie){0};
    if (count > INT32_MAX / 64) return sdx_fail(err, SDX_ERR_FILE, "%zu tokens are too many", count);
    entry *sorted = sdx_malloc(count * sizeof *sorted);
    head_order *heads = sdx_malloc(2 * count * sizeof *heads);
    sdx_status status = sorted && heads ? SDX_OK : sdx_fail_memory(err, count * sizeof *sorted);
    if (status == SDX_OK) {
        sort_keys(key, value, count, heads, sorted);
        status = build(&b, sorted, (uint32_t)count);
    }
    if (status != SDX_OK) sdx_trie_fini(trie);
    free(b.queue);
    free(heads);
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
