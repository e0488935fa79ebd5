/* fetch.h: between what the hub's files are (hub.c) and how they come (transfer.c). Each function returns
 * FETCH_FINE, or FETCH_FAILED after a sentence on stderr. */
#ifndef SDX_FETCH_H
#define SDX_FETCH_H

#include <stdbool.h>

enum { FETCH_FINE = 0, FETCH_FAILED = 2 };

/* "sardonyx: sentence" on stderr; returns FETCH_FAILED. */
int fetch_fail(const char *format, ...) __attribute__((format(printf, 1, 2)));

typedef struct fetch_request {
    const char *url, *token; /* token NULL: none */
    const char *what;        /* for messages */
    bool quiet;              /* no progress, which is shown on terminals only */
} fetch_request;

/* What the hub says of a file before it is fetched. */
typedef struct fetch_answer {
    long status;
    /* without quotes: the SHA-256 of large files, git's SHA-1 of small ones; "" if there is none */
    char etag[128];
    long long bytes; /* -1: unknown */
} fetch_answer;

/* A bad status is left to the caller, here and in fetch_text. */
int fetch_ask(const fetch_request *request, fetch_answer *answer);
/* The whole answer as text of at most a few megabytes; free it. */
int fetch_text(const fetch_request *request, long *status, char **text);
/* Into the file at path, behind what is there already; its checksum is right afterwards. */
int fetch_save(const fetch_request *request, const fetch_answer *answer, const char *path);

#endif
