/* vocab.c: tokens by id and ids by token. Ids come from files: they may be sparse or absurd, so the table is
 * sized only once all are known, and only if they are reasonably dense. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "tokenizer.h"

enum { ID_LIMIT = 1 << 24, SPARSE_FREE = 1 << 16, SPARSE_FACTOR = 64 };

char *sdx_tokenizer_keep(sdx_tokenizer *t, const char *s, size_t n)
{
    char *copy = sdx_arena_alloc(&t->arena, n + 1); /* zeroed: not strndup, which would stop at a NUL */
    if (copy && n) memcpy(copy, s, n);
    return copy;
}

static sdx_status grow_keys(sdx_vocab *v, sdx_error *err)
{
    size_t room = v->key_room ? v->key_room * 2 : 1024;
    sdx_string *key = sdx_realloc(v->key, room * sizeof *key);
    if (!key) return sdx_fail_memory(err, room * sizeof *key);
    v->key = key;
    int32_t *value = sdx_realloc(v->value, room * sizeof *value);
    if (!value) return sdx_fail_memory(err, room * sizeof *value);
    v->value = value;
    v->key_room = room;
    return SDX_OK;
}

sdx_status sdx_vocab_put(sdx_tokenizer *t, int64_t id, const char *text, size_t n, sdx_error *err)
{
    sdx_vocab *v = &t->vocab;
    if (id < 0 || id >= ID_LIMIT) {
        return sdx_fail(err, SDX_ERR_FILE, "token \"%.60s\" has id %lld, outside 0..%d", text, (long long)id,
                        ID_LIMIT - 1);
    }
    if (v->key_count == v->key_room) TRY(grow_keys(v, err));
    char *copy = sdx_tokenizer_keep(t, text, n);
    if (!copy) return sdx_fail_memory(err, n);
    v->key[v->key_count] = (sdx_string){copy, n};
    v->value[v->key_count++] = (int32_t)id;
    return SDX_OK;
}

/* Ids up to `id` fit into the table afterwards. */
static sdx_status grow_table(sdx_vocab *v, int32_t id, size_t tokens, sdx_error *err)
{
    size_t size = (size_t)id + 1;
    if (size <= v->size) return SDX_OK;
    if (id >= ID_LIMIT || (id >= SPARSE_FREE && (size_t)id / SPARSE_FACTOR >= tokens)) {
        return sdx_fail(err, SDX_ERR_FILE, "token id %d is too large for a vocabulary of %zu tokens", id,
                        tokens);
    }
    sdx_token *token = sdx_realloc(v->token, size * sizeof *token);
    if (!token) return sdx_fail_memory(err, size * sizeof *token);
    memset(token + v->size, 0, (size - v->size) * sizeof *token);
    v->token = token;
    v->size = size;
    return SDX_OK;
}

sdx_status sdx_vocab_finish(sdx_vocab *v, sdx_error *err)
{
    int32_t largest = -1;
    for (size_t i = 0; i < v->key_count; i++) {
        if (v->value[i] > largest) largest = v->value[i];
    }
    if (largest < 0) return sdx_fail(err, SDX_ERR_FILE, "the vocabulary is empty");
    TRY(grow_table(v, largest, v->key_count, err));
    for (size_t i = 0; i < v->key_count; i++) v->token[v->value[i]].text = v->key[i];
    return sdx_trie_init(&v->trie, v->key, v->value, v->key_count, err);
}

void sdx_vocab_fini(sdx_vocab *v)
{
    free(v->token);
    free(v->key);
    free(v->value);
    sdx_trie_fini(&v->trie);
}

/* Where in the table of added tokens this text is, or would be. */
static size_t added_slot(const sdx_tokenizer *t, sdx_string text)
{
    uint64_t hash = 0xcbf29ce484222325u; /* FNV-1a */
    for (size_t i = 0; i < text.size; i++) hash = (hash ^ (unsigned char)text.data[i]) * 0x100000001b3u;
    size_t mask = 2 * t->added_room - 1, slot = (hash ^ hash >> 32) & mask;
    for (; t->added_index[slot]; slot = (slot + 1) & mask) {
        const sdx_added_token *a = &t->added[t->added_index[slot] - 1];
        if (a->text.size == text.size && !memcmp(a->text.data, text.data, text.size)) break;
    }
    return slot;
}

static sdx_added_token *find_added(const sdx_tokenizer *t, sdx_string text)
{
    uint32_t found = t->added_room ? t->added_index[added_slot(t, text)] : 0;
    return found ? &t->added[found - 1] : NULL;
}

int32_t sdx_tokenizer_added_id(const sdx_tokenizer *t, const char *text, size_t n)
{
    const sdx_added_token *a = find_added(t, (sdx_string){text, n});
    return a ? a->id : -1;
}

int32_t sdx_tokenizer_find(const sdx_tokenizer *t, const char *text, size_t n)
{
    int32_t id = sdx_trie_get(&t->vocab.trie, text, n);
    return id < 0 ? sdx_tokenizer_added_id(t, text, n) : id;
}

/* Twice the room, and a table of twice that, so that it is never more than half full. */
static sdx_status grow_added(sdx_tokenizer *t, sdx_error *err)
{
    size_t room = t->added_room ? t->added_room * 2 : 16;
    sdx_added_token *added = sdx_realloc(t->added, room * sizeof *added);
    if (!added) return sdx_fail_memory(err, room * sizeof *added);
    t->added = added;
    uint32_t *index = sdx_calloc(2 * room, sizeof *index);
    if (!index) return sdx_fail_memory(err, 2 * room * sizeof *index);
    free(t->added_index);
    t->added_index = index;
    t->added_room = room;
    for (size_t i = 0; i < t->added_count; i++) index[added_slot(t, t->added[i].text)] = (uint32_t)i + 1;
    return SDX_OK;
}

sdx_status sdx_tokenizer_add(sdx_tokenizer *t, sdx_added_token token, sdx_error *err)
{
    if (!token.text.size) return SDX_OK;
    sdx_added_token *old = find_added(t, token.text);
    if (old) {
        old->single_word = token.single_word;
        old->lstrip = token.lstrip;
        old->rstrip = token.rstrip;
        t->vocab.token[old->id].special |= token.special;
        return SDX_OK;
    }
    int32_t known = sdx_trie_get(&t->vocab.trie, token.text.data, token.text.size);
    if (known >= 0) token.id = known;
    if (token.id < 0) token.id = (int32_t)t->vocab.size;
    TRY(grow_table(&t->vocab, token.id, t->vocab.key_count + t->added_count + 1, err));
    if (t->added_count == t->added_room) TRY(grow_added(t, err));
    const char *copy = sdx_tokenizer_keep(t, token.text.data, token.text.size);
    if (!copy) return sdx_fail_memory(err, token.text.size);
    token.text.data = copy;
    t->added_index[added_slot(t, token.text)] = (uint32_t)t->added_count + 1;
    t->added[t->added_count++] = token;
    sdx_token *entry = &t->vocab.token[token.id];
    if (known < 0) entry->text = token.text;
    entry->special |= token.special;
    return SDX_OK;
}
