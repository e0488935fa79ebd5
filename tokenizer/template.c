/* template.c: from one or two sequences to what the model is fed: truncation, then the special tokens around.
 */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "tokenizer.h"

sdx_status sdx_template_set(sdx_tokenizer *t, sdx_template *out, const sdx_slot *slot, size_t count,
                            sdx_error *err)
{
    ARENA_NEW(&t->arena, out->slot, count, err);
    memcpy(out->slot, slot, count * sizeof *slot);
    out->count = count;
    return SDX_OK;
}

sdx_status sdx_template_bert(sdx_tokenizer *t, int32_t cls, int32_t sep, sdx_error *err)
{
    const sdx_slot slot[] = {{SDX_SLOT_ID, cls, 0},
                             {SDX_SLOT_A, -1, 0},
                             {SDX_SLOT_ID, sep, 0},
                             {SDX_SLOT_B, -1, 1},
                             {SDX_SLOT_ID, sep, 1}};
    TRY(sdx_template_set(t, &t->single, slot, 3, err));
    return sdx_template_set(t, &t->pair, slot, 5, err);
}

sdx_status sdx_template_roberta(sdx_tokenizer *t, int32_t cls, int32_t sep, sdx_error *err)
{
    const sdx_slot slot[] = {{SDX_SLOT_ID, cls, 0}, {SDX_SLOT_A, -1, 0}, {SDX_SLOT_ID, sep, 0},
                             {SDX_SLOT_ID, sep, 0}, {SDX_SLOT_B, -1, 0}, {SDX_SLOT_ID, sep, 0}};
    TRY(sdx_template_set(t, &t->single, slot, 3, err));
    return sdx_template_set(t, &t->pair, slot, 6, err);
}

static size_t own_tokens(const sdx_template *template)
{
    size_t n = 0;
    for (size_t i = 0; i < template->count; i++) n += template->slot[i].kind == SDX_SLOT_ID;
    return n;
}

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

static void keep(sdx_sequence *s, size_t count, bool left)
{
    if (left) s->ids += s->count - count;
    s->count = count;
}

/* Only the longer is cut as long as it stays the longer; else each gets half, and the longer the odd one. Of
 * two that are equal b counts as the longer. */
static void cut_pair(sdx_sequence *a, sdx_sequence *b, size_t room, bool left)
{
    bool a_longer = a->count > b->count;
    size_t shorter = min_size(a->count, b->count), keep_short = shorter,
           keep_long = room - min_size(shorter, room);
    if (keep_long < shorter) {
        keep_short = room / 2;
        keep_long = room - keep_short;
    }
    keep(a, a_longer ? keep_long : keep_short, left);
    keep(b, a_longer ? keep_short : keep_long, left);
}

sdx_status sdx_truncate(const sdx_template *template, bool left, size_t max_length, sdx_sequence *a,
                        sdx_sequence *b, sdx_error *err)
{
    size_t own = own_tokens(template), total = a->count + (b ? b->count : 0);
    if (!max_length) return SDX_OK;
    if (max_length < own) {
        return sdx_fail(err, SDX_ERR_USAGE, "max_length %zu leaves no room for the %zu special tokens",
                        max_length, own);
    }
    size_t room = max_length - own;
    if (total <= room) return SDX_OK;
    if (b)
        cut_pair(a, b, room, left);
    else
        keep(a, room, left);
    return SDX_OK;
}

static size_t slot_size(const sdx_slot *slot, sdx_sequence a, sdx_sequence b)
{
    return slot->kind == SDX_SLOT_ID ? 1 : slot->kind == SDX_SLOT_A ? a.count : b.count;
}

sdx_status sdx_template_apply(const sdx_template *template, sdx_sequence a, sdx_sequence b, sdx_encoding *out,
                              sdx_error *err)
{
    size_t count = 0;
    for (size_t i = 0; i < template->count; i++) count += slot_size(&template->slot[i], a, b);
    int64_t *ids = sdx_malloc(count * sizeof *ids), *types = sdx_malloc(count * sizeof *types);
    if (!ids || !types) {
        free(ids);
        free(types);
        return sdx_fail_memory(err, count * sizeof *ids);
    }
    *out = (sdx_encoding){count, ids, types};
    for (size_t i = 0; i < template->count; i++) {
        const sdx_slot *slot = &template->slot[i];
        const int32_t *from = slot->kind == SDX_SLOT_ID ? &slot->id : slot->kind == SDX_SLOT_A ? a.ids : b.ids;
        for (size_t j = 0, n = slot_size(slot, a, b); j < n; j++) {
            *ids++ = from[j];
            *types++ = slot->type_id;
        }
    }
    return SDX_OK;
}
