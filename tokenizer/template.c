/* template.c: from one or two sequences to what the model is fed: truncation, then the special tokens around. A
 * text that is cut is a row of windows; a pair gives every window of the one with every window of the other. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "tokenizer.h"

sdx_status sdx_template_set(sdx_tokenizer *t, sdx_template *out, const sdx_slot *slot, size_t count,
                            sdx_error *err)
{
    ARENA_NEW(&t->arena, out->slot, count, err);
    out->count = count;
    out->own = 0;
    for (size_t i = 0; i < count; i++) {
        out->slot[i] = slot[i];
        out->slot[i].part = SDX_SLOT_ID;
        out->own += slot[i].kind == SDX_SLOT_ID;
    }
    return SDX_OK;
}

/* ---- truncation ------------------------------------------------------------------------------------------ */

/* How one sequence is cut: its windows have `keep` tokens, of which neighbours share `stride`. */
typedef struct cut {
    sdx_sequence all;
    size_t keep, stride;
    bool left;
} cut;

static size_t min_size(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* Nothing kept leaves an empty window, and all in the next. */
static size_t window_count(const cut *c)
{
    if (c->keep >= c->all.count) return 1;
    if (!c->keep) return 2;
    size_t step = c->keep - c->stride;
    return 1 + (c->all.count - c->keep + step - 1) / step;
}

static sdx_sequence window(const cut *c, size_t i)
{
    sdx_sequence all = c->all;
    if (c->keep >= all.count || (!c->keep && i)) return all;
    size_t skip = i * (c->keep - c->stride), count = min_size(c->keep, all.count - skip);
    return (sdx_sequence){c->left ? all.ids + all.count - skip - count : all.ids + skip, count};
}

/* Only the longer is cut as long as it stays the longer; else each gets half, and the longer the odd one. Of
 * two that are equal b counts as the longer. */
static void share_room(cut *a, cut *b, size_t room)
{
    bool a_longer = a->all.count > b->all.count;
    size_t shorter = min_size(a->all.count, b->all.count), keep_short = shorter,
           keep_long = room - min_size(shorter, room);
    if (keep_long < shorter) {
        keep_short = room / 2;
        keep_long = room - keep_short;
    }
    a->keep = a_longer ? keep_long : keep_short;
    b->keep = a_longer ? keep_short : keep_long;
}

/* All that is too much goes from one of the two. */
static sdx_status cut_one(cut *c, size_t excess, sdx_error *err)
{
    if (c->all.count <= excess) {
        return sdx_fail(err, SDX_ERR_USAGE,
                        "the text to be truncated has %zu tokens, but %zu would have to go: cut the other too",
                        c->all.count, excess);
    }
    c->keep = c->all.count - excess;
    return SDX_OK;
}

static sdx_status plan_cuts(const sdx_template *template, const sdx_truncation *t, cut *a, cut *b,
                            sdx_error *err)
{
    if (t->max_length < template->own) {
        return sdx_fail(err, SDX_ERR_USAGE, "max_length %zu leaves no room for the %zu special tokens",
                        t->max_length, template->own);
    }
    size_t room = t->max_length - template->own, total = a->all.count + b->all.count;
    if (total <= room) return SDX_OK;
    if (!room) {
        a->keep = b->keep = 0;
        return SDX_OK;
    }
    switch (t->strategy) {
    case SDX_ONLY_FIRST: return cut_one(a, total - room, err);
    case SDX_ONLY_SECOND:
        if (b->all.ids) return cut_one(b, total - room, err);
        return sdx_fail(err, SDX_ERR_USAGE, "only the second text is to be truncated, and there is none");
    default: break;
    }
    if (b->all.ids)
        share_room(a, b, room);
    else
        a->keep = room;
    return SDX_OK;
}

static sdx_status check_stride(const cut *c, sdx_error *err)
{
    if (!c->keep || c->keep >= c->all.count || c->stride < c->keep) return SDX_OK;
    return sdx_fail(err, SDX_ERR_USAGE, "a stride of %zu does not fit windows of %zu tokens", c->stride,
                    c->keep);
}

/* ---- the template ---------------------------------------------------------------------------------------- */

static const sdx_sequence *sequence_of(const sdx_slot *slot, const sdx_sequence text[2])
{
    return slot->kind == SDX_SLOT_ID ? NULL : &text[slot->kind == SDX_SLOT_B];
}

/* further: whether text[i] is not the first window. */
static sdx_status put_around(const sdx_template *template, const sdx_sequence text[2], const bool further[2],
                             sdx_encoding *out, sdx_error *err)
{
    size_t count = 0;
    for (size_t i = 0; i < template->count; i++) {
        const sdx_sequence *from = sequence_of(&template->slot[i], text);
        count += from ? from->count : 1;
    }
    int64_t *ids = sdx_malloc(count * sizeof *ids), *types = sdx_malloc(count * sizeof *types);
    if (!ids || !types) {
        free(ids);
        free(types);
        return sdx_fail_memory(err, count * sizeof *ids);
    }
    *out = (sdx_encoding){.count = count, .ids = ids, .type_ids = types};
    for (size_t i = 0; i < template->count; i++) {
        const sdx_slot *slot = &template->slot[i];
        const sdx_sequence *from = sequence_of(slot, text), own = {&slot->id, 1};
        bool later = slot->part != SDX_SLOT_ID && further[slot->part == SDX_SLOT_B];
        if (!from) from = &own;
        for (size_t j = 0; j < from->count; j++) {
            *ids++ = from->ids[j];
            *types++ = later ? slot->window_type_id : slot->type_id;
        }
    }
    return SDX_OK;
}

/* Window i of the first text with window j of the second. */
static sdx_status put_windows(const sdx_template *template, const cut *a, const cut *b, size_t i, size_t j,
                              sdx_encoding *out, sdx_error *err)
{
    return put_around(template, (sdx_sequence[]){window(a, i), window(b, j)}, (bool[]){i > 0, j > 0}, out, err);
}

/* In the order of tokenizers: the first text's further windows, each with all of the second's, then the first
 * window with the second's further ones. */
static sdx_status put_overflow(const sdx_template *template, const cut *a, const cut *b, sdx_encoding *out,
                               sdx_error *err)
{
    enum { MOST = 1 << 16 };
    size_t rows = window_count(a), columns = window_count(b), count;
    if (!sdx_mul_size(rows, columns, &count) || count > MOST)
        return sdx_fail(err, SDX_ERR_USAGE, "truncation makes more than %d windows of this text", MOST);
    if (count == 1) return SDX_OK;
    out->overflow = sdx_calloc(count - 1, sizeof *out->overflow);
    if (!out->overflow) return sdx_fail_memory(err, count * sizeof *out->overflow);
    out->overflow_count = count - 1;
    for (size_t k = 1; k < count; k++) {
        size_t i = k / columns, j = k % columns;
        size_t at = i ? k - columns : (rows - 1) * columns + k - 1;
        TRY(put_windows(template, a, b, i, j, &out->overflow[at], err));
    }
    return SDX_OK;
}

sdx_status sdx_template_apply(const sdx_template *template, const sdx_truncation *truncation,
                              sdx_sequence first, sdx_sequence second, bool windows, sdx_encoding *out,
                              sdx_error *err)
{
    const sdx_truncation none = {.max_length = SIZE_MAX}, *t = truncation ? truncation : &none;
    cut a = {first, first.count, t->stride, t->left}, b = {second, second.count, t->stride, t->left};
    TRY(plan_cuts(template, t, &a, &b, err));
    TRY(check_stride(&a, err));
    TRY(check_stride(&b, err));
    TRY(put_windows(template, &a, &b, 0, 0, out, err));
    sdx_status status = windows ? put_overflow(template, &a, &b, out, err) : SDX_OK;
    if (status != SDX_OK) sdx_encoding_free(out);
    return status;
}
