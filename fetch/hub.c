/* hub.c: sardonyx-fetch --quiet|--loud NAME ROOT: downloads a model from the Hugging Face hub into its folder of the
 * cache, laid out as huggingface_hub does, so that both find what the other fetched:
 *
 *   ROOT = HUB/models--org--name
 *   ROOT/snapshots/COMMIT/config.json   a link to ../../blobs/ETAG
 *   ROOT/blobs/ETAG, ETAG.incomplete    a file, and one that is being fetched
 *   ROOT/refs/main                      the commit
 *
 * Only what converting needs is fetched: configuration, tokenizer, and one set of weights. A blob gets its name when
 * its checksum is right, a link when there is a blob, and refs/main its commit at the end: what is interrupted is
 * continued by the next call. */
#include <ctype.h>
#include <errno.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "fetch.h"

enum { MAX_PATH = 4096, MAX_SHARDS = 4096 };

typedef struct hub {
    const char *name;
    const char *root;
    char endpoint[512];      /* without '/' at the end */
    char token[512];         /* "": none */
    char commit[80];
    json_t *files; /* the repository's list of {"rfilename": ...} */
    bool quiet;
} hub;

/* ---- what the environment says --------------------------------------------------------------------------- */

/* One part of a name: letters, digits, '-', '_' and '.', but not only dots. */
static bool is_part(const char *s, size_t n)
{
    bool more = false;
    for (size_t i = 0; i < n; i++) {
        if (!isalnum((unsigned char)s[i]) && !strchr("-_.", s[i])) return false;
        more |= s[i] != '.';
    }
    return more && n < 100;
}

/* The first line of a file; "" when there is none. */
static void read_line(const char *path, char *out, size_t size)
{
    FILE *f = fopen(path, "r");
    *out = 0;
    if (!f) return;
    if (!fgets(out, (int)size, f)) *out = 0;
    out[strcspn(out, "\r\n \t")] = 0;
    fclose(f);
}

/* HF_TOKEN, or what `hf auth login` has left. */
static void find_token(hub *h)
{
    const char *token = getenv("HF_TOKEN"), *home = getenv("HF_HOME"), *user = getenv("HOME");
    char path[MAX_PATH];
    if (token) {
        snprintf(h->token, sizeof h->token, "%s", token);
        return;
    }
    snprintf(path, sizeof path, "%s%s", home ? home : user ? user : ".", home ? "/token" : "/.cache/huggingface/token");
    read_line(path, h->token, sizeof h->token);
}

static void find_endpoint(hub *h)
{
    const char *endpoint = getenv("HF_ENDPOINT");
    snprintf(h->endpoint, sizeof h->endpoint, "%s", endpoint && *endpoint ? endpoint : "https://huggingface.co");
    size_t n = strlen(h->endpoint);
    while (n && h->endpoint[n - 1] == '/') h->endpoint[--n] = 0;
}

static bool exists(const char *path)
{
    struct stat st;
    return !stat(path, &st);
}

/* ---- what there is and what is wanted -------------------------------------------------------------------- */

static fetch_request request_of(const hub *h, const char *url, const char *what)
{
    return (fetch_request){.url = url, .token = *h->token ? h->token : NULL, .what = what, .quiet = h->quiet};
}

static int refuse(const hub *h, const char *file, long status)
{
    const char *separator = *file ? "/" : "";
    if (status == 401)
        return fetch_fail("%s%s%s: %s answers 401: there is no such model, or it is private or gated; if it is, "
                               "set HF_TOKEN to a token that may read it",
                               h->name, separator, file, h->endpoint);
    if (status == 403)
        return fetch_fail("%s%s%s: %s answers 403: your token may not read it; its page may ask you to accept "
                               "terms first",
                               h->name, separator, file, h->endpoint);
    if (status == 404)
        return fetch_fail("%s%s%s: %s answers 404: there is no such %s", h->name, separator, file, h->endpoint,
                               *file ? "file" : "model");
    return fetch_fail("%s%s%s: %s answers with HTTP status %ld", h->name, separator, file, h->endpoint, status);
}

/* Commit and files of the branch main. */
static int read_repository(hub *h)
{
    char url[MAX_PATH], *text = NULL;
    long status = 0;
    snprintf(url, sizeof url, "%s/api/models/%s/revision/main", h->endpoint, h->name);
    fetch_request request = request_of(h, url, h->name);
    int code = fetch_text(&request, &status, &text);
    if (code != FETCH_FINE) return code;
    if (status != 200) {
        free(text);
        return refuse(h, "", status);
    }
    json_t *json = json_loads(text, 0, NULL);
    free(text);
    const char *commit = json_string_value(json_object_get(json, "sha"));
    if (commit) snprintf(h->commit, sizeof h->commit, "%s", commit);
    h->files = json_incref(json_object_get(json, "siblings"));
    json_decref(json);
    if (is_part(h->commit, strlen(h->commit)) && json_is_array(h->files)) return FETCH_FINE;
    return fetch_fail("%s: %s answers without a commit and a list of files", h->name, h->endpoint);
}

static bool has_file(const hub *h, const char *name)
{
    size_t i;
    json_t *item;
    json_array_foreach(h->files, i, item)
    {
        const char *file = json_string_value(json_object_get(item, "rfilename"));
        if (file && !strcmp(file, name)) return true;
    }
    return false;
}

/* ---- one file -------------------------------------------------------------------------------------------- */

/* blobs/ETAG with its checksum right, unless it is there. */
static int fetch_blob(const hub *h, const char *file, char *blob, size_t size)
{
    char url[MAX_PATH], partial[MAX_PATH + 16], what[512];
    fetch_answer answer;
    snprintf(url, sizeof url, "%s/%s/resolve/%s/%s", h->endpoint, h->name, h->commit, file);
    snprintf(what, sizeof what, "%s/%s", h->name, file);
    fetch_request request = request_of(h, url, what);
    int code = fetch_ask(&request, &answer);
    if (code != FETCH_FINE) return code;
    if (answer.status != 200) return refuse(h, file, answer.status);
    if (!is_part(answer.etag, strlen(answer.etag)))
        return fetch_fail("%s: %s gives no usable ETag, so that nothing could be checked", what, h->endpoint);
    snprintf(blob, size, "%s/blobs/%s", h->root, answer.etag);
    if (exists(blob)) return FETCH_FINE;
    snprintf(partial, sizeof partial, "%s.incomplete", blob);
    code = fetch_save(&request, &answer, partial);
    if (code != FETCH_FINE) return code;
    return rename(partial, blob) ? fetch_fail("%s: %s", blob, strerror(errno)) : FETCH_FINE;
}

/* snapshots/COMMIT/file, a link to its blob. */
static int fetch_file(const hub *h, const char *file)
{
    char blob[MAX_PATH], link[MAX_PATH], target[MAX_PATH];
    snprintf(link, sizeof link, "%s/snapshots/%s/%s", h->root, h->commit, file);
    if (exists(link)) return FETCH_FINE;
    int code = fetch_blob(h, file, blob, sizeof blob);
    if (code != FETCH_FINE) return code;
    snprintf(target, sizeof target, "../../blobs/%s", strrchr(blob, '/') + 1);
    unlink(link); /* one that led nowhere */
    return symlink(target, link) && errno != EEXIST ? fetch_fail("%s: %s", link, strerror(errno)) : FETCH_FINE;
}

/* The files that an index names, each once. */
static int fetch_shards(const hub *h, const char *index)
{
    char path[MAX_PATH];
    const char *key;
    json_t *value;
    int code = fetch_file(h, index);
    if (code != FETCH_FINE) return code;
    snprintf(path, sizeof path, "%s/snapshots/%s/%s", h->root, h->commit, index);
    json_t *json = json_load_file(path, 0, NULL), *seen = json_object();
    json_object_foreach(json_object_get(json, "weight_map"), key, value)
    {
        const char *file = json_string_value(value);
        if (!file || !is_part(file, strlen(file)))
            code = fetch_fail("%s: names a file of another folder", path);
        else if (!json_object_get(seen, file) && !json_object_set_new(seen, file, json_true()))
            code = json_object_size(seen) > MAX_SHARDS ? fetch_fail("%s: names too many files", path)
                                                       : fetch_file(h, file);
        if (code != FETCH_FINE) break;
    }
    json_decref(seen);
    json_decref(json);
    return code;
}

/* ---- all of them ----------------------------------------------------------------------------------------- */

/* The first of these that there is, as Hugging Face prefers them. */
static int fetch_weights(const hub *h)
{
    static const struct {
        const char *file;
        bool index;
    } kinds[] = {{"model.safetensors", false},
                 {"model.safetensors.index.json", true},
                 {"pytorch_model.bin", false},
                 {"pytorch_model.bin.index.json", true}};
    for (size_t i = 0; i < sizeof kinds / sizeof *kinds; i++)
        if (has_file(h, kinds[i].file))
            return kinds[i].index ? fetch_shards(h, kinds[i].file) : fetch_file(h, kinds[i].file);
    return fetch_fail("%s: has no weights in a known format: neither model.safetensors nor pytorch_model.bin",
                           h->name);
}

static int fetch_rest(const hub *h)
{
    static const char *const names[] = {
        "tokenizer.json",   "tokenizer_config.json",    "special_tokens_map.json", "added_tokens.json",
        "vocab.txt",        "vocab.json",               "merges.txt",              "spiece.model",
        "spm.model",        "sentencepiece.bpe.model",  "tokenizer.model",         "source.spm",
        "target.spm",       "generation_config.json",   "preprocessor_config.json", "modules.json",
        "sentence_bert_config.json", "config_sentence_transformers.json",
    };
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        int code = has_file(h, names[i]) ? fetch_file(h, names[i]) : FETCH_FINE;
        if (code != FETCH_FINE) return code;
    }
    return FETCH_FINE;
}

static int write_ref(const hub *h)
{
    char path[MAX_PATH], fresh[MAX_PATH + 16];
    snprintf(path, sizeof path, "%s/refs/main", h->root);
    snprintf(fresh, sizeof fresh, "%s.%ld", path, (long)getpid());
    FILE *f = fopen(fresh, "w");
    bool good = f && fputs(h->commit, f) >= 0;
    good &= f && !fclose(f);
    if (good && !rename(fresh, path)) return FETCH_FINE;
    unlink(fresh);
    return fetch_fail("%s: cannot be written: %s", path, strerror(errno));
}

/* With parents. */
static int make_directory(char *path)
{
    for (char *p = path + 1;; p++) {
        char c = *p;
        if (c && c != '/') continue;
        *p = 0;
        if (mkdir(path, 0777) && errno != EEXIST)
            return fetch_fail("%s: cannot make the folder: %s", path, strerror(errno));
        *p = c;
        if (!c) return FETCH_FINE;
    }
}

static int fetch_model(hub *h)
{
    char path[MAX_PATH];
    int code = read_repository(h);
    const char *const folders[] = {"blobs", "refs", "snapshots"};
    for (size_t i = 0; code == FETCH_FINE && i < sizeof folders / sizeof *folders; i++) {
        snprintf(path, sizeof path, "%s/%s%s%s", h->root, folders[i], i == 2 ? "/" : "", i == 2 ? h->commit : "");
        code = make_directory(path);
    }
    if (code == FETCH_FINE) code = fetch_file(h, "config.json");
    if (code == FETCH_FINE) code = fetch_rest(h);
    if (code == FETCH_FINE) code = fetch_weights(h);
    if (code == FETCH_FINE) code = write_ref(h);
    json_decref(h->files);
    return code;
}

int fetch_fail(const char *format, ...)
{
    va_list args;
    va_start(args, format);
    fputs("sardonyx: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    return FETCH_FAILED;
}

int main(int argc, char **argv)
{
    if (argc != 4) return fetch_fail("usage: sardonyx-fetch --quiet|--loud NAME ROOT");
    hub h = {.name = argv[2], .root = argv[3], .quiet = !strcmp(argv[1], "--quiet")};
    find_endpoint(&h);
    find_token(&h);
    return fetch_model(&h);
}
