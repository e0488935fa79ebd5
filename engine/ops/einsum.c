/* einsum.c: Einstein summation. Every dim of every operand carries a label; the result is a sum of products
 * over all labels that it does not carry itself. Two float32 operands whose labels each play one part (batch,
 * row, column, summed) are a batched matrix product: they are copied into matrix order and go through the GEMM.
 * Everything else is the definition: an odometer over labels, on operands widened to 64 bits.
 */
#include <ctype.h>
#include <string.h>

#include "contents.h"
#include "copy.h"
#include "lanes.h"
#include "linear.h"

/* Labels: a letter is its place in A..Za..z, the dims of an ellipsis follow, right-aligned. */
enum { LETTERS = 52, ALL_LABELS = LETTERS + SDX_MAX_RANK, MAX_OPERANDS = 16, MAX_AXES = SDX_COPY_RANK };

typedef struct term {
    int rank;
    int label[SDX_MAX_RANK];
} term;

typedef struct equation {
    int operands;
    term in[MAX_OPERANDS], out;
    sdx_dim dim[ALL_LABELS]; /* 0 labels nothing */
    int uses[ALL_LABELS];    /* dims of operands that carry it */
} equation;

/* ---- reading ----------------------------------------------------------------------------------------- */

static int letter_label(char c)
{
    return c >= 'A' && c <= 'Z' ? c - 'A' : c >= 'a' && c <= 'z' ? 26 + c - 'a' : -1;
}

static sdx_status fail_equation(sdx_error *err, const char *text, const char *why)
{
    return sdx_fail(err, SDX_ERR_FILE, "equation \"%.100s\": %s", text, why);
}

/* The term at *at, up to a comma, an arrow or the end. rank: of the operand, or -1 for the result, whose
 * ellipsis has `ellipsis` dims. */
static sdx_status read_term(const char *text, const char **at, int rank, int ellipsis, term *out,
                            sdx_error *err)
{
    int letters = 0;
    bool dots = false;
    for (const char *c = *at; *c && *c != ',' && *c != '-'; c++) letters += letter_label(*c) >= 0;
    int filled = rank < 0 ? ellipsis : rank - letters;
    *out = (term){0};
    for (; **at && **at != ',' && **at != '-'; ++*at) {
        if (**at == ' ') continue;
        bool is_dots = !strncmp(*at, "...", 3);
        if ((!is_dots && letter_label(**at) < 0) || (is_dots && dots))
            return fail_equation(err, text, "unreadable");
        if (letters > SDX_MAX_RANK || (is_dots && (filled < 0 || filled + letters > SDX_MAX_RANK)))
            return fail_equation(err, text, "a term does not fit its operand's rank");
        if (!is_dots) {
            out->label[out->rank++] = letter_label(**at);
            continue;
        }
        for (int i = 0; i < filled; i++) out->label[out->rank++] = ALL_LABELS - filled + i;
        dots = true;
        *at += 2;
    }
    if (rank >= 0 && out->rank != rank)
        return fail_equation(err, text, "a term does not fit its operand's rank");
    return SDX_OK;
}

/* Of equal labels one dim may be 1 and repeats. */
static sdx_status join_dims(const char *text, const term *t, const sdx_shape *shape, equation *eq,
                            sdx_error *err)
{
    for (int i = 0; i < t->rank; i++) {
        sdx_dim *known = &eq->dim[t->label[i]], d = shape->dim[i];
        if (!eq->uses[t->label[i]]++ || *known == 1)
            *known = d;
        else if (sdx_dim_is_known(*known) && sdx_dim_is_known(d) && d != 1 && *known != d)
            return sdx_fail(err, SDX_ERR_USAGE, "equation \"%.100s\": one label has sizes %lld and %lld", text,
                            (long long)*known, (long long)d);
        else if (d != 1)
            *known = sdx_dim_merge(*known, d);
    }
    return SDX_OK;
}

/* No arrow: the ellipsis, then the letters that occur once, in the order of their codes. */
static void imply_result(equation *eq, int ellipsis)
{
    for (int i = 0; i < ellipsis; i++) eq->out.label[eq->out.rank++] = ALL_LABELS - ellipsis + i;
    for (int l = 0; l < LETTERS; l++)
        if (eq->uses[l] == 1 && eq->out.rank < SDX_MAX_RANK) eq->out.label[eq->out.rank++] = l;
}

static sdx_status check_result(const char *text, const equation *eq, sdx_error *err)
{
    unsigned char seen[ALL_LABELS] = {0};
    for (int i = 0; i < eq->out.rank; i++) {
        int l = eq->out.label[i];
        if (!eq->uses[l] || seen[l]++)
            return fail_equation(err, text, "the result has an unknown or repeated label");
    }
    return SDX_OK;
}

static sdx_status read_equation(const sdx_node *node, int operands, const sdx_shape *shape, equation *eq,
                                sdx_error *err)
{
    const char *text = sdx_node_string(node, "equation", ""), *at = text;
    int ellipsis = 0;
    *eq = (equation){.operands = operands};
    if (operands > MAX_OPERANDS)
        return sdx_fail(err, SDX_ERR_UNSUPPORTED, "%d operands; at most %d are supported", operands,
                        MAX_OPERANDS);
    for (int i = 0; i < operands; i++) {
        if (i > 0 && *at++ != ',') return fail_equation(err, text, "not one term for each operand");
        TRY(read_term(text, &at, shape[i].rank, 0, &eq->in[i], err));
        TRY(join_dims(text, &eq->in[i], &shape[i], eq, err));
        for (int k = 0; k < eq->in[i].rank; k++)
            if (ALL_LABELS - eq->in[i].label[k] > ellipsis && eq->in[i].label[k] >= LETTERS)
                ellipsis = ALL_LABELS - eq->in[i].label[k];
    }
    if (!*at) {
        imply_result(eq, ellipsis);
    } else {
        if (strncmp(at, "->", 2)) return fail_equation(err, text, "not one term for each operand");
        at += 2;
        TRY(read_term(text, &at, -1, ellipsis, &eq->out, err));
        if (*at) return fail_equation(err, text, "something follows the result");
    }
    return check_result(text, eq, err);
}

/* ---- infer ------------------------------------------------------------------------------------------- */

static sdx_status infer_einsum(sdx_infer *x)
{
    sdx_shape shape[MAX_OPERANDS], out;
    equation eq;
    x->out[0].dtype = x->in[0].dtype;
    if (x->in[0].dtype != SDX_UNDEFINED && sdx_dtype_lane(x->in[0].dtype) == SDX_LANE_NONE)
        return sdx_fail(x->err, SDX_ERR_UNSUPPORTED, "it does not take %s", sdx_dtype_name(x->in[0].dtype));
    for (int i = 0; i < x->n_in; i++) {
        TRY(sdx_want_same_dtype(x, i, "an operand", 0, "the first"));
        if (x->in[i].shape.rank < 0) return SDX_OK;
        if (i < MAX_OPERANDS) shape[i] = x->in[i].shape;
    }
    TRY(read_equation(x->node, x->n_in, shape, &eq, x->err));
    out.rank = eq.out.rank;
    for (int i = 0; i < out.rank; i++) out.dim[i] = eq.dim[eq.out.label[i]];
    sdx_infer_set(x, 0, x->in[0].dtype, &out);
    return SDX_OK;
}

/* ---- axes: the labels in use, those of the result first ---------------------------------------------- */

typedef struct axes {
    int count, kept; /* the first `kept` are the result's, in its order */
    int label[ALL_LABELS];
    int64_t dim[ALL_LABELS], stride[MAX_OPERANDS][ALL_LABELS]; /* elements; 0 where an operand does not move */
} axes;

static void find_axes(const equation *eq, const sdx_shape *shape, axes *a)
{
    unsigned char seen[ALL_LABELS] = {0};
    *a = (axes){0};
    for (int i = 0; i < eq->out.rank; i++) seen[a->label[a->count++] = eq->out.label[i]] = 1;
    a->kept = a->count;
    for (int l = 0; l < ALL_LABELS; l++)
        if (eq->uses[l] && !seen[l]) a->label[a->count++] = l;
    for (int i = 0; i < a->count; i++) a->dim[i] = eq->dim[a->label[i]];
    for (int o = 0; o < eq->operands; o++) {
        int64_t stride[SDX_MAX_RANK];
        sdx_shape_strides(&shape[o], stride);
        for (int d = 0; d < shape[o].rank; d++)
            for (int i = 0; i < a->count; i++)
                if (a->label[i] == eq->in[o].label[d] && shape[o].dim[d] != 1) a->stride[o][i] += stride[d];
    }
}

/* ---- as a matrix product ----------------------------------------------------------------------------- */

typedef struct product {
    int64_t batch, m, n, k;
    int order[3][MAX_AXES], rank[3]; /* axes of A [batch, m, k], B [batch, k, n] and C [batch, m, n] */
} product;

/* Every axis of both operands is batch, row, column or summed, and none repeats by being 1. */
static bool as_product(const equation *eq, const axes *a, const sdx_shape *shape, sdx_dtype dtype, product *p)
{
    enum { BATCH, ROW, COLUMN, SUMMED };
    *p = (product){1, 1, 1, 1, {{0}}, {0}};
    if (eq->operands != 2 || dtype != SDX_F32 || a->count > MAX_AXES) return false;
    int part[MAX_AXES];
    int64_t *size[] = {&p->batch, &p->m, &p->n, &p->k}, elements[2] = {1, 1};
    for (int i = 0; i < a->count; i++) {
        bool in_a = a->stride[0][i] != 0, in_b = a->stride[1][i] != 0, kept = i < a->kept;
        part[i] = kept ? in_a ? in_b ? BATCH : ROW : COLUMN : SUMMED;
        if (a->dim[i] == 0 || (!kept && in_a != in_b)) return false;
        *size[part[i]] *= a->dim[i];
        for (int o = 0; o < 2; o++)
            if (a->stride[o][i]) elements[o] *= a->dim[i];
    }
    /* A repeated label walks a diagonal, fewer elements than there are. */
    for (int o = 0; o < 2; o++)
        if (elements[o] != sdx_shape_count(&shape[o])) return false;
    static const int layout[3][3] = {{BATCH, ROW, SUMMED}, {BATCH, SUMMED, COLUMN}, {BATCH, ROW, COLUMN}};
    for (int o = 0; o < 3; o++)
        for (int group = 0; group < 3; group++)
            for (int i = 0; i < a->count; i++)
                if (part[i] == layout[o][group] && (o == 2 || a->dim[i] > 1)) p->order[o][p->rank[o]++] = i;
    return true;
}

static bool product_bytes(const sdx_kernels *k, const product *p, size_t *total)
{
    size_t each = sizeof(float), batch = (size_t)p->batch, m = (size_t)p->m, n = (size_t)p->n,
           depth = (size_t)p->k;
    return sdx_workspace_add(total, batch * m * depth, each) &&
           sdx_workspace_add(total, batch * depth * n, each) && sdx_workspace_add(total, batch * m * n, each) &&
           sdx_workspace_add(total, k->gemm_f32.packed_bytes(p->k, p->n), 1);
}

static void reorder(const sdx_run *r, const product *p, int o, const axes *a, const int64_t *src,
                    const int64_t *dst, const void *from, void *to)
{
    sdx_copy c = {.rank = p->rank[o], .src = from, .dst = to, .size = sizeof(float)};
    for (int i = 0; i < c.rank; i++) {
        int axis = p->order[o][i];
        c.dim[i] = a->dim[axis];
        c.src_stride[i] = src ? src[axis] : 0;
        c.dst_stride[i] = dst ? dst[axis] : 0;
    }
    /* The side in matrix order is dense. */
    for (int64_t i = c.rank - 1, stride = 1; i >= 0; stride *= c.dim[i--]) {
        if (!src) c.src_stride[i] = stride;
        if (!dst) c.dst_stride[i] = stride;
    }
    sdx_copy_strided(&c, r->threads);
}

static void run_product(const sdx_run *r, const product *p, const axes *a)
{
    char *at = r->workspace;
    float *x = sdx_workspace_take(&at, (size_t)(p->batch * p->m * p->k) * sizeof(float));
    float *y = sdx_workspace_take(&at, (size_t)(p->batch * p->k * p->n) * sizeof(float));
    float *z = sdx_workspace_take(&at, (size_t)(p->batch * p->m * p->n) * sizeof(float)), *packed = (void *)at;
    sdx_shape out = sdx_tensor_shape(&r->out[0]);
    int64_t out_stride[SDX_MAX_RANK]; /* the result's axes come first and in order */
    sdx_shape_strides(&out, out_stride);
    reorder(r, p, 0, a, a->stride[0], NULL, r->in[0].data, x);
    reorder(r, p, 1, a, a->stride[1], NULL, r->in[1].data, y);
    for (int64_t b = 0; b < p->batch; b++) {
        sdx_gemm_f32_pack(&r->kernels->gemm_f32, r->threads, p->k, p->n, y + b * p->k * p->n, p->n, 1, 1.0f, packed);
        sdx_gemm_f32_job job = {.gemm = &r->kernels->gemm_f32,
                                .threads = r->threads,
                                .m = p->m,
                                .n = p->n,
                                .k = p->k,
                                .a = x + b * p->m * p->k,
                                .lda = p->k,
                                .packed = packed,
                                .activation = SDX_ACT_NONE,
                                .c = z + b * p->m * p->n,
                                .ldc = p->n};
        sdx_gemm_f32_run(&job);
    }
    reorder(r, p, 2, a, NULL, out_stride, z, r->out[0].data);
}

/* ---- as defined -------------------------------------------------------------------------------------- */

typedef struct sum_call {
    const axes *a;
    int operands;
    bool floats;
    const sdx_lane *x[MAX_OPERANDS];
    sdx_tensor *y;
} sum_call;

/* The operands' elements at an index of all axes, multiplied, and added to sum. */
static void add_product(const sum_call *c, const int64_t *offset, sdx_lane *sum)
{
    sdx_lane v = c->x[0][offset[0]];
    for (int o = 1; o < c->operands; o++) {
        if (c->floats)
            v.f *= c->x[o][offset[o]].f;
        else
            v.u *= c->x[o][offset[o]].u;
    }
    if (c->floats)
        sum->f += v.f;
    else
        sum->u += v.u;
}

/* Moves the odometer of the summed axes; false when it is round. */
static bool advance(const sum_call *c, int64_t *index, int64_t *offset)
{
    for (int i = c->a->count - 1; i >= c->a->kept; i--) {
        for (int o = 0; o < c->operands; o++) offset[o] += c->a->stride[o][i];
        if (++index[i] < c->a->dim[i]) return true;
        for (int o = 0; o < c->operands; o++) offset[o] -= c->a->stride[o][i] * c->a->dim[i];
        index[i] = 0;
    }
    return false;
}

static void sum_range(void *context, int64_t begin, int64_t end, int worker)
{
    (void)worker;
    const sum_call *c = context;
    bool empty = false;
    for (int i = c->a->kept; i < c->a->count; i++) empty |= c->a->dim[i] == 0;
    for (int64_t at = begin; at < end; at++) {
        int64_t offset[MAX_OPERANDS] = {0}, index[ALL_LABELS] = {0}, rest = at;
        for (int i = c->a->kept - 1; i >= 0; rest /= c->a->dim[i--])
            for (int o = 0; o < c->operands; o++) offset[o] += rest % c->a->dim[i] * c->a->stride[o][i];
        sdx_lane sum = {.u = 0}; /* also 0.0 */
        for (bool more = !empty; more; more = advance(c, index, offset)) add_product(c, offset, &sum);
        sdx_lanes_store(c->y->dtype, &sum, 1, c->y->data, at);
    }
}

static sdx_status run_sum(sdx_run *r, const axes *a)
{
    sum_call c = {.a = a, .operands = r->n_in, .floats = sdx_dtype_is_float(r->in[0].dtype), .y = &r->out[0]};
    char *at = r->workspace;
    double work = 1;
    for (int i = a->kept; i < a->count; i++) work *= (double)a->dim[i];
    TRY(sdx_run_spend(r, work * (double)sdx_tensor_count(c.y) * r->n_in));
    for (int o = 0; o < r->n_in; o++) {
        int64_t n = sdx_tensor_count(&r->in[o]);
        sdx_lane *wide = sdx_workspace_take(&at, (size_t)n * sizeof *wide);
        sdx_lanes_load(r->in[o].dtype, r->in[o].data, 0, 1, n, wide);
        c.x[o] = wide;
    }
    sdx_parallel_for(r->threads, sdx_tensor_count(c.y),
                     sdx_row_grain(work > SDX_GRAIN ? SDX_GRAIN : (int64_t)work), sum_range, &c);
    return SDX_OK;
}

/* ---- plan and run ------------------------------------------------------------------------------------ */

static sdx_status plan_einsum(sdx_plan_step *s)
{
    sdx_shape shape[MAX_OPERANDS];
    equation eq;
    axes a;
    product p;
    for (int i = 0; i < s->n_in && i < MAX_OPERANDS; i++) shape[i] = s->in[i].shape;
    TRY(read_equation(s->node, s->n_in, shape, &eq, s->err));
    find_axes(&eq, shape, &a);
    bool fits = true;
    if (as_product(&eq, &a, shape, s->in[0].dtype, &p))
        fits = product_bytes(s->kernels, &p, &s->workspace);
    else
        for (int i = 0; i < s->n_in && fits; i++)
            fits = sdx_workspace_add(&s->workspace, (size_t)sdx_shape_count(&shape[i]), sizeof(sdx_lane));
    return fits ? SDX_OK : sdx_workspace_fail(s->err);
}

static sdx_status run_einsum(sdx_run *r)
{
    sdx_shape shape[MAX_OPERANDS];
    equation eq;
    axes a;
    product p;
    for (int i = 0; i < r->n_in && i < MAX_OPERANDS; i++) shape[i] = sdx_run_shape(r, i);
    TRY(read_equation(r->node, r->n_in, shape, &eq, r->err));
    find_axes(&eq, shape, &a);
    if (!as_product(&eq, &a, shape, r->in[0].dtype, &p)) return run_sum(r, &a);
    run_product(r, &p, &a);
    return SDX_OK;
}

static const sdx_op_def rows[] = {
    {"", "Einsum", 12, 0, 1, -1, 1, 1, 0, infer_einsum, NULL, plan_einsum, run_einsum},
};

SDX_OP_TABLE(einsum);
