/* bpe_build.c: from a list of merges to the table that bpe.c asks. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "bpe.h"

sdx_status sdx_merge_list_add(sdx_merge_list *list, sdx_string left, sdx_string right, sdx_error *err)
{
    if (list->count == list->room) {
        size_t room = list->room ? list->room * 2 : 4096;
        sdx_string *pair = sdx_realloc(list->pair, 2 * room * sizeof *pair);
        if (!pair) return sdx_fail_memory(err, 2 * room * sizeof *pair);
        list->pair = pair;
        list->room = room;
    }
    list->pair[2 * list->count] = left;
    list->pair[2 * list->count++ + 1] = right;
    return SDX_OK;
}

void sdx_merge_list_fini(sdx_merge_list *list)
{
    free(list->pair);
    *list = (sdx_merge_list){0};
}

sdx_status sdx_split_merge(sdx_string both, sdx_string *left, sdx_string *right, sdx_error *err)
{
    const char *space = memchr(both.data, ' ', both.size), *end = both.data + both.size;
    if (!space || memchr(space + 1, ' ', (size_t)(end - space - 1)))
        return sdx_fail(err, SDX_ERR_FILE, "merge \"%.60s\" is not two tokens", both.data);
    *left = (sdx_string){both.data, (size_t)(space - both.data)};
    *right = (sdx_string){space + 1, (size_t)(end - space - 1)};
    return SDX_OK;
}

static sdx_status make_table(sdx_tokenizer *t, size_t count, sdx_merges **out, sdx_error *err)
{
    sdx_merges *m;
    uint32_t bits = 4;
    if (count > INT32_MAX / 4) return sdx_fail(err, SDX_ERR_FILE, "%zu merges are too many", count);
    while ((size_t)1 << bits < 2 * count) bits++;
    ARENA_NEW(&t->arena, m, 1, err);
    ARENA_NEW(&t->arena, m->entry, (size_t)1 << bits, err);
    for (size_t i = 0; i < (size_t)1 << bits; i++) m->entry[i].id = -1;
    m->mask = ((uint32_t)1 << bits) - 1;
    m->shift = 64 - bits;
    *out = m;
    return SDX_OK;
}

/* The node and value of a key in one walk from `from`. */
static int32_t walk(const sdx_trie *trie, uint32_t from, const char *s, size_t n, uint32_t *node)
{
    for (size_t i = 0; i < n && from != SDX_TRIE_NONE; i++)
        from = sdx_trie_step(trie, from, (unsigned char)s[i]);
    *node = from;
    return from == SDX_TRIE_NONE ? -1 : trie->node[from].value;
}

/* Of two merges of one pair the later counts. */
static sdx_status add_merge(sdx_tokenizer *t, sdx_merges *m, sdx_string left, sdx_string right, uint32_t rank,
                            sdx_error *err)
{
    const sdx_trie *trie = &t->vocab.trie;
    size_t skip = t->model.prefix.size;
    uint32_t node, other;
    int32_t a = walk(trie, 0, left.data, left.size, &node), b = walk(trie, 0, right.data, right.size, &other);
    int32_t id = right.size < skip ? -1 : walk(trie, node, right.data + skip, right.size - skip, &other);
    if (a < 0 || b < 0 || id < 0) {
        return sdx_fail(err, SDX_ERR_FILE, "merge \"%.*s %.*s\": a part or the whole is not in the vocabulary",
                        (int)(left.size < 40 ? left.size : 40), left.data,
                        (int)(right.size < 40 ? right.size : 40), right.data);
    }
    uint32_t i = sdx_merge_slot(m, a, b);
    while (m->entry[i].id >= 0 && (m->entry[i].left != a || m->entry[i].right != b)) i = (i + 1) & m->mask;
    m->entry[i] = (sdx_merge){a, b, id, rank};
    return SDX_OK;
}

/* Marks the tokens that are the result of merging their own characters. */
static sdx_status mark_whole(const sdx_tokenizer *t, sdx_merges *m, sdx_scratch *s, sdx_error *err)
{
    enum { LONG = 256 }; /* bytes: to merge all of these would cost too much to be of use */
    for (size_t id = 0; id < t->vocab.size; id++) {
        sdx_string text = t->vocab.token[id].text;
        if (!text.size || text.size > LONG) continue;
        s->id_count = 0;
        TRY(sdx_bpe_word(&t->model, &t->vocab, text.data, text.size, s, err));
        m->whole[id] = s->id_count == 1 && s->ids[0] == (int32_t)id;
    }
    return SDX_OK;
}

sdx_status sdx_bpe_build(sdx_tokenizer *t, const sdx_merge_list *list, sdx_error *err)
{
    sdx_model_step *model = &t->model;
    sdx_scratch s = {0};
    if (model->has_unknown && model->unknown_id < 0) {
        return sdx_fail(err, SDX_ERR_FILE, "the unknown token \"%.60s\" is not in the vocabulary",
                        model->unknown.data);
    }
    TRY(make_table(t, list->count, &model->merges, err));
    for (size_t i = 0; i < list->count; i++)
        TRY(add_merge(t, model->merges, list->pair[2 * i], list->pair[2 * i + 1], (uint32_t)i, err));
    model->run = sdx_bpe_run;
    model->suffix_root = sdx_trie_walk(&t->vocab.trie, model->prefix.data, model->prefix.size);
    sdx_find_byte_tokens(model, &t->vocab);
    ARENA_NEW(&t->arena, model->merges->whole, t->vocab.size, err);
    sdx_status status = model->suffix.size ? SDX_OK : mark_whole(t, model->merges, &s, err);
    sdx_scratch_fini(&s);
    return status;
}
