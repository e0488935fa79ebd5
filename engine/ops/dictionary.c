/* dictionary.c: see dictionary.h */
#include "dictionary.h"

#include <string.h>

sdx_item sdx_item_at(const sdx_tensor *t, int64_t i)
{
    if (t->dtype == SDX_STRING) return (sdx_item){.string = ((const char *const *)t->data)[i]};
    if (!sdx_dtype_is_float(t->dtype)) return (sdx_item){.bits = (uint64_t)sdx_tensor_get_i64(t, i)};
    double x = sdx_tensor_get_f64(t, i);
    sdx_item item = {.bits = UINT64_MAX}; /* NaN */
    if (x == 0) x = 0;
    if (x == x) memcpy(&item.bits, &x, sizeof x);
    return item;
}

static uint64_t hash(const sdx_item *item, int64_t count, int64_t step)
{
    const uint64_t prime = 0x100000001b3u;
    uint64_t h = 0xcbf29ce484222325u;
    for (int64_t i = 0; i < count; i++, item += step) {
        const unsigned char *s = (const unsigned char *)item->string;
        for (; s && *s; s++) h = (h ^ *s) * prime;
        for (int k = 0; !item->string && k < 64; k += 8) h = (h ^ (item->bits >> k & 0xff)) * prime;
        h = (h ^ 0x100) * prime; /* "ab","c" is not "a","bc" */
    }
    return h ^ h >> 29;
}

static bool same(const sdx_entry *e, const sdx_item *item, int64_t count, int64_t step)
{
    if (e->count != count) return false;
    for (int64_t i = 0; i < count; i++) {
        const sdx_item *a = &e->item[i], *b = &item[i * step];
        if (a->string && b->string ? strcmp(a->string, b->string)
                                   : a->string || b->string || a->bits != b->bits)
            return false;
    }
    return true;
}

/* Its slot, or the free one where it belongs. */
static sdx_entry *locate(const sdx_dictionary *d, const sdx_item *item, int64_t count, int64_t step)
{
    uint64_t at = hash(item, count, step) & d->mask;
    while (d->slot[at].item && !same(&d->slot[at], item, count, step)) at = (at + 1) & d->mask;
    return &d->slot[at];
}

sdx_status sdx_dictionary_init(sdx_dictionary *d, sdx_arena *arena, size_t entries, sdx_error *err)
{
    size_t slots = 2;
    while (slots / 2 <= entries && slots < SIZE_MAX / 2) slots *= 2;
    d->mask = slots - 1;
    ARENA_NEW(arena, d->slot, slots, err);
    return SDX_OK;
}

void sdx_dictionary_put(sdx_dictionary *d, const sdx_item *item, int64_t count, int64_t value)
{
    *locate(d, item, count, 1) = (sdx_entry){item, count, value};
}

int64_t sdx_dictionary_find(const sdx_dictionary *d, const sdx_item *item, int64_t count, int64_t step)
{
    const sdx_entry *e = locate(d, item, count, step);
    return e->item ? e->value : -1;
}
