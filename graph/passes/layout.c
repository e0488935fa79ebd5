/* layout.c: replaying layout changes; see layout.h. */
#include "layout.h"

#include <string.h>

static const char letters[] = "btnh";

sdx_layout sdx_layout_make(const char *text, const sdx_element size[SDX_LAYOUT_ATOMS])
{
    sdx_layout l = {.rank = 1};
    memcpy(l.size, size, sizeof l.size);
    for (; *text; text++) {
        if (*text == '|')
            l.rank++;
        else
            l.dim[l.rank - 1].atom[l.dim[l.rank - 1].count++] = (int)(strchr(letters, *text) - letters);
    }
    return l;
}

bool sdx_layout_is(const sdx_layout *l, const char *text)
{
    char own[SDX_MAX_RANK + SDX_LAYOUT_ATOMS + 1];
    int n = 0;
    for (int i = 0; i < l->rank; i++) {
        if (i > 0) own[n++] = '|';
        for (int k = 0; k < l->dim[i].count; k++) own[n++] = letters[l->dim[i].atom[k]];
    }
    own[n] = '\0';
    return strcmp(own, text) == 0;
}

/* ---- Reshape -------------------------------------------------------------------------------------------- */

static bool is_dim(sdx_element e, sdx_dim d)
{
    return sdx_dim_same(sdx_element_to_dim(e), d);
}

/* How many of the atoms at `from`, stepping by `step`, multiply to d; -1 when no number of them does. */
static int span(const sdx_layout *l, sdx_model *model, const int *atom, int from, int step, int available,
                sdx_dim d)
{
    sdx_element product = sdx_element_number(1);
    bool unit_first = available > 0 && is_dim(l->size[atom[from]], 1);
    if (d == 1 && !unit_first) return 0;
    for (int n = 1; n <= available; n++) {
        product = sdx_model_arith(model, '*', product, l->size[atom[from + (n - 1) * step]]);
        if (is_dim(product, d)) return n;
    }
    return -1;
}

/* Deals the atoms out to the new dims from both ends. Since Reshape keeps the number of elements, a single dim
 * of unknown size between them holds what is left. */
static bool regroup(sdx_layout *l, sdx_model *model, const sdx_shape *to)
{
    int atom[SDX_LAYOUT_ATOMS], count = 0;
    for (int i = 0; i < l->rank; i++)
        for (int k = 0; k < l->dim[i].count; k++) atom[count++] = l->dim[i].atom[k];
    int first = 0, last = count, left = 0, right = to->rank, n;
    memset(l->dim, 0, sizeof l->dim);
    l->rank = to->rank;
    for (; left < right; left++, first += n) {
        if ((n = span(l, model, atom, first, 1, last - first, to->dim[left])) < 0) break;
        for (int k = 0; k < n; k++) l->dim[left].atom[l->dim[left].count++] = atom[first + k];
    }
    for (; right > left; right--, last -= n) {
        if ((n = span(l, model, atom, last - 1, -1, last - first, to->dim[right - 1])) < 0) break;
        for (int k = last - n; k < last; k++) l->dim[right - 1].atom[l->dim[right - 1].count++] = atom[k];
    }
    if (left == right) return first == last;
    for (int k = first; k < last; k++) l->dim[left].atom[l->dim[left].count++] = atom[k];
    return right - left == 1;
}

static bool transpose(sdx_layout *l, const sdx_node *n)
{
    size_t count = 0;
    const int64_t *perm = sdx_node_ints(n, "perm", &count);
    sdx_layout old = *l;
    if (perm && count != (size_t)l->rank) return false;
    for (int i = 0; i < l->rank; i++) {
        int64_t from = perm ? perm[i] : l->rank - 1 - i;
        if (from < 0 || from >= l->rank) return false;
        l->dim[i] = old.dim[from];
    }
    return true;
}

static bool is_regrouping(const sdx_node *n)
{
    return sdx_match_is(n, "Reshape") || sdx_match_is(n, "Unsqueeze") || sdx_match_is(n, "Squeeze");
}

bool sdx_layout_follow(sdx_layout *l, const sdx_graph *g, const sdx_node *n)
{
    if (sdx_match_is(n, "Transpose")) return transpose(l, n);
    const sdx_shape *to = &sdx_match_type(g, n->out[0])->shape;
    return is_regrouping(n) && to->rank >= 0 && regroup(l, g->model, to);
}

/* ---- paths ---------------------------------------------------------------------------------------------- */

void sdx_path_read(const sdx_graph *g, sdx_id v, sdx_id until, sdx_path *path)
{
    *path = (sdx_path){.scale = 1};
    for (;;) {
        path->top = sdx_match_through(g, v);
        const sdx_node *n = sdx_graph_producer(g, path->top);
        double factor;
        if (!n || path->top == until) return;
        if (sdx_match_is(n, "Transpose") || is_regrouping(n)) {
            if (path->count == (int)(sizeof path->node / sizeof *path->node)) return;
            path->node[path->count++] = sdx_match_id(g, n);
            v = n->in[0];
        } else if (sdx_match_factor(g, n, &v, &factor)) {
            path->scale *= factor;
        } else {
            return;
        }
    }
}

bool sdx_path_follow(const sdx_path *path, const sdx_graph *g, sdx_layout *layout)
{
    for (int i = path->count; i-- > 0;)
        if (!sdx_layout_follow(layout, g, &g->node[path->node[i]])) return false;
    return true;
}
