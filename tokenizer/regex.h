/* regex.h: the patterns that tokenizer files carry. They are written for Oniguruma; PCRE2 reads them with the
 * few differences translated. */
#ifndef SDX_TOKENIZER_REGEX_H
#define SDX_TOKENIZER_REGEX_H

#include "tokenizer.h"

typedef struct sdx_regex sdx_regex;
typedef struct sdx_regex_match sdx_regex_match;

/* Belongs to the tokenizer, which frees it. */
sdx_status sdx_regex_compile(sdx_tokenizer *t, sdx_string pattern, const sdx_regex **out, sdx_error *err);
void sdx_regex_free_all(sdx_regex *first);
void sdx_regex_match_free(sdx_regex_match *match);

/* All matches from left to right; an empty one right behind the last is passed over. */
typedef struct sdx_regex_scan {
    const sdx_regex *regex;
    sdx_string text;
    size_t from, last_end; /* start with 0 and SIZE_MAX */
    size_t begin, end;     /* the match */
} sdx_regex_scan;

sdx_status sdx_regex_next(sdx_regex_scan *scan, sdx_scratch *s, bool *found, sdx_error *err);

#endif
