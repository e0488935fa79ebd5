/* match.h: the vocabulary in which the fusions are written.
 *
 * A fusion looks at the last node of its pattern and walks up through producers; it never asks who else reads
 * what it walks through, because the old nodes stay until sdx_graph_clean finds that nobody wants them. A walk
 * steps over what changes no number (Identity, Dropout, a Cast to the same type), takes commutative operands in
 * either order and reads constants of one element whatever their rank. Matchers that a person may want to hear
 * about return why they gave up, NULL when they did not. */
#ifndef SDX_PASSES_MATCH_H
#define SDX_PASSES_MATCH_H

#include "../op.h"

static inline sdx_id sdx_match_id(const sdx_graph *g, const sdx_node *n)
{
    return n ? (sdx_id)(n - g->node) : SDX_NONE;
}
static inline sdx_id sdx_match_producer_id(const sdx_graph *g, sdx_id v)
{
    return v == SDX_NONE ? SDX_NONE : g->value[v].producer;
}
static inline const sdx_type *sdx_match_type(const sdx_graph *g, sdx_id v)
{
    return &g->value[v].type;
}

/* The node is this operator, alive, and has been checked to have the inputs that it needs; its first output has a
 * name (a file may leave any nameless: nobody reads it then). */
static inline bool sdx_match_is_in(const sdx_node *n, const char *domain, const char *op_type)
{
    return n && n->def && sdx_node_out(n, 0) != SDX_NONE && sdx_node_is_in(n, domain, op_type);
}
static inline bool sdx_match_is(const sdx_node *n, const char *op_type)
{
    return sdx_match_is_in(n, "", op_type);
}

/* v, or the value it is a mere copy of. */
sdx_id sdx_match_through(const sdx_graph *g, sdx_id v);
/* What a node copies: its input, when the output is the same numbers in the same shape, else SDX_NONE. Only
 * Identity, Dropout and Cast are looked at here; eliminate.c knows the rest. */
sdx_id sdx_match_copied(const sdx_graph *g, const sdx_node *n);

/* The node that makes v, behind copies, when it is this operator (domain "" or as given), else NULL. */
const sdx_node *sdx_match_op(const sdx_graph *g, sdx_id v, const char *op_type);
const sdx_node *sdx_match_op_in(const sdx_graph *g, sdx_id v, const char *domain, const char *op_type);

/* MatMul, or a FusedMatMul that is one but for its alpha and for reading the second operand transposed. */
bool sdx_match_product(const sdx_node *n, double *alpha, bool *transposed);

/* A two-operand node with one constant of one element: that number, and the other operand. */
bool sdx_match_scalar_operand(const sdx_graph *g, const sdx_node *n, sdx_id *other, double *number);
/* Mul or Div of a tensor by such a number, as a multiplication. */
bool sdx_match_factor(const sdx_graph *g, const sdx_node *n, sdx_id *other, double *factor);
/* other + bias[k] with a constant of rank 1 that spans the last dim. */
bool sdx_match_bias(const sdx_graph *g, const sdx_node *n, sdx_id *other, sdx_id *bias);
/* A constant float32 vector of this length. */
bool sdx_match_vector(const sdx_graph *g, sdx_id v, sdx_dim length);
/* The same, and the vector may be computed or given as an input, too; a constant is preferred. */
bool sdx_match_addend(const sdx_graph *g, const sdx_node *n, sdx_id *other, sdx_id *vector);
/* How many axes of its input 0 the node reduces, when they are the last ones, else 0: `axes` as attribute or as input
 * 1. */
int sdx_match_reduced_axes(const sdx_graph *g, const sdx_node *n);
/* It reduces the last one only. */
bool sdx_match_reduces_last(const sdx_graph *g, const sdx_node *n);
/* The [.., n, k] of which v is the transposed [.., k, n], or SDX_NONE. */
sdx_id sdx_match_transposed(const sdx_graph *g, sdx_id v);
/* True when attribute `axis` means the last dim of value v. */
bool sdx_match_axis_is_last(const sdx_graph *g, const sdx_node *n, int64_t missing, sdx_id v);
/* The last dim of a value of known rank, else unknown. */
sdx_dim sdx_match_last_dim(const sdx_graph *g, sdx_id v);
/* |a - b| within a relative 1e-3, the precision that exporters' constants deserve. */
bool sdx_match_near(double a, double b);

#endif
