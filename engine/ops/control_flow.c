/* control_flow.c: If and Loop. Their subgraphs run through run_body like the main graph runs in a session; here is
 * only which one, how often, and on what. */
#include "control_flow.h"

#include <stdlib.h>
#include <string.h>

#include "copy.h"

/* ---- types ----------------------------------------------------------------------------------------------- */

sdx_type sdx_type_weaker(const sdx_type *a, const sdx_type *b)
{
    sdx_type t = {.dtype = a->dtype == b->dtype ? a->dtype : SDX_UNDEFINED, .shape = SDX_SHAPE_UNKNOWN};
    if (t.dtype == SDX_UNDEFINED || a->shape.rank != b->shape.rank) return t;
    t.shape.rank = a->shape.rank;
    for (int i = 0; i < t.shape.rank; i++)
        t.shape.dim[i] = sdx_dim_same(a->shape.dim[i], b->shape.dim[i]) ? a->shape.dim[i] : SDX_DIM_UNKNOWN;
    return t;
}

static bool same_type(const sdx_type *a, const sdx_type *b)
{
    return a->dtype == b->dtype && sdx_shape_same(&a->shape, &b->shape);
}

/* A state that is weakened is weakened for good, so a few rounds settle; what has not by then is unknown. */
sdx_status sdx_infer_turns(sdx_infer *x, sdx_graph *g, sdx_type *in, int first, int count, sdx_type *out, int back)
{
    enum { ROUNDS = 4 };
    for (int i = first; i < first + count; i++) in[i] = sdx_type_plain(&in[i]);
    for (int round = 0;; round++) {
        bool changed = false;
        TRY(x->body(x, g, in, out));
        for (int i = 0; i < count; i++) {
            sdx_type weaker = sdx_type_weaker(&in[first + i], &out[back + i]);
            if (same_type(&weaker, &in[first + i])) continue;
            in[first + i] = round < ROUNDS ? weaker : (sdx_type){.shape = SDX_SHAPE_UNKNOWN};
            changed = true;
        }
        if (!changed || round > ROUNDS + 1) return SDX_OK;
    }
}

sdx_type sdx_type_stacked(const sdx_type *element, int axis, sdx_dim length)
{
    sdx_type t = {.dtype = element->dtype, .shape = SDX_SHAPE_UNKNOWN};
    int rank = element->shape.rank + 1;
    if (element->shape.rank < 0 || rank > SDX_MAX_RANK || axis < 0 || axis >= rank) return t;
    t.shape.rank = rank;
    for (int i = 0, k = 0; i < rank; i++) {
        t.shape.dim[i] = i == axis ? length : element->shape.dim[k++];
        if (i != axis && !sdx_dim_is_known(t.shape.dim[i])) t.shape.dim[i] = SDX_DIM_UNKNOWN;
    }
    return t;
}

/* ---- what runs share ------------------------------------------------------------------------------------- */

sdx_status sdx_prepare_body(sdx_prepare *p, const char *name, int n_in, int n_out, sdx_graph **body)
{
    *body = sdx_node_body(p->node, name);
    if (!*body) return sdx_fail(p->err, SDX_ERR_FILE, "it lacks the subgraph \"%s\"", name);
    if ((*body)->n_input == n_in && (*body)->n_output >= n_out) return SDX_OK;
    return sdx_fail(p->err, SDX_ERR_FILE, "its subgraph \"%s\" has %d inputs and %d outputs; %d and at least %d fit",
                    name, (*body)->n_input, (*body)->n_output, n_in, n_out);
}

sdx_status sdx_run_number(sdx_run *run, const sdx_tensor *t, const char *what, int64_t *number)
{
    bool integer = sdx_dtype_is_integer(t->dtype) || t->dtype == SDX_BOOL;
    if (!integer || sdx_tensor_count(t) != 1)
        return sdx_fail(run->err, SDX_ERR_USAGE, "%s must be one integer or truth value", what);
    *number = sdx_tensor_get_i64(t, 0);
    return SDX_OK;
}

sdx_status sdx_run_check_state(sdx_run *run, int k, const sdx_tensor *before, const sdx_tensor *after)
{
    bool optional = before->dtype == SDX_NOTHING || after->dtype == SDX_NOTHING;
    if (before->dtype == after->dtype || optional) return SDX_OK;
    return sdx_fail(run->err, SDX_ERR_USAGE, "state %d comes back from the subgraph as %s, but was %s", k,
                    sdx_dtype_name(after->dtype), sdx_dtype_name(before->dtype));
}

sdx_status sdx_run_unseen(sdx_run *run, const sdx_graph *g, int output, sdx_dtype *dtype, sdx_shape *shape)
{
    const sdx_value *v = &g->value[g->output[output]];
    bool inferred = v->type.dtype != SDX_UNDEFINED;
    *dtype = inferred || !v->declared ? v->type.dtype : v->declared->dtype;
    *shape = inferred && v->type.shape.rank >= 0 ? v->type.shape : v->declared ? v->declared->shape : v->type.shape;
    if (*dtype == SDX_UNDEFINED)
        return sdx_fail(run->err, SDX_ERR_UNSUPPORTED, "output \"%s\" of a subgraph that never ran has no known type",
                        v->name);
    if (shape->rank < 0) shape->rank = 0;
    for (int i = 0; i < shape->rank; i++)
        if (!sdx_dim_is_known(shape->dim[i])) shape->dim[i] = 0;
    return SDX_OK;
}

sdx_status sdx_run_keep_strings(sdx_run *run, sdx_dtype dtype, void *data, int64_t count)
{
    char **string = data;
    for (int64_t i = 0; dtype == SDX_STRING && i < count; i++) {
        size_t bytes = strlen(string[i]) + 1;
        char *copy = sdx_arena_alloc(run->strings, bytes);
        if (!copy) return sdx_fail_memory(run->err, bytes);
        string[i] = memcpy(copy, string[i], bytes);
    }
    return SDX_OK;
}

/* ---- If -------------------------------------------------------------------------------------------------- */

typedef struct branches {
    sdx_graph *taken[2]; /* [0] when the condition is false */
} branches;

static const char *const branch_name[] = {"else_branch", "then_branch"};

static sdx_status infer_if(sdx_infer *x)
{
    if (!x->body) return SDX_OK;
    for (int b = 0; b < 2; b++) {
        sdx_graph *g = sdx_node_body(x->node, branch_name[b]);
        sdx_type *out;
        if (!g) return SDX_OK; /* prepare says so */
        ARENA_NEW(x->arena, out, (size_t)g->n_output, x->err);
        TRY(x->body(x, g, NULL, out));
        for (int i = 0; i < x->n_out && i < g->n_output; i++)
            x->out[i] = sdx_type_weaker(&out[i], b ? &x->out[i] : &out[i]);
    }
    return SDX_OK;
}

static sdx_status prepare_if(sdx_prepare *p)
{
    branches *s;
    ARENA_NEW(p->arena, s, 1, p->err);
    for (int b = 0; b < 2; b++) TRY(sdx_prepare_body(p, branch_name[b], 0, p->node->n_out, &s->taken[b]));
    p->state = s;
    return SDX_OK;
}

static sdx_status run_if(sdx_run *run)
{
    const branches *s = run->state;
    int64_t condition;
    TRY(sdx_run_number(run, &run->in[0], "the condition", &condition));
    const sdx_graph *g = s->taken[condition != 0];
    sdx_tensor *out;
    ARENA_NEW(run->scratch, out, (size_t)g->n_output, run->err);
    TRY(run->run_body(run, g, 0, NULL, out));
    for (int i = 0; i < run->n_out; i++) TRY(run->give(run, i, &out[i]));
    return SDX_OK;
}

/* ---- Loop ------------------------------------------------------------------------------------------------ */

/* The body takes turn, condition, states; it gives condition, states, and one element of each list. */
typedef struct loop {
    sdx_graph *body;
    int states, lists;
    int turn_rank, condition_rank; /* as the body declares them: scalars, or vectors of one */
} loop;

/* A list grows as long as the loop goes on. */
typedef struct list {
    sdx_dtype dtype;
    sdx_shape element;
    int64_t count;
    unsigned char *data; /* owned */
    size_t bytes, capacity;
} list;

static int declared_rank(const sdx_graph *g, int input)
{
    const sdx_declared *d = g->value[g->input[input]].declared;
    return d && d->shape.rank == 1;
}

static sdx_type one_of(sdx_dtype dtype, int rank)
{
    return (sdx_type){.dtype = dtype, .shape = {.rank = rank, .dim = {1}}};
}

static sdx_status infer_loop(sdx_infer *x)
{
    sdx_graph *g = sdx_node_body(x->node, "body");
    int states = x->n_in - 2;
    if (!x->body || !g || states < 0 || g->n_input != states + 2 || g->n_output < states + 1) return SDX_OK;
    sdx_type *in, *out;
    ARENA_NEW(x->arena, in, (size_t)g->n_input, x->err);
    ARENA_NEW(x->arena, out, (size_t)g->n_output, x->err);
    in[0] = one_of(SDX_I64, declared_rank(g, 0));
    in[1] = one_of(SDX_BOOL, declared_rank(g, 1));
    for (int i = 0; i < states; i++) in[2 + i] = x->in[2 + i];
    TRY(sdx_infer_turns(x, g, in, 2, states, out, 1));
    for (int i = 0; i < x->n_out && i < g->n_output - 1; i++)
        x->out[i] = i < states ? in[2 + i] : sdx_type_stacked(&out[1 + i], 0, SDX_DIM_UNKNOWN);
    return SDX_OK;
}

static sdx_status prepare_loop(sdx_prepare *p)
{
    loop *s;
    ARENA_NEW(p->arena, s, 1, p->err);
    if (p->n_in < 2) return sdx_fail(p->err, SDX_ERR_FILE, "it lacks its trip count and condition");
    s->states = p->n_in - 2;
    s->lists = p->node->n_out > s->states ? p->node->n_out - s->states : 0;
    TRY(sdx_prepare_body(p, "body", 2 + s->states, 1 + s->states + s->lists, &s->body));
    s->turn_rank = declared_rank(s->body, 0);
    s->condition_rank = declared_rank(s->body, 1);
    p->state = s;
    return SDX_OK;
}

static sdx_status grow(sdx_run *run, list *l, size_t more)
{
    size_t need, capacity;
    if (!sdx_add_size(l->bytes, more, &need) || !sdx_mul_size(need, 2, &capacity))
        return sdx_fail_memory(run->err, SIZE_MAX);
    if (need <= l->capacity) return SDX_OK;
    unsigned char *data = sdx_realloc(l->data, capacity);
    if (!data) return sdx_fail_memory(run->err, capacity);
    l->data = data;
    l->capacity = capacity;
    return SDX_OK;
}

static sdx_status append(sdx_run *run, list *l, int k, const sdx_tensor *t)
{
    sdx_shape shape = sdx_tensor_shape(t);
    char was[SDX_TENSOR_TEXT], is[SDX_TENSOR_TEXT];
    if (!l->count) {
        l->dtype = t->dtype;
        l->element = shape;
    }
    if (!sdx_dtype_is_tensor(t->dtype) || t->dtype != l->dtype || !sdx_shape_same(&shape, &l->element))
        return sdx_fail(run->err, SDX_ERR_USAGE, "elements of list %d must be tensors of one shape: %s after %s", k,
                        sdx_tensor_format(t->dtype, &shape, is, sizeof is),
                        sdx_tensor_format(l->dtype, &l->element, was, sizeof was));
    size_t bytes = sdx_tensor_bytes(t);
    TRY(grow(run, l, bytes));
    if (bytes) memcpy(l->data + l->bytes, t->data, bytes);
    TRY(sdx_run_keep_strings(run, t->dtype, l->data + l->bytes, sdx_tensor_count(t)));
    l->bytes += bytes;
    l->count++;
    return SDX_OK;
}

static sdx_status give_list(sdx_run *run, const loop *s, const list *l, int k)
{
    sdx_dtype dtype = l->dtype;
    sdx_shape element = l->element, shape = {0};
    if (!l->count) TRY(sdx_run_unseen(run, s->body, 1 + s->states + k, &dtype, &element));
    if (element.rank == SDX_MAX_RANK)
        return sdx_fail(run->err, SDX_ERR_UNSUPPORTED, "list %d would have a rank above %d", k, SDX_MAX_RANK);
    shape.rank = element.rank + 1;
    shape.dim[0] = l->count;
    for (int i = 0; i < element.rank; i++) shape.dim[1 + i] = element.dim[i];
    TRY(run->allocate(run, s->states + k, dtype, &shape));
    if (l->bytes && run->out[s->states + k].data) memcpy(run->out[s->states + k].data, l->data, l->bytes);
    return SDX_OK;
}

/* One turn: in[] and out[] are the body's; the states of in[] become those of out[]. */
static sdx_status turn(sdx_run *run, const loop *s, int64_t *number, int64_t *go_on, sdx_tensor *in, sdx_tensor *out,
                       list *lists)
{
    uint8_t condition = *go_on != 0;
    in[0] = (sdx_tensor){.dtype = SDX_I64, .rank = s->turn_rank, .dim = {1}, .data = number};
    in[1] = (sdx_tensor){.dtype = SDX_BOOL, .rank = s->condition_rank, .dim = {1}, .data = &condition};
    TRY(run->run_body(run, s->body, (int)(*number & 1), in, out));
    TRY(sdx_run_number(run, &out[0], "the condition that the subgraph gives", go_on));
    for (int k = 0; k < s->states; k++) {
        TRY(sdx_run_check_state(run, k, &in[2 + k], &out[1 + k]));
        in[2 + k] = out[1 + k];
    }
    for (int k = 0; k < s->lists; k++) TRY(append(run, &lists[k], k, &out[1 + s->states + k]));
    return SDX_OK;
}

static sdx_status take_turns(sdx_run *run, const loop *s, sdx_tensor *in, list *lists)
{
    int64_t turns = INT64_MAX, go_on = 1;
    sdx_tensor *out;
    ARENA_NEW(run->scratch, out, (size_t)s->body->n_output, run->err);
    if (sdx_run_has_in(run, 0)) TRY(sdx_run_number(run, &run->in[0], "the trip count", &turns));
    if (sdx_run_has_in(run, 1)) TRY(sdx_run_number(run, &run->in[1], "the condition", &go_on));
    for (int64_t i = 0; i < turns && go_on; i++) TRY(turn(run, s, &i, &go_on, in, out, lists));
    return SDX_OK;
}

static sdx_status run_loop(sdx_run *run)
{
    const loop *s = run->state;
    sdx_tensor *in;
    list *lists;
    ARENA_NEW(run->scratch, in, (size_t)s->body->n_input, run->err);
    ARENA_NEW(run->scratch, lists, (size_t)s->lists, run->err);
    for (int k = 0; k < s->states; k++) in[2 + k] = run->in[2 + k];
    sdx_status status;
    TRY_GOTO(take_turns(run, s, in, lists));
    for (int k = 0; k < s->states && k < run->n_out; k++) TRY_GOTO(run->give(run, k, &in[2 + k]));
    for (int k = 0; k < s->lists; k++) TRY_GOTO(give_list(run, s, &lists[k], k));
done:
    for (int k = 0; k < s->lists; k++) free(lists[k].data);
    return status;
}

enum { FLAGS = SDX_OP_DYNAMIC | SDX_OP_ANY_VALUE | SDX_OP_NONDETERMINISTIC };

static const sdx_op_def rows[] = {
    {"", "If", 1, 0, 1, 1, 1, -1, FLAGS, infer_if, prepare_if, NULL, run_if},
    {"", "Loop", 1, 0, 0, -1, 1, -1, FLAGS, infer_loop, prepare_loop, NULL, run_loop},
};
SDX_OP_TABLE(control_flow);
