/* pre_tokenize.c: the pre-tokenizers that cut text into words. Each is a function from code points to classes,
 * and the cutting is said once: pieces end where the class changes, spaces go, and punctuation may stand alone.
 */
#include "tokenizer.h"

typedef enum class { SPACE, WORD, MARK, ALONE } class; /* ALONE: each a piece of its own */

static class bert_class(uint32_t c)
{
    if (sdx_is_space(c)) return SPACE;
    return sdx_is_punctuation(c) ? ALONE : WORD;
}

static class word_class(uint32_t c) /* \w+|[^\w\s]+ */
{
    if (sdx_is_space(c)) return SPACE;
    return sdx_is_word(c) ? WORD : MARK;
}

static class space_class(uint32_t c)
{
    return sdx_is_space(c) ? SPACE : WORD;
}

typedef class (*classify)(uint32_t c);

/* The class of the code point at *p, by the table where it is ASCII. */
static inline class class_at(const unsigned char **p, const unsigned char ascii[128], classify of)
{
    if (**p < 0x80) return (class)ascii[*(*p)++];
    return of(sdx_utf8_next(p));
}

static sdx_status cut_piece(const sdx_step *step, classify of, sdx_piece piece, sdx_scratch *s, sdx_error *err)
{
    const unsigned char *text = (const unsigned char *)s->now.text;
    const unsigned char *p = text + piece.begin, *end = text + piece.end, *start = p;
    class open = SPACE; /* of the piece that began at start */
    while (p < end) {
        const unsigned char *here = p;
        class c = class_at(&p, step->ascii, of);
        if (c == open && c != ALONE) continue;
        if (open != SPACE) TRY(sdx_piece_add(&s->next, (size_t)(start - text), (size_t)(here - text), -1, err));
        open = c;
        start = here;
    }
    if (open == SPACE) return SDX_OK;
    return sdx_piece_add(&s->next, (size_t)(start - text), (size_t)(end - text), -1, err);
}

static void prepare(sdx_step *step, classify of)
{
    for (uint32_t c = 0; c < 128; c++) step->ascii[c] = (unsigned char)of(c);
}

static sdx_status cut(const sdx_step *step, classify of, sdx_scratch *s, sdx_error *err)
{
    TRY(sdx_piece_reserve(&s->next, s->now.size / 4, err));
    for (size_t i = 0; i < s->now.count; i++) {
        sdx_piece piece = s->now.piece[i];
        if (piece.id >= 0)
            TRY(sdx_piece_add(&s->next, piece.begin, piece.end, piece.id, err));
        else
            TRY(cut_piece(step, of, piece, s, err));
    }
    sdx_scratch_swap_pieces(s);
    return SDX_OK;
}

void sdx_split_bert_prepare(sdx_step *step)
{
    prepare(step, bert_class);
}

sdx_status sdx_split_bert(const sdx_step *step, sdx_scratch *s, sdx_error *err)
{
    return cut(step, bert_class, s, err);
}

void sdx_split_words_prepare(sdx_step *step)
{
    prepare(step, word_class);
}

sdx_status sdx_split_words(const sdx_step *step, sdx_scratch *s, sdx_error *err)
{
    return cut(step, word_class, s, err);
}

void sdx_split_spaces_prepare(sdx_step *step)
{
    prepare(step, space_class);
}

sdx_status sdx_split_spaces(const sdx_step *step, sdx_scratch *s, sdx_error *err)
{
    return cut(step, space_class, s, err);
}
