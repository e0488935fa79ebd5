/* cases.c: made-up inputs for a text encoder. Which channels of a normalized activation are large is a property of the
 * weights far more than of the text, so that any tokens show it. */
#include <stdlib.h>
#include <string.h>

#include "../base/memory.h"
#include "calibrate.h"

enum { CASES = 2, TOKENS = 64 };

/* Rows of the table that input_ids look up; 0 when there is none. */
static int64_t find_vocabulary(const sdx_graph *g)
{
    for (sdx_id i = 0; i < g->n_node; i++) {
        const sdx_node *n = &g->node[i], *cast;
        bool embed = sdx_node_is_in(n, "com.microsoft", "EmbedLayerNormalization");
        if (!embed && !sdx_node_is(n, "Gather")) continue;
        sdx_id index = n->in[embed ? 0 : 1], table = n->in[embed ? 2 : 0];
        while ((cast = sdx_graph_producer(g, index)) && sdx_node_is(cast, "Cast")) index = cast->in[0];
        const sdx_tensor *t = sdx_graph_constant(g, table);
        if (t && t->rank == 2 && g->value[index].is_input && !strcmp(g->value[index].name, "input_ids"))
            return t->dim[0];
    }
    return 0;
}

/* False when the input is not one that a text encoder has. */
static bool make_input(sdx_made_up *m, const sdx_port *port)
{
    bool known = strstr(port->name, "input_ids") || strstr(port->name, "mask") || strstr(port->name, "token_type") ||
                 strstr(port->name, "position_ids");
    if (!known || port->rank != 2 || (port->dtype != SDX_I64 && port->dtype != SDX_I32) ||
        m->n_input == SDX_MADE_UP_INPUTS)
        return false;
    sdx_tensor t = {.dtype = port->dtype, .rank = 2, .dim = {1, TOKENS}};
    for (int d = 0; d < 2; d++)
        if (port->dim[d] >= 0) t.dim[d] = port->dim[d];
    if (sdx_tensor_count(&t) > TOKENS * 32 || !(t.data = sdx_malloc(sdx_tensor_bytes(&t) + 1))) return false;
    m->name[m->n_input] = port->name;
    m->input[m->n_input++] = t;
    return true;
}

bool sdx_made_up_init(sdx_made_up *m, const sdx_model *model)
{
    *m = (sdx_made_up){.vocabulary = find_vocabulary(model->graph), .state = 1};
    bool ok = m->vocabulary > 0;
    for (size_t i = 0; i < sdx_model_input_count(model) && ok; i++) {
        sdx_port port = sdx_model_input(model, i);
        ok = port.has_default || make_input(m, &port);
    }
    return ok;
}

void sdx_made_up_fini(sdx_made_up *m)
{
    for (size_t i = 0; i < m->n_input; i++) free(m->input[i].data);
    *m = (sdx_made_up){.n_input = 0};
}

static int64_t element(sdx_made_up *m, const char *name, int64_t i, int64_t width)
{
    m->state = m->state * 6364136223846793005u + 1442695040888963407u; /* Knuth's MMIX generator */
    if (strstr(name, "mask")) return 1;
    if (strstr(name, "position")) return i % width;
    return strcmp(name, "input_ids") ? 0 : (int64_t)((m->state >> 33) % (uint64_t)m->vocabulary);
}

sdx_status sdx_made_up_next(void *context, sdx_case *out, sdx_error *err)
{
    (void)err;
    sdx_made_up *m = context;
    *out = (sdx_case){.count = m->made++ < CASES ? m->n_input : 0, .name = m->name, .tensor = m->input};
    for (size_t k = 0; k < out->count; k++) {
        sdx_tensor *t = &m->input[k];
        for (int64_t i = 0; i < sdx_tensor_count(t); i++) {
            int64_t id = element(m, m->name[k], i, t->dim[1]);
            if (t->dtype == SDX_I64) ((int64_t *)t->data)[i] = id;
            else ((int32_t *)t->data)[i] = (int32_t)id;
        }
    }
    return SDX_OK;
}

static size_t align_up(size_t bytes) { return (bytes + SDX_ALIGN - 1) / SDX_ALIGN * SDX_ALIGN; }

/* [tensors] [names] [bytes of each name and tensor, aligned] */
bool sdx_case_copy(const sdx_case *from, sdx_case *out, void **block)
{
    size_t n = from->count, head = n * (sizeof(char *) + sizeof(sdx_tensor)), bytes = align_up(head);
    for (size_t i = 0; i < n; i++)
        bytes += align_up(strlen(from->name[i]) + 1) + align_up(sdx_tensor_bytes(&from->tensor[i]));
    char *at = *block = sdx_malloc_aligned(bytes);
    if (!at) return false;
    sdx_tensor *tensor = (sdx_tensor *)(void *)at;
    const char **name = (const char **)(void *)(tensor + n);
    at += align_up(head);
    for (size_t i = 0; i < n; i++) {
        size_t length = strlen(from->name[i]) + 1, size = sdx_tensor_bytes(&from->tensor[i]);
        name[i] = memcpy(at, from->name[i], length);
        at += align_up(length);
        tensor[i] = from->tensor[i];
        tensor[i].data = size ? memcpy(at, from->tensor[i].data, size) : at;
        at += align_up(size);
    }
    *out = (sdx_case){n, name, tensor};
    return true;
}
