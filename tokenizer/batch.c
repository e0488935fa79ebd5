/* batch.c: several texts at once, as the tokenizers library encodes them: overflowing windows, and padding to
 * one length. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "tokenizer.h"

void sdx_encoding_free(sdx_encoding *encoding)
{
    if (!encoding) return;
    for (size_t i = 0; i < encoding->overflow_count; i++) sdx_encoding_free(&encoding->overflow[i]);
    free(encoding->overflow);
    free(encoding->ids);
    free(encoding->type_ids);
    *encoding = (sdx_encoding){0};
}

const sdx_truncation *sdx_tokenizer_truncation(const sdx_tokenizer *t)
{
    return t->truncation;
}

const sdx_padding *sdx_tokenizer_padding(const sdx_tokenizer *t)
{
    return t->padding;
}

/* ---- padding --------------------------------------------------------------------------------------------- */

static sdx_status padded_length(const sdx_padding *p, const sdx_encoding *e, size_t count, size_t *out,
                                sdx_error *err)
{
    enum { MOST = 1 << 28 };
    size_t length = p->fixed ? p->length : 0;
    for (size_t i = 0; i < count && !p->fixed; i++) {
        if (e[i].count > length) length = e[i].count;
    }
    if (length > MOST || p->multiple > MOST)
        return sdx_fail(err, SDX_ERR_USAGE, "padding to %zu tokens, or a multiple of %zu", length, p->multiple);
    size_t rest = p->multiple ? length % p->multiple : 0;
    *out = rest ? length + p->multiple - rest : length;
    return SDX_OK;
}

/* Makes *values [length] of [count]. */
static sdx_status pad_values(int64_t **values, size_t count, size_t length, int64_t with, bool left,
                             sdx_error *err)
{
    size_t more = length - count;
    int64_t *x = sdx_realloc(*values, length * sizeof *x);
    if (!x) return sdx_fail_memory(err, length * sizeof *x);
    *values = x;
    if (left) memmove(x + more, x, count * sizeof *x);
    for (size_t i = 0; i < more; i++) x[left ? i : count + i] = with;
    return SDX_OK;
}

static sdx_status pad(sdx_encoding *e, const sdx_padding *p, size_t length, sdx_error *err)
{
    for (size_t i = 0; i < e->overflow_count; i++) TRY(pad(&e->overflow[i], p, length, err));
    if (e->count >= length) return SDX_OK;
    TRY(pad_values(&e->ids, e->count, length, p->id, p->left, err));
    TRY(pad_values(&e->type_ids, e->count, length, p->type_id, p->left, err));
    e->padding = length - e->count;
    e->count = length;
    return SDX_OK;
}

static sdx_status pad_all(const sdx_padding *p, sdx_encoding *e, size_t count, sdx_error *err)
{
    size_t length = 0;
    TRY(padded_length(p, e, count, &length, err));
    for (size_t i = 0; i < count; i++) TRY(pad(&e[i], p, length, err));
    return SDX_OK;
}

sdx_status sdx_tokenizer_encode_batch(const sdx_tokenizer *t, const sdx_text *texts, const sdx_text *pairs,
                                      size_t count, const sdx_truncation *truncation,
                                      const sdx_padding *padding, sdx_encoding *out, sdx_error *err)
{
    size_t done = 0;
    sdx_status status = SDX_OK;
    for (; done < count && status == SDX_OK; done += status == SDX_OK) {
        sdx_text pair = pairs ? pairs[done] : (sdx_text){0};
        status = sdx_tokenizer_encode_as(t, texts[done], pair, truncation, true, &out[done], err);
    }
    if (status == SDX_OK && padding) status = pad_all(padding, out, count, err);
    while (status != SDX_OK && done) sdx_encoding_free(&out[--done]);
    return status;
}
