/* family.c: see family.h */
#include "family.h"

#include <stdio.h>
#include <string.h>

/* X(name): sdx_family_<name>, defined in arch/. */
#define FAMILIES(X)                                                                                            \
    X(bert) X(distilbert) X(roberta) X(xlm_roberta) X(camembert) X(mpnet) X(electra) X(albert) X(deberta_v2)   \
    X(modernbert) X(gpt2) X(t5) X(mt5) X(bart) X(mbart) X(marian) X(pegasus) X(wav2vec2) X(hubert) X(vit) X(deit)

#define DECLARE(name) extern const sdx_family sdx_family_##name;
#define ADDRESS(name) &sdx_family_##name,
FAMILIES(DECLARE)
static const sdx_family *const families[] = {FAMILIES(ADDRESS)};
enum { N_FAMILIES = sizeof families / sizeof *families };

/* ---- the table ------------------------------------------------------------------------------------------- */

sdx_status sdx_family_find(const sdx_config *config, const sdx_family **out, sdx_error *err)
{
    const char *type = sdx_config_string(config, "model_type");
    if (!type) return sdx_fail(err, SDX_ERR_FILE, "%s: has no \"model_type\"", config->path);
    char known[640] = "";
    for (size_t i = 0, n = 0; i < N_FAMILIES; i++) {
        if (!strcmp(type, families[i]->model_type)) {
            *out = families[i];
            return SDX_OK;
        }
        if (n < sizeof known)
            n += (size_t)snprintf(known + n, sizeof known - n, "%s%s", i ? ", " : "", families[i]->model_type);
    }
    return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                    "%s: models of type \"%.60s\" cannot be converted yet; known types: %s", config->path, type,
                    known);
}

static const sdx_head *find_head(const sdx_family *family, const char *architecture, const char *task)
{
    for (size_t i = 0; i < family->n_head; i++) {
        const sdx_head *h = &family->head[i];
        if (task ? !strcmp(h->task, task) : !strcmp(h->architecture, architecture)) return h;
    }
    return NULL;
}

sdx_status sdx_family_find_head(const sdx_family *family, const sdx_config *config, const char *task,
                                const sdx_head **out, sdx_error *err)
{
    if (task && !strcmp(task, "auto")) task = NULL;
    const char *architecture = task ? "" : sdx_config_architecture(config, 0);
    if (!architecture)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: names no architecture, so the task must be given",
                        config->path);
    *out = find_head(family, architecture, task);
    if (*out) return SDX_OK;
    char known[640] = "";
    for (size_t i = 0, n = 0; i < family->n_head && n < sizeof known; i++)
        n += (size_t)snprintf(known + n, sizeof known - n, "%s%s (%s)", i ? ", " : "",
                              family->head[i].architecture, family->head[i].task);
    if (task)
        return sdx_fail(err, SDX_ERR_USAGE, "%s: no task \"%.60s\" for models of type \"%s\"; there are %s",
                        config->path, task, family->model_type, known);
    return sdx_fail(err, SDX_ERR_UNSUPPORTED,
                    "%s: architecture \"%.80s\" is unknown; known are %s; or give the task", config->path,
                    architecture, known);
}

/* ---- tensors --------------------------------------------------------------------------------------------- */

static int64_t size_of(const sdx_settings *s, char letter, int64_t layer)
{
    switch (letter) {
    case 'H': return s->hidden;
    case 'E': return s->embedding;
    case 'N': return s->heads;
    case 'I': return s->inner;
    case 'V': return s->vocab;
    case 'P': return s->positions;
    case 'T': return s->types;
    case 'L': return s->labels;
    case 'R': return s->buckets;
    case 'K': return s->kernel;
    case 'D': return s->hidden / s->groups;
    case 'h': return s->hidden / s->heads;
    case 'Y': return 2 * s->positions - 1;
    case 'J': return s->decoder_inner;
    case 'Q': return s->joined;
    case 'X': return s->patch;
    case 'F': return s->channels;
    case 'S': return s->stride * s->stride * s->channels;
    case 'W': return s->conv_width[s->convolutions - 1];
    case 'C': return s->conv_width[layer];
    case 'c': return layer ? s->conv_width[layer - 1] : 1;
    case 'k': return s->conv_kernel[layer];
    case 'U': return 1;
    case 'G': return s->decoder_vocab;
    case 'O': return s->output;
    case 'B': return s->adapter_kernel;
    case 'A': return s->adapter;
    case 'Z': return s->layers + 1;
    default: return 0;
    }
}

static void make_shape(const sdx_tensor_row *row, const sdx_settings *s, int64_t layer, sdx_tensor_spec *spec)
{
    for (const char *p = row->shape; *p; p++) {
        bool multiple = *p >= '0' && *p <= '9';
        int64_t factor = multiple ? *p++ - '0' : 1;
        spec->dim[spec->rank++] = factor * size_of(s, *p, layer);
    }
}

static const char numbers[] = "*+#%&";

/* What a row's number counts: 0 (nothing), '*', '#', '%' or '&'. */
static char counted(const sdx_tensor_row *row)
{
    const char *p = strpbrk(row->name, numbers);
    return !p ? 0 : *p == '+' ? '*' : *p;
}

static int64_t repeats(const sdx_settings *s, char kind)
{
    switch (kind) {
    case '*': return s->layers;
    case '#': return s->decoder_layers;
    case '%': return s->convolutions;
    case '&': return s->adapter_layers;
    default: return 1;
    }
}

static void make_name(const sdx_tensor_row *row, const sdx_settings *s, int64_t layer, sdx_tensor_spec *spec)
{
    int64_t per_group = strchr(row->name, '*') != strrchr(row->name, '*') ? s->inner_groups : 1;
    int64_t number = layer / per_group;
    size_t n = 0;
    for (const char *p = row->name; *p && n < sizeof spec->name; p++) {
        if (!strchr(numbers, *p)) {
            spec->name[n++] = *p;
            continue;
        }
        n += (size_t)snprintf(spec->name + n, sizeof spec->name - n, "%lld", (long long)number);
        number = layer % per_group;
    }
    spec->name[n < sizeof spec->name ? n : sizeof spec->name - 1] = 0;
}

static sdx_tensor_spec make_spec(const sdx_tensor_row *row, const sdx_settings *s, int64_t layer)
{
    sdx_tensor_spec spec = {.row = row};
    make_name(row, s, layer, &spec);
    make_shape(row, s, layer, &spec);
    return spec;
}

sdx_status sdx_family_each_tensor(const sdx_family *family, const sdx_settings *s, unsigned parts,
                                  sdx_tensor_visitor visit, void *context, sdx_error *err)
{
    for (size_t first = 0, last; first < family->n_row; first = last) {
        /* Neighbouring rows with a '*' make up a layer: all of layer 0 comes before layer 1. */
        char kind = counted(&family->row[first]);
        for (last = first; last < family->n_row && counted(&family->row[last]) == kind;) last++;
        for (int64_t layer = 0; layer < repeats(s, kind); layer++) {
            for (size_t i = first; i < last; i++) {
                const sdx_tensor_row *row = &family->row[i];
                if ((row->part & parts) != row->part || (layer == 0 && strchr(row->name, '+'))) continue;
                sdx_tensor_spec spec = make_spec(row, s, layer);
                TRY(visit(context, &spec, err));
            }
        }
    }
    return SDX_OK;
}

unsigned sdx_family_parts(const sdx_head *head, const sdx_settings *settings)
{
    unsigned parts = head->required | head->optional | settings->parts | (settings->tied ? 0 : head->untied);
    return parts & ~settings->without;
}

/* ---- checking -------------------------------------------------------------------------------------------- */

typedef struct presence {
    const sdx_checkpoint *checkpoint;
    unsigned found;
} presence;

static sdx_status look_for(void *context, const sdx_tensor_spec *spec, sdx_error *err)
{
    presence *p = context;
    (void)err;
    if (sdx_checkpoint_find(p->checkpoint, spec->name)) p->found |= spec->row->part;
    return SDX_OK;
}

static sdx_status check_tensor(void *context, const sdx_tensor_spec *spec, sdx_error *err)
{
    const sdx_tensor *tensor;
    return sdx_checkpoint_get(context, spec->name, spec->rank, spec->dim, &tensor, err);
}

static sdx_status check_head(const sdx_family *family, const sdx_head *head, const sdx_settings *settings,
                             sdx_checkpoint *checkpoint, unsigned *parts, sdx_error *err)
{
    presence p = {checkpoint, 0};
    TRY(sdx_family_each_tensor(family, settings, head->optional, look_for, &p, err));
    *parts = (sdx_family_parts(head, settings) & ~head->optional) | p.found;
    return sdx_family_each_tensor(family, settings, *parts, check_tensor, checkpoint, err);
}

sdx_status sdx_family_check(const sdx_family *family, const sdx_settings *settings, sdx_checkpoint *checkpoint,
                            const sdx_head **head, unsigned *parts, sdx_error *err)
{
    const sdx_head *end = family->head + family->n_head, *first = *head;
    checkpoint->prefix = family->prefix;
    sdx_status status = check_head(family, first, settings, checkpoint, parts, err);
    for (const sdx_head *h = first + 1; status == SDX_ERR_FILE && h < end; h++) {
        if (strcmp(h->architecture, first->architecture)) break;
        sdx_error ignored;
        if (check_head(family, h, settings, checkpoint, parts, &ignored) != SDX_OK) continue;
        *head = h;
        return SDX_OK;
    }
    return status;
}
