/* scan.c: Scan cuts its inputs into slices along an axis, runs its subgraph on one slice of each after the other
 * with states handed on, and puts the slices that come out together again. Scan-8 does so for every element of a
 * batch, of which each may be shorter than the longest: seen from one element, it is the Scan of today along
 * axis 0. */
#include <string.h>

#include "contents.h"
#include "control_flow.h"
#include "copy.h"

typedef struct scan {
    sdx_graph *body;
    bool batched;  /* Scan-8: lengths are input 0, the rest has a batch in front */
    int first;     /* input that is state 0 */
    int states, slices_in, slices_out;
    const int64_t *axis_in, *axis_out; /* or NULL: all 0 */
    const int64_t *back_in, *back_out; /* 1: from the end; or NULL: none */
} scan;

/* A tensor cut along an axis. */
typedef struct cut {
    sdx_tensor whole;
    int axis;
    bool back;
} cut;

/* ---- infer and prepare ----------------------------------------------------------------------------------- */

static sdx_status infer_scan(sdx_infer *x)
{
    sdx_graph *g = sdx_node_body(x->node, "body");
    int64_t slices = sdx_node_int(x->node, "num_scan_inputs", 0);
    int states = (int)(x->n_in - slices);
    if (!x->body || !g || slices < 1 || slices > x->n_in || g->n_input != x->n_in || g->n_output < states)
        return SDX_OK;
    sdx_type *in, *out;
    size_t count;
    ARENA_NEW(x->arena, in, (size_t)g->n_input, x->err);
    ARENA_NEW(x->arena, out, (size_t)g->n_output, x->err);
    const int64_t *axes = sdx_node_ints(x->node, "scan_input_axes", &count);
    for (int i = 0; i < x->n_in; i++) {
        in[i] = sdx_type_plain(&x->in[i]);
        if (i < states || in[i].shape.rank <= 0) continue;
        int axis = 0, rank = in[i].shape.rank--;
        if (axes && (int)count > i - states) TRY(sdx_axis_normalize(axes[i - states], rank, &axis, x->err));
        for (int k = axis; k < rank - 1; k++) in[i].shape.dim[k] = in[i].shape.dim[k + 1];
    }
    TRY(sdx_infer_turns(x, g, in, 0, states, out, 0));
    for (int i = 0; i < x->n_out && i < g->n_output; i++) {
        if (i < states) x->out[i] = in[i];
        else x->out[i].dtype = out[i].dtype;
    }
    return SDX_OK;
}

/* The first version's types are for the run to tell. */
static sdx_status infer_scan_8(sdx_infer *x)
{
    sdx_graph *g = sdx_node_body(x->node, "body");
    if (!x->body || !g) return SDX_OK;
    sdx_type *in, *out;
    ARENA_NEW(x->arena, in, (size_t)g->n_input, x->err);
    ARENA_NEW(x->arena, out, (size_t)g->n_output, x->err);
    for (int i = 0; i < g->n_input; i++) in[i] = (sdx_type){.shape = SDX_SHAPE_UNKNOWN};
    return x->body(x, g, in, out);
}

/* One number for each of `count` slices, or no list at all. */
static sdx_status read_list(sdx_prepare *p, const char *name, int count, const int64_t **out)
{
    size_t given;
    *out = sdx_node_ints(p->node, name, &given);
    if (!*out || (int)given == count) return SDX_OK;
    return sdx_fail(p->err, SDX_ERR_FILE, "%s lists %zu numbers for %d slices", name, given, count);
}

static sdx_status prepare_scan_of(sdx_prepare *p, bool batched)
{
    scan *s;
    ARENA_NEW(p->arena, s, 1, p->err);
    s->batched = batched;
    s->first = batched;
    int64_t slices = sdx_node_int(p->node, "num_scan_inputs", 0);
    if (slices < 1 || slices > p->n_in - s->first)
        return sdx_fail(p->err, SDX_ERR_FILE, "num_scan_inputs is %lld, with %d inputs", (long long)slices, p->n_in);
    s->slices_in = (int)slices;
    s->states = p->n_in - s->first - s->slices_in;
    s->slices_out = p->node->n_out - s->states;
    if (s->slices_out < 0)
        return sdx_fail(p->err, SDX_ERR_FILE, "it has %d outputs for %d states", p->node->n_out, s->states);
    TRY(sdx_prepare_body(p, "body", p->n_in - s->first, p->node->n_out, &s->body));
    TRY(read_list(p, batched ? "directions" : "scan_input_directions", s->slices_in, &s->back_in));
    if (!batched) {
        TRY(read_list(p, "scan_input_axes", s->slices_in, &s->axis_in));
        TRY(read_list(p, "scan_output_axes", s->slices_out, &s->axis_out));
        TRY(read_list(p, "scan_output_directions", s->slices_out, &s->back_out));
    }
    p->state = s;
    return SDX_OK;
}

static sdx_status prepare_scan(sdx_prepare *p) { return prepare_scan_of(p, false); }
static sdx_status prepare_scan_8(sdx_prepare *p) { return prepare_scan_of(p, true); }

/* ---- slices ---------------------------------------------------------------------------------------------- */

/* Elements before and behind the axis. */
static void spans(const cut *c, int64_t *outer, int64_t *inner)
{
    sdx_shape s = sdx_tensor_shape(&c->whole);
    *outer = sdx_shape_span(&s, 0, c->axis);
    *inner = sdx_shape_span(&s, c->axis + 1, s.rank);
}

/* Slice `at` to or from contiguous memory. */
static void move_slice(const cut *c, int64_t at, void *slice, bool into, int threads)
{
    int64_t outer, inner, length = c->whole.dim[c->axis];
    spans(c, &outer, &inner);
    if (c->back) at = length - 1 - at;
    size_t size = sdx_element_size(c->whole.dtype);
    char *place = (char *)c->whole.data + (size_t)(at * inner) * size;
    sdx_copy copy = {
        .rank = 2, .dim = {outer, inner}, .size = size, .src = into ? slice : place, .dst = into ? place : slice};
    copy.src_stride[0] = into ? inner : length * inner;
    copy.dst_stride[0] = into ? length * inner : inner;
    copy.src_stride[1] = copy.dst_stride[1] = 1;
    sdx_copy_strided(&copy, threads);
}

/* A slice of c, with memory of its own. */
static sdx_status make_slice(sdx_run *run, const cut *c, sdx_tensor *slice)
{
    *slice = c->whole;
    slice->rank--;
    for (int i = c->axis; i < slice->rank; i++) slice->dim[i] = c->whole.dim[i + 1];
    size_t bytes = sdx_tensor_bytes(slice);
    slice->data = sdx_arena_alloc(run->scratch, bytes < SDX_ALIGN ? SDX_ALIGN : bytes);
    return slice->data ? SDX_OK : sdx_fail_memory(run->err, bytes);
}

/* ---- one element of the batch ---------------------------------------------------------------------------- */

typedef struct scanning {
    sdx_run *run;
    const scan *s;
    int64_t batch, length;  /* 1 when not batched */
    cut *from;              /* [slices_in] */
    sdx_tensor *in, *out;   /* of the body */
    sdx_shape *element;     /* [slices_out]: shape of the first slice that came out; rank -1: none yet */
} scanning;

/* Element b of a batch: the rest of the dims. */
static sdx_tensor batch_element(const sdx_tensor *t, int64_t b)
{
    sdx_tensor e = *t;
    e.rank--;
    for (int i = 0; i < e.rank; i++) e.dim[i] = t->dim[i + 1];
    e.data = (char *)t->data + (size_t)(b * sdx_tensor_count(&e)) * sdx_element_size(t->dtype);
    return e;
}

/* Output o becomes [batch?, element with length at axis]. */
static sdx_status allocate_slices(scanning *x, int k, sdx_dtype dtype, const sdx_shape *element)
{
    sdx_run *run = x->run;
    int axis = 0, o = x->s->states + k;
    sdx_shape shape = {.rank = 0};
    if (element->rank + 1 + x->s->batched > SDX_MAX_RANK)
        return sdx_fail(run->err, SDX_ERR_UNSUPPORTED, "output %d would have a rank above %d", o, SDX_MAX_RANK);
    if (x->s->axis_out) TRY(sdx_axis_normalize(x->s->axis_out[k], element->rank + 1, &axis, run->err));
    if (x->s->batched) shape.dim[shape.rank++] = x->batch;
    for (int i = 0; i <= element->rank; i++)
        shape.dim[shape.rank++] = i == axis ? x->length : element->dim[i - (i > axis)];
    TRY(run->allocate(run, o, dtype, &shape));
    x->element[k] = *element;
    size_t bytes = run->out[o].data ? sdx_tensor_bytes(&run->out[o]) : 0;
    if (x->s->batched && bytes) memset(run->out[o].data, 0, bytes); /* behind shorter sequences */
    return SDX_OK;
}

static sdx_status put_slice(scanning *x, int k, int64_t b, int64_t at, const sdx_tensor *slice)
{
    sdx_run *run = x->run;
    int axis = 0, o = x->s->states + k;
    sdx_shape shape = sdx_tensor_shape(slice);
    if (!sdx_dtype_is_tensor(slice->dtype)) return sdx_fail(run->err, SDX_ERR_USAGE, "output %d is not a tensor", o);
    if (x->element[k].rank < 0) TRY(allocate_slices(x, k, slice->dtype, &shape));
    if (!sdx_shape_same(&shape, &x->element[k]) || (run->out[o].data && run->out[o].dtype != slice->dtype))
        return sdx_fail(run->err, SDX_ERR_USAGE, "the slices of output %d differ in shape or type", o);
    if (!run->out[o].data || !sdx_tensor_bytes(slice)) return SDX_OK;
    TRY(sdx_run_keep_strings(run, slice->dtype, slice->data, sdx_tensor_count(slice)));
    if (x->s->axis_out) TRY(sdx_axis_normalize(x->s->axis_out[k], shape.rank + 1, &axis, run->err));
    cut to = {.whole = x->s->batched ? batch_element(&run->out[o], b) : run->out[o], .axis = axis};
    to.back = x->s->back_out && x->s->back_out[k];
    move_slice(&to, at, slice->data, true, run->threads);
    return SDX_OK;
}

static sdx_status scan_step(scanning *x, int64_t b, int64_t at)
{
    const scan *s = x->s;
    for (int k = 0; k < s->slices_in; k++)
        move_slice(&x->from[k], at, x->in[s->states + k].data, false, x->run->threads);
    TRY(x->run->run_body(x->run, s->body, (int)(at & 1), x->in, x->out));
    for (int k = 0; k < s->states; k++) {
        TRY(sdx_run_check_state(x->run, k, &x->in[k], &x->out[k]));
        x->in[k] = x->out[k];
    }
    for (int k = 0; k < s->slices_out; k++) TRY(put_slice(x, k, b, at, &x->out[s->states + k]));
    return SDX_OK;
}

/* ---- the whole ------------------------------------------------------------------------------------------- */

static sdx_status check_lengths(scanning *x)
{
    const scan *s = x->s;
    sdx_run *run = x->run;
    for (int k = 0; k < s->slices_in; k++) {
        const sdx_tensor *t = &run->in[s->first + s->states + k];
        cut *c = &x->from[k];
        *c = (cut){.whole = *t, .back = s->back_in && s->back_in[k]};
        if (t->rank < 1 + s->batched || !sdx_dtype_is_tensor(t->dtype))
            return sdx_fail(run->err, SDX_ERR_USAGE, "a tensor of rank %d cannot be cut", t->rank);
        if (s->axis_in) TRY(sdx_axis_normalize(s->axis_in[k], t->rank, &c->axis, run->err));
        int64_t length = t->dim[s->batched ? 1 : c->axis], batch = s->batched ? t->dim[0] : 1;
        if (k && (length != x->length || batch != x->batch))
            return sdx_fail(run->err, SDX_ERR_USAGE, "the inputs to cut differ in length: %lld and %lld",
                            (long long)x->length, (long long)length);
        x->length = length;
        x->batch = batch;
    }
    for (int k = 0; k < s->states && s->batched; k++)
        if (run->in[s->first + k].rank < 1 || run->in[s->first + k].dim[0] != x->batch)
            return sdx_fail(run->err, SDX_ERR_USAGE, "state %d is not a batch of %lld", k, (long long)x->batch);
    return SDX_OK;
}

static sdx_status batch_length(const scanning *x, int64_t b, int64_t *length)
{
    *length = x->length;
    if (!x->s->batched || !sdx_run_has_in(x->run, 0)) return SDX_OK;
    const sdx_tensor *t = &x->run->in[0];
    if (t->dtype != SDX_I64 || sdx_tensor_count(t) != x->batch)
        return sdx_fail(x->run->err, SDX_ERR_USAGE, "the lengths must be %lld integers", (long long)x->batch);
    *length = ((const int64_t *)t->data)[b];
    if (*length >= 0 && *length <= x->length) return SDX_OK;
    return sdx_fail(x->run->err, SDX_ERR_USAGE, "length %lld is outside 0..%lld", (long long)*length,
                    (long long)x->length);
}

/* Final states: as they are, or into their place of the batch. */
static sdx_status keep_states(scanning *x, int64_t b)
{
    sdx_run *run = x->run;
    for (int k = 0; k < x->s->states; k++) {
        const sdx_tensor *t = &x->in[k];
        if (!x->s->batched) {
            TRY(run->give(run, k, t));
            continue;
        }
        if (t->rank == SDX_MAX_RANK) return sdx_fail(run->err, SDX_ERR_USAGE, "state %d changes its rank", k);
        sdx_shape shape = {.rank = t->rank + 1, .dim = {x->batch}};
        for (int i = 0; i < t->rank; i++) shape.dim[i + 1] = t->dim[i];
        if (b == 0) TRY(run->allocate(run, k, t->dtype, &shape));
        if (!run->out[k].data) continue;
        sdx_tensor to = batch_element(&run->out[k], b);
        sdx_shape want = sdx_tensor_shape(&to), have = sdx_tensor_shape(t);
        if (!sdx_shape_same(&want, &have)) return sdx_fail(run->err, SDX_ERR_USAGE, "state %d changes its shape", k);
        if (sdx_tensor_bytes(t)) memcpy(to.data, t->data, sdx_tensor_bytes(t));
    }
    return SDX_OK;
}

static sdx_status scan_element(scanning *x, int64_t b)
{
    const scan *s = x->s;
    int64_t length;
    TRY(batch_length(x, b, &length));
    for (int k = 0; k < s->states; k++)
        x->in[k] = s->batched ? batch_element(&x->run->in[s->first + k], b) : x->run->in[s->first + k];
    for (int k = 0; k < s->slices_in; k++) {
        const sdx_tensor *t = &x->run->in[s->first + s->states + k];
        if (s->batched) x->from[k].whole = batch_element(t, b);
        if (b == 0) TRY(make_slice(x->run, &x->from[k], &x->in[s->states + k]));
    }
    for (int64_t at = 0; at < length; at++) TRY(scan_step(x, b, at));
    return keep_states(x, b);
}

static sdx_status run_scan(sdx_run *run)
{
    const scan *s = run->state;
    scanning x = {.run = run, .s = s};
    ARENA_NEW(run->scratch, x.from, (size_t)s->slices_in, run->err);
    ARENA_NEW(run->scratch, x.in, (size_t)s->body->n_input, run->err);
    ARENA_NEW(run->scratch, x.out, (size_t)s->body->n_output, run->err);
    ARENA_NEW(run->scratch, x.element, (size_t)s->slices_out, run->err);
    for (int k = 0; k < s->slices_out; k++) x.element[k].rank = -1;
    TRY(check_lengths(&x));
    if (s->batched && x.batch == 0) return sdx_fail(run->err, SDX_ERR_UNSUPPORTED, "the batch is empty");
    for (int64_t b = 0; b < x.batch; b++) TRY(scan_element(&x, b));
    for (int k = 0; k < s->slices_out; k++) {
        sdx_dtype dtype;
        sdx_shape element;
        if (x.element[k].rank >= 0) continue;
        TRY(sdx_run_unseen(run, s->body, s->states + k, &dtype, &element));
        TRY(allocate_slices(&x, k, dtype, &element));
    }
    return SDX_OK;
}

enum { FLAGS = SDX_OP_DYNAMIC | SDX_OP_NONDETERMINISTIC };

static const sdx_op_def rows[] = {
    {"", "Scan", 8, 8, 0, -1, 1, -1, FLAGS, infer_scan_8, prepare_scan_8, NULL, run_scan},
    {"", "Scan", 9, 0, 1, -1, 1, -1, FLAGS, infer_scan, prepare_scan, NULL, run_scan},
};
SDX_OP_TABLE(scan);
