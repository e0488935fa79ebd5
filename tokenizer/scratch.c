/* scratch.c: the growing arrays of one encode or decode call. They start large enough for ordinary text, so
 * that a call costs a handful of allocations whatever the number of tokens. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "regex.h"
#include "tokenizer.h"

enum { FIRST_ROOM = 256 };

void sdx_scratch_fini(sdx_scratch *s)
{
    free(s->now.text);
    free(s->now.piece);
    free(s->next.text);
    free(s->next.piece);
    free(s->ids);
    free(s->points);
    free(s->work);
    sdx_regex_match_free(s->match);
    *s = (sdx_scratch){0};
}

/* Doubles *array until count + more elements fit. Positions are 32-bit, so nothing grows beyond that. */
static sdx_status grow(void **array, size_t *room, size_t count, size_t more, size_t element, sdx_error *err)
{
    size_t need, capacity = *room ? *room : FIRST_ROOM;
    if (!sdx_add_size(count, more, &need) || need > UINT32_MAX / 2) {
        return sdx_fail(err, SDX_ERR_USAGE, "the text is too long to be tokenized at once: split it");
    }
    if (need <= *room) return SDX_OK;
    while (capacity < need) capacity *= 2;
    void *grown = sdx_realloc(*array, capacity * element);
    if (!grown) return sdx_fail_memory(err, capacity * element);
    *array = grown;
    *room = capacity;
    return SDX_OK;
}

sdx_status sdx_text_reserve(sdx_pieces *p, size_t more, sdx_error *err)
{
    if (p->text_room - p->size > more) return SDX_OK;
    void *array = p->text; /* one byte more, so that an empty text is not NULL */
    sdx_status status = grow(&array, &p->text_room, p->size, more + 1, 1, err);
    p->text = array;
    return status;
}

sdx_status sdx_piece_reserve(sdx_pieces *p, size_t more, sdx_error *err)
{
    void *array = p->piece;
    sdx_status status = grow(&array, &p->piece_room, p->count, more, sizeof *p->piece, err);
    p->piece = array;
    return status;
}

sdx_status sdx_id_reserve(sdx_scratch *s, size_t more, sdx_error *err)
{
    void *array = s->ids;
    sdx_status status = grow(&array, &s->id_room, s->id_count, more, sizeof *s->ids, err);
    s->ids = array;
    return status;
}

sdx_status sdx_point_reserve(sdx_scratch *s, size_t count, sdx_error *err)
{
    if (count <= s->point_room) return SDX_OK;
    size_t room = count < FIRST_ROOM ? FIRST_ROOM : count * 2, bytes;
    uint32_t *points = sdx_mul_size(room, 2 * sizeof *points, &bytes) ? sdx_realloc(s->points, bytes) : NULL;
    if (!points) return sdx_fail_memory(err, room * 2 * sizeof *points);
    s->points = points;
    s->spare = points + room;
    s->point_room = room;
    return SDX_OK;
}

sdx_status sdx_work_reserve(sdx_scratch *s, size_t bytes, sdx_error *err)
{
    if (bytes <= s->work_room) return SDX_OK;
    size_t room = bytes < 4096 ? 4096 : bytes + bytes / 2;
    free(s->work);
    s->work_room = 0;
    s->work = sdx_malloc(room);
    if (!s->work) return sdx_fail_memory(err, room);
    s->work_room = room;
    return SDX_OK;
}

sdx_status sdx_text_append(sdx_pieces *p, const char *bytes, size_t n, sdx_error *err)
{
    TRY(sdx_text_reserve(p, n, err));
    if (n) memcpy(p->text + p->size, bytes, n);
    p->size += n;
    return SDX_OK;
}

sdx_status sdx_text_repair(const char *bytes, size_t n, sdx_pieces *out, sdx_error *err)
{
    for (size_t i = 0; i < n;) {
        size_t good = sdx_utf8_valid(bytes + i, n - i);
        TRY(sdx_text_append(out, bytes + i, good, err));
        i += good;
        if (i == n) break;
        TRY(sdx_text_append(out, "\xef\xbf\xbd", 3, err));
        i += sdx_utf8_bad(bytes + i, n - i);
    }
    return SDX_OK;
}

void sdx_scratch_note_start(sdx_scratch *s)
{
    if (s->now.count && s->now.piece[0].begin) s->at_start = false;
}

void sdx_scratch_swap(sdx_scratch *s)
{
    sdx_pieces now = s->now;
    s->now = s->next;
    s->next = now;
    s->next.size = s->next.count = 0;
}

void sdx_scratch_swap_pieces(sdx_scratch *s)
{
    sdx_pieces now = s->now;
    s->now.piece = s->next.piece;
    s->now.count = s->next.count;
    s->now.piece_room = s->next.piece_room;
    s->next.piece = now.piece;
    s->next.count = 0;
    s->next.piece_room = now.piece_room;
}
