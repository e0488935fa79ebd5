/* transfer.c: what the hub sends, by libcurl, and whether it is what was meant, by Nettle. The hub names a file by
 * its SHA-256 if Git LFS keeps it, else by the SHA-1 that git gives its blob; both are checked.
 *
 * The token goes to the hub's host only: libcurl drops it when a redirect leads elsewhere, and no redirect may fall
 * back from https to http. */
#include <curl/curl.h>
#include <errno.h>
#include <fcntl.h>
#include <nettle/sha1.h>
#include <nettle/sha2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>

#include "../include/sardonyx.h" /* the version */
#include "fetch.h"

enum { MAX_TEXT = 16 << 20, SHOWN_FROM = 1 << 20 }; /* bytes */
enum { MAX_REDIRECTS = 8, TRIES = 5, CONNECT_SECONDS = 30, STALL_SECONDS = 60 };

/* ---- a transfer ------------------------------------------------------------------------------------------ */

typedef struct transfer {
    CURL *curl;
    struct curl_slist *headers;
    char why[CURL_ERROR_SIZE];
} transfer;

static void end_transfer(transfer *t)
{
    curl_slist_free_all(t->headers);
    curl_easy_cleanup(t->curl);
}

static int begin_transfer(const fetch_request *r, transfer *t)
{
    char line[600];
    bool https = !strncmp(r->url, "https:", 6);
    *t = (transfer){.curl = curl_easy_init()};
    if (!t->curl) return fetch_fail("%s: libcurl does not start", r->what);
    curl_easy_setopt(t->curl, CURLOPT_URL, r->url);
    curl_easy_setopt(t->curl, CURLOPT_USERAGENT, "sardonyx/" SDX_VERSION);
    curl_easy_setopt(t->curl, CURLOPT_ERRORBUFFER, t->why);
    curl_easy_setopt(t->curl, CURLOPT_NOSIGNAL, 1L);
    curl_easy_setopt(t->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_SECONDS);
    curl_easy_setopt(t->curl, CURLOPT_LOW_SPEED_LIMIT, 1L);
    curl_easy_setopt(t->curl, CURLOPT_LOW_SPEED_TIME, (long)STALL_SECONDS);
    curl_easy_setopt(t->curl, CURLOPT_MAXREDIRS, (long)MAX_REDIRECTS);
    curl_easy_setopt(t->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(t->curl, CURLOPT_REDIR_PROTOCOLS_STR, https ? "https" : "http,https");
    if (r->token) {
        snprintf(line, sizeof line, "Authorization: Bearer %s", r->token);
        t->headers = curl_slist_append(t->headers, line);
    }
    /* What is compressed on the way would not have the size and checksum that were announced. */
    t->headers = curl_slist_append(t->headers, "Accept-Encoding: identity");
    curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, t->headers);
    return FETCH_FINE;
}

static int explain(const fetch_request *r, const transfer *t, CURLcode code)
{
    return fetch_fail("%s: no such folder or cached model, and downloading it failed: %s", r->what,
                           *t->why ? t->why : curl_easy_strerror(code));
}

static long status_of(const transfer *t)
{
    long status = 0;
    curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    return status;
}

/* ---- asking ---------------------------------------------------------------------------------------------- */

/* A file's own checksum and size; of a large one they come as X-Linked-*, with a redirect to where it lies. */
typedef struct said {
    char etag[128], linked_etag[128];
    long long bytes, linked_bytes;
} said;

/* The value of header `name` in a line, quotes and "W/" stripped; false if the line is another's. */
static bool take_header(const char *line, size_t n, const char *name, char *out, size_t size)
{
    size_t length = strlen(name);
    if (n <= length || strncasecmp(line, name, length) || line[length] != ':') return false;
    const char *begin = line + length + 1, *end = line + n;
    while (begin < end && *begin == ' ') begin++;
    if (end - begin > 2 && !strncmp(begin, "W/", 2)) begin += 2;
    while (begin < end && *begin == '"') begin++;
    while (end > begin && strchr("\r\n \"", end[-1])) end--;
    snprintf(out, size, "%.*s", (int)(end - begin), begin);
    return true;
}

static size_t read_header(char *line, size_t size, size_t n, void *context)
{
    said *s = context;
    char number[32];
    (void)size; /* is 1 */
    if (take_header(line, n, "x-linked-etag", s->linked_etag, sizeof s->linked_etag)) return n;
    if (take_header(line, n, "etag", s->etag, sizeof s->etag)) return n;
    if (take_header(line, n, "x-linked-size", number, sizeof number)) s->linked_bytes = atoll(number);
    if (take_header(line, n, "content-length", number, sizeof number)) s->bytes = atoll(number);
    return n;
}

/* Both begin with the same "https://host/". */
static bool same_host(const char *a, const char *b)
{
    const char *host = strstr(a, "://");
    size_t n = host ? (size_t)(host + 3 - a) + strcspn(host + 3, "/") + 1 : 0;
    return n && !strncmp(a, b, n);
}

/* A redirect is followed while it stays on the hub (a model was renamed) and says nothing of the file. */
int fetch_ask(const fetch_request *r, fetch_answer *answer)
{
    transfer t;
    said s;
    char *next = NULL;
    int code = begin_transfer(r, &t);
    if (code != FETCH_FINE) return code;
    curl_easy_setopt(t.curl, CURLOPT_NOBODY, 1L);
    curl_easy_setopt(t.curl, CURLOPT_HEADERFUNCTION, read_header);
    curl_easy_setopt(t.curl, CURLOPT_HEADERDATA, &s);
    CURLcode done = CURLE_OK;
    for (int hop = 0; hop <= MAX_REDIRECTS && done == CURLE_OK; hop++) {
        s = (said){.bytes = -1, .linked_bytes = -1};
        done = curl_easy_perform(t.curl);
        curl_easy_getinfo(t.curl, CURLINFO_REDIRECT_URL, &next);
        if (!next || *s.linked_etag || !same_host(r->url, next)) break;
        curl_easy_setopt(t.curl, CURLOPT_URL, next);
    }
    bool linked = *s.linked_etag;
    *answer = (fetch_answer){.status = next && linked ? 200 : status_of(&t),
                               .bytes = linked && s.linked_bytes >= 0 ? s.linked_bytes : next ? -1 : s.bytes};
    memcpy(answer->etag, linked ? s.linked_etag : s.etag, sizeof answer->etag);
    code = done == CURLE_OK ? FETCH_FINE : explain(r, &t, done);
    end_transfer(&t);
    return code;
}

/* ---- a short text ---------------------------------------------------------------------------------------- */

typedef struct text {
    char *data;
    size_t n;
} text;

static size_t add_text(char *data, size_t size, size_t n, void *context)
{
    text *t = context;
    (void)size; /* is 1 */
    char *grown = n <= MAX_TEXT - t->n ? realloc(t->data, t->n + n + 1) : NULL;
    if (!grown) return 0;
    t->data = grown;
    memcpy(t->data + t->n, data, n);
    t->data[t->n += n] = 0;
    return n;
}

int fetch_text(const fetch_request *r, long *status, char **out)
{
    transfer t;
    text got = {NULL, 0};
    int code = begin_transfer(r, &t);
    if (code != FETCH_FINE) return code;
    curl_easy_setopt(t.curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(t.curl, CURLOPT_WRITEFUNCTION, add_text);
    curl_easy_setopt(t.curl, CURLOPT_WRITEDATA, &got);
    CURLcode done = curl_easy_perform(t.curl);
    *status = status_of(&t);
    code = done == CURLE_OK ? FETCH_FINE : explain(r, &t, done);
    end_transfer(&t);
    if (code == FETCH_FINE && (*out = got.data ? got.data : calloc(1, 1))) return FETCH_FINE;
    free(got.data);
    return code == FETCH_FINE ? fetch_fail("out of memory") : code;
}

/* ---- a file ---------------------------------------------------------------------------------------------- */

typedef struct saving {
    const fetch_request *request;
    int fd;
    int code;             /* errno of a failed write */
    long long from, size; /* bytes that were there before; in all, or -1 */
    int shown;            /* percent */
} saving;

static size_t put_file(char *data, size_t size, size_t n, void *context)
{
    saving *s = context;
    (void)size; /* is 1 */
    for (size_t done = 0; done < n;) {
        ssize_t put = write(s->fd, data + done, n - done);
        if (put < 0 && errno == EINTR) continue;
        if (put < 0) s->code = errno;
        if (put <= 0) return 0;
        done += (size_t)put;
    }
    return n;
}

static int show_progress(void *context, curl_off_t total, curl_off_t now, curl_off_t unused,
                         curl_off_t unused_too)
{
    saving *s = context;
    (void)total, (void)unused, (void)unused_too;
    if (s->request->quiet || s->size < SHOWN_FROM || !isatty(STDERR_FILENO)) return 0;
    int percent = (int)(100 * (s->from + now) / s->size);
    if (percent != s->shown) fprintf(stderr, "\r%s: %d%% of %lld MB", s->request->what, percent, s->size / 1000000);
    if (percent != s->shown && percent >= 100) fputc('\n', stderr);
    s->shown = percent;
    return 0;
}

static CURLcode continue_file(transfer *t, saving *s)
{
    curl_easy_setopt(t->curl, CURLOPT_FOLLOWLOCATION, 1L);
    curl_easy_setopt(t->curl, CURLOPT_FAILONERROR, 1L);
    curl_easy_setopt(t->curl, CURLOPT_RESUME_FROM_LARGE, (curl_off_t)s->from);
    curl_easy_setopt(t->curl, CURLOPT_WRITEFUNCTION, put_file);
    curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, s);
    curl_easy_setopt(t->curl, CURLOPT_NOPROGRESS, 0L);
    curl_easy_setopt(t->curl, CURLOPT_XFERINFOFUNCTION, show_progress);
    curl_easy_setopt(t->curl, CURLOPT_XFERINFODATA, s);
    return curl_easy_perform(t->curl);
}

/* Of a server that cannot begin in the middle the whole is asked for. */
static bool may_try_again(const saving *s, CURLcode done)
{
    if (s->code) return false;
    if (done == CURLE_RANGE_ERROR) return !ftruncate(s->fd, 0);
    return done == CURLE_PARTIAL_FILE || done == CURLE_RECV_ERROR || done == CURLE_GOT_NOTHING ||
           done == CURLE_OPERATION_TIMEDOUT || done == CURLE_HTTP2 || done == CURLE_HTTP2_STREAM;
}

/* Until all bytes are there. */
static int fill_file(saving *s)
{
    const fetch_request *r = s->request;
    for (int attempt = 1;; attempt++) {
        transfer t;
        s->from = (long long)lseek(s->fd, 0, SEEK_END);
        if (s->size >= 0 && s->from == s->size) return FETCH_FINE;
        if (s->size < 0 || s->from > s->size) { /* not what is meant now */
            if (ftruncate(s->fd, 0)) return fetch_fail("%s: %s", r->what, strerror(errno));
            s->from = 0;
        }
        int code = begin_transfer(r, &t);
        if (code != FETCH_FINE) return code;
        CURLcode done = continue_file(&t, s);
        if (s->shown >= 0 && s->shown < 100) fputc('\n', stderr); /* cut off: what follows is a line of its own */
        s->shown = -1;
        bool again = attempt < TRIES && may_try_again(s, done);
        if (done != CURLE_OK && !again)
            code = s->code ? fetch_fail("%s: %s", r->what, strerror(s->code)) : explain(r, &t, done);
        end_transfer(&t);
        if (code != FETCH_FINE || (done == CURLE_OK && s->size < 0)) return code;
        if (done == CURLE_OK && lseek(s->fd, 0, SEEK_END) != s->size)
            return fetch_fail("%s: %lld bytes came where %lld were announced", r->what,
                                   (long long)lseek(s->fd, 0, SEEK_END), s->size);
    }
}

/* ---- checksums ------------------------------------------------------------------------------------------- */

static void to_hex(const uint8_t *digest, size_t n, char *out)
{
    for (size_t i = 0; i < n; i++) snprintf(out + 2 * i, 3, "%02x", digest[i]);
}

/* Both checksums of the file: SHA-256 of its bytes, and git's SHA-1 of "blob SIZE\0" and its bytes. */
static int read_checksums(int fd, char *sha256, char *git_sha1)
{
    uint8_t block[1 << 15], digest[SHA256_DIGEST_SIZE];
    char head[48];
    struct sha256_ctx large;
    struct sha1_ctx git;
    int n = snprintf(head, sizeof head, "blob %lld", (long long)lseek(fd, 0, SEEK_END));
    sha256_init(&large);
    sha1_init(&git);
    sha1_update(&git, (size_t)n + 1, (const uint8_t *)head);
    lseek(fd, 0, SEEK_SET);
    ssize_t got;
    while ((got = read(fd, block, sizeof block)) > 0) {
        sha256_update(&large, (size_t)got, block);
        sha1_update(&git, (size_t)got, block);
    }
    sha256_digest(&large, SHA256_DIGEST_SIZE, digest);
    to_hex(digest, SHA256_DIGEST_SIZE, sha256);
    sha1_digest(&git, SHA1_DIGEST_SIZE, digest);
    to_hex(digest, SHA1_DIGEST_SIZE, git_sha1);
    return got < 0 ? errno : 0;
}

/* An ETag that is no checksum says nothing to compare with. */
static int check_file(int fd, const fetch_request *r, const fetch_answer *answer)
{
    char sha256[2 * SHA256_DIGEST_SIZE + 1], git_sha1[2 * SHA1_DIGEST_SIZE + 1];
    size_t n = strlen(answer->etag);
    int why = read_checksums(fd, sha256, git_sha1);
    if (why) return fetch_fail("%s: %s", r->what, strerror(why));
    const char *have = n == strlen(sha256) ? sha256 : n == strlen(git_sha1) ? git_sha1 : NULL;
    if (!have || !strcasecmp(have, answer->etag)) return FETCH_FINE;
    return fetch_fail("%s: came with checksum %s instead of %s and was thrown away; try again", r->what, have,
                           answer->etag);
}

int fetch_save(const fetch_request *r, const fetch_answer *answer, const char *path)
{
    saving s = {.request = r, .size = answer->bytes, .shown = -1};
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    s.fd = open(path, O_RDWR | O_CREAT | O_APPEND, 0666);
    if (s.fd < 0 || fcntl(s.fd, F_SETLKW, &whole)) { /* two processes may want the same file */
        int why = errno;
        if (s.fd >= 0) close(s.fd);
        return fetch_fail("%s: %s", path, strerror(why));
    }
    int code = fill_file(&s);
    if (code == FETCH_FINE && (code = check_file(s.fd, r, answer)) != FETCH_FINE) unlink(path);
    if (code == FETCH_FINE && fsync(s.fd)) code = fetch_fail("%s: %s", path, strerror(errno));
    close(s.fd);
    return code;
}
