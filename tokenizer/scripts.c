/* scripts.c: UnicodeScripts, which cuts where one script follows another. Spaces, and characters that have none,
 * go with what stands before them. */
#include "tokenizer.h"

#include "script_tables.h"

/* 0: none */
static uint32_t script_of(uint32_t c)
{
    size_t low = 0, high = sizeof script_starts / sizeof *script_starts;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (script_starts[middle] >> 8 <= c)
            low = middle;
        else
            high = middle;
    }
    return script_starts[low] & 0xff;
}

static sdx_status cut_scripts(const sdx_step *step, sdx_piece piece, sdx_scratch *s, sdx_error *err)
{
    const unsigned char *text = (const unsigned char *)s->now.text, *end = text + piece.end;
    size_t begin = piece.begin;
    uint32_t last = 0;
    bool any = false; /* a script has been seen; what stands before it is dropped, as tokenizers does */
    (void)step;
    for (const unsigned char *p = text + piece.begin, *here = p; p < end; here = p) {
        uint32_t script = script_of(sdx_utf8_next(&p));
        if (!script || (any && script == last)) continue;
        if (any) TRY(sdx_piece_add(&s->next, begin, (size_t)(here - text), -1, err));
        begin = (size_t)(here - text);
        last = script;
        any = true;
    }
    return any ? sdx_piece_add(&s->next, begin, piece.end, -1, err) : SDX_OK;
}

SDX_STEP(sdx_split_scripts)
{
    TRY(sdx_each_piece(step, cut_scripts, s, err));
    sdx_scratch_swap_pieces(s);
    return SDX_OK;
}
