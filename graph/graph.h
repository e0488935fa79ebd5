/* graph.h: the intermediate representation. A model owns a graph; a graph is two arrays, values and nodes, that
 * name each other by index. Everything lives in the model's arena and is freed with it: rewriting never frees.
 *
 * Values are tensors with a name: graph inputs, constants (initializers) and node outputs. Nodes stand in
 * topological order, except between a pass's edits and its call of sdx_graph_sort. A fusion makes a node that
 * writes the old output *values*, marks the old nodes dead and leaves the rest to sdx_graph_clean: names survive.
 */
#ifndef SDX_GRAPH_H
#define SDX_GRAPH_H

#include "../base/arena.h"
#include "../base/file.h"
#include "../base/map.h"
#include "../base/tensor.h"

typedef int32_t sdx_id; /* index of a value or a node */
#define SDX_NONE ((sdx_id)-1)

typedef struct sdx_graph sdx_graph;
typedef struct sdx_op_def sdx_op_def;

/* ---- types: what is known of a value before it is computed ------------------------------------------ */

/* One element of a small integer tensor (shapes, axes, indices): a number, a symbol, or unknown. */
typedef struct sdx_element {
    int64_t number; /* valid when symbol == SDX_ELEMENT_NUMBER */
    int symbol;     /* id in the model's symbol table, or a code below */
} sdx_element;
#define SDX_ELEMENT_NUMBER (-1)
#define SDX_ELEMENT_UNKNOWN (-2)
#define SDX_MAX_ELEMENTS 64 /* contents are tracked for tensors up to this size */

typedef struct sdx_type {
    sdx_dtype dtype; /* SDX_UNDEFINED: unknown, or the value is absent */
    sdx_shape shape;
    const sdx_tensor *constant;  /* the whole value, or NULL; data at any alignment */
    const sdx_element *contents; /* element by element, or NULL; set too for small integer constants */
    int n_contents;
} sdx_type;

/* ---- values, attributes, nodes --------------------------------------------------------------------- */

/* What the file says of a graph input or output, of an element if it is a sequence. */
typedef struct sdx_declared {
    bool sequence, optional;
    sdx_dtype dtype;
    sdx_shape shape;
} sdx_declared;

typedef struct sdx_value {
    const char *name; /* "" never appears: an absent input or output is SDX_NONE */
    sdx_type type;
    sdx_id producer; /* node, or SDX_NONE for inputs, constants and captured values */
    sdx_id outer;    /* in a subgraph: the value of the parent graph that this stands for, else SDX_NONE */
    bool is_input, is_output;
    const sdx_declared *declared; /* of a graph input or output, or NULL */
    const sdx_tensor *preset;     /* of an input that a run may leave out: its value then, else NULL */
    int uses; /* node inputs that read it, plus one if it is a graph output; set by sdx_graph_index */
} sdx_value;

/* A weight, or the default of an input: what a file stores. NULL for what is computed, given or captured. */
static inline const sdx_tensor *sdx_value_stored(const sdx_value *v)
{
    if (v->preset) return v->preset;
    return v->producer == SDX_NONE && v->outer == SDX_NONE ? v->type.constant : NULL;
}

typedef enum sdx_attr_type { /* the codes of AttributeProto.AttributeType */
    SDX_ATTR_FLOAT = 1,
    SDX_ATTR_INT = 2,
    SDX_ATTR_STRING = 3,
    SDX_ATTR_TENSOR = 4,
    SDX_ATTR_GRAPH = 5,
    SDX_ATTR_FLOATS = 6,
    SDX_ATTR_INTS = 7,
    SDX_ATTR_STRINGS = 8,
    SDX_ATTR_TENSORS = 9,
    SDX_ATTR_GRAPHS = 10,
    SDX_ATTR_VALUE_TYPE = 13 /* TYPE_PROTO */
} sdx_attr_type;

typedef struct sdx_attr {
    const char *name;
    sdx_attr_type type;
    float f;
    int64_t i;
    const char *s; /* NUL-terminated; s_length bytes before it */
    size_t s_length;
    const sdx_tensor *tensor;
    sdx_graph *graph;
    size_t count; /* of the list that is set */
    const float *floats;
    const int64_t *ints;
    const char *const *strings;
    const sdx_tensor *tensors;
    sdx_graph *const *graphs;
    const sdx_declared *value_type;
    const char *reference; /* inside a function body: the function's attribute this one takes its value from */
} sdx_attr;

typedef struct sdx_node {
    const char *name; /* may be "" */
    const char *domain; /* "" is the default domain (never "ai.onnx") */
    const char *op_type;
    sdx_id *in, *out; /* value ids or SDX_NONE */
    int n_in, n_out;
    sdx_attr *attr;
    int n_attr;
    const sdx_op_def *def; /* set by sdx_model_resolve, NULL when unknown */
    int64_t version;       /* opset that the operator is of, when it is not the model's: inlined from a function */
    bool dead;
} sdx_node;

struct sdx_graph {
    const char *name;
    struct sdx_model *model;
    sdx_graph *parent; /* of a subgraph */
    sdx_value *value;
    sdx_node *node;
    sdx_id n_value, n_node;
    sdx_id cap_value, cap_node;
    sdx_id *input, *output; /* value ids, in the file's order; initializers with defaults are in input too */
    int n_input, n_output;
    sdx_map names; /* value name -> id */
    /* Uses in CSR form: nodes that read value v are use_node[use_begin[v] .. use_begin[v+1]), a node once per
     * input. Valid from sdx_graph_index until the next edit. */
    sdx_id *use_begin, *use_node;
    sdx_graph *next; /* in the model's list of all graphs */
    int index;       /* position in the order of making: 0, 1, ... */
};

/* ---- model ------------------------------------------------------------------------------------------ */

typedef struct sdx_opset {
    const char *domain; /* "" is the default domain */
    int64_t version;
} sdx_opset;

typedef struct sdx_metadata {
    const char *key, *value;
} sdx_metadata;

/* Sizes by name ("batch_size"), and sums, products, ... of sizes, each made once so that equal ids are equal sizes. */
typedef struct sdx_symbol {
    const char *name; /* as the file spells it, or "batch*sequence" */
    char op;          /* 0: a name; else + - * / between left and right, or < for the smaller of them */
    sdx_element left, right;
    bool is_size;        /* a dim of some value, therefore not negative */
    bool replaced;       /* found to be another size: by sdx_model_equate */
    sdx_element instead; /* that size, when replaced */
} sdx_symbol;

/* Taken for granted: size is left + right, because these sizes of graph inputs meet element by element and nobody
 * exports a graph to broadcast there. Any may be 1 after all; then what was derived does not hold. */
typedef struct sdx_assumption {
    sdx_element size, left, right;
} sdx_assumption;

typedef struct sdx_function { /* a model-local operator */
    const char *domain, *name;
    const char *const *input, *const *output, *const *attribute;
    int n_input, n_output, n_attribute;
    sdx_attr *preset; /* attributes with a default */
    int n_preset;
    sdx_opset *opset;
    int n_opset;
    sdx_graph *body;
} sdx_function;

struct sdx_model {
    sdx_arena arena;
    const char *path; /* for messages; "" when made in memory */
    int64_t ir_version, model_version;
    const char *producer_name, *producer_version, *domain, *doc;
    const char *warning; /* see sdx_model_warning, or NULL */
    sdx_opset *opset;
    int n_opset;
    sdx_metadata *metadata;
    int n_metadata;
    sdx_graph *graph;  /* the main graph */
    sdx_graph *graphs; /* every graph, newest first */
    sdx_function *function;
    int n_function;
    sdx_symbol *symbol;
    int n_symbol, cap_symbol;
    bool assume_nothing; /* only what holds in every run is derived */
    sdx_assumption *assumed;
    int n_assumed;
    sdx_file_map file;      /* the mapped .onnx: constants point into it */
    sdx_file_map *external; /* mapped external data files */
    int n_external;
};

sdx_status sdx_model_create(sdx_model **out, sdx_error *err); /* empty, with an empty main graph */
/* sdx_model_close frees it. */
/* An empty subgraph (parent NULL: a function body). */
sdx_status sdx_graph_create(sdx_model *model, sdx_graph *parent, sdx_graph **out, sdx_error *err);
/* The bytes lie in the model's file, or in one beside it. */
bool sdx_model_is_mapped(const sdx_model *model, const void *data);
void sdx_model_release_pages(const sdx_model *model); /* of its files; they are read again when somebody looks */
/* Version of a domain's opset; 0 when not imported. */
int64_t sdx_model_opset(const sdx_model *model, const char *domain);
sdx_status sdx_model_set_opset(sdx_model *model, const char *domain, int64_t version, sdx_error *err);
sdx_status sdx_model_set_metadata(sdx_model *model, const char *key, const char *value, sdx_error *err);
/* The id of a named size, made when new; SDX_NONE when out of memory. */
int sdx_model_symbol(sdx_model *model, const char *name);
/* Two symbols are the same size in every run that works: the younger becomes the older from now on. */
void sdx_model_equate(sdx_model *model, int a, int b);
/* What an element has become by sdx_model_equate. */
sdx_element sdx_model_resolve_element(const sdx_model *model, sdx_element e);
/* a op b for elements, folded where both are numbers (division rounds to zero; by 0: unknown); < is the minimum. */
sdx_element sdx_model_arith(sdx_model *model, char op, sdx_element a, sdx_element b);
sdx_element sdx_element_number(int64_t n);
sdx_element sdx_element_from_dim(sdx_dim d);
bool sdx_element_same(sdx_element a, sdx_element b); /* for certain: the same number or the same symbol */
sdx_dim sdx_element_to_dim(sdx_element e); /* a negative number becomes SDX_DIM_UNKNOWN */

/* ---- building and rewriting ----------------------------------------------------------------------------
 * Pointers into graph->value and graph->node are invalidated by the add functions; ids are not. */

/* A fresh value; name is copied and made unique when taken ("x" -> "x_1"); NULL or "" makes one up. */
sdx_status sdx_graph_add_value(sdx_graph *graph, const char *name, sdx_id *out, sdx_error *err);
sdx_status sdx_graph_add_input(sdx_graph *graph, const char *name, sdx_dtype dtype, const sdx_shape *shape,
                               sdx_id *out, sdx_error *err);
sdx_status sdx_graph_add_output(sdx_graph *graph, sdx_id value, sdx_error *err);
/* The tensor's header is copied; its data must outlive the model or sit in its arena. Sets contents when small. */
sdx_status sdx_graph_add_constant(sdx_graph *graph, const char *name, const sdx_tensor *tensor, sdx_id *out,
                                  sdx_error *err);
sdx_status sdx_graph_set_constant(sdx_graph *graph, sdx_id value, const sdx_tensor *tensor, sdx_error *err);
/* Reads type->contents off type->constant when that is a small integer tensor of rank 0 or 1; else clears it. */
sdx_status sdx_type_set_contents(sdx_arena *arena, sdx_type *type, sdx_error *err);
/* Conveniences that copy data: a 1-D int64 list (rank 1) or a scalar (rank 0). */
sdx_status sdx_graph_add_ints(sdx_graph *graph, const char *name, int count, const int64_t *ints, sdx_id *out,
                              sdx_error *err);
sdx_status sdx_graph_add_scalar_f32(sdx_graph *graph, const char *name, float value, sdx_id *out, sdx_error *err);

/* Appends a node reading in[] and writing existing values out[] (their producer becomes this node). Arrays and
 * strings are copied. Call sdx_graph_sort afterwards when it does not belong at the end. */
sdx_status sdx_graph_add_node(sdx_graph *graph, const char *domain, const char *op_type, const char *name, int n_in,
                              const sdx_id *in, int n_out, const sdx_id *out, sdx_id *node, sdx_error *err);
/* The same with one new output value, its id in *result: the usual case when building. */
sdx_status sdx_graph_emit(sdx_graph *graph, const char *domain, const char *op_type, const char *result_name, int n_in,
                          const sdx_id *in, sdx_id *result, sdx_error *err);
sdx_status sdx_node_set_int(sdx_graph *graph, sdx_id node, const char *name, int64_t i, sdx_error *err);
sdx_status sdx_node_set_float(sdx_graph *graph, sdx_id node, const char *name, float f, sdx_error *err);
sdx_status sdx_node_set_string(sdx_graph *graph, sdx_id node, const char *name, const char *s, sdx_error *err);
sdx_status sdx_node_set_ints(sdx_graph *graph, sdx_id node, const char *name, size_t count, const int64_t *ints,
                             sdx_error *err);
sdx_status sdx_node_set_graph(sdx_graph *graph, sdx_id node, const char *name, sdx_graph *body, sdx_error *err);
sdx_status sdx_node_set_tensor(sdx_graph *graph, sdx_id node, const char *name, const sdx_tensor *tensor,
                               sdx_error *err);

/* Calls fn for every value of its graph that the node reads: its inputs, and what its subgraphs capture. */
typedef void (*sdx_read_fn)(void *context, sdx_id value);
void sdx_node_each_read(const sdx_node *node, sdx_read_fn fn, void *context);
/* Subgraph k of the node, in the order of its attributes; NULL when there are no more. */
sdx_graph *sdx_node_graph(const sdx_node *node, int k);
/* The subgraph of that name, or NULL. */
sdx_graph *sdx_node_body(const sdx_node *node, const char *name);

/* Every reader of `old` reads `new_value` instead (node inputs and captures in subgraphs; graph outputs stay). */
void sdx_graph_replace_uses(sdx_graph *graph, sdx_id old, sdx_id new_value);
/* Rebuilds producers, use counts and use lists, captures by subgraphs included: after edits, before asking for uses. */
sdx_status sdx_graph_index(sdx_graph *graph, sdx_error *err);
/* Removes dead nodes, nodes nobody reads and constants nobody reads, then compacts ids of nodes (values keep theirs)
 * and indexes. */
sdx_status sdx_graph_clean(sdx_graph *graph, sdx_error *err);
/* Stable topological sort (also drops dead nodes) and index; a cycle is SDX_ERR_FILE naming a node on it. */
sdx_status sdx_graph_sort(sdx_graph *graph, sdx_error *err);

/* ---- reading ------------------------------------------------------------------------------------------ */

sdx_id sdx_graph_find_value(const sdx_graph *graph, const char *name); /* or SDX_NONE */
const sdx_attr *sdx_node_attr(const sdx_node *node, const char *name); /* or NULL */
int64_t sdx_node_int(const sdx_node *node, const char *name, int64_t missing);
float sdx_node_float(const sdx_node *node, const char *name, float missing);
const char *sdx_node_string(const sdx_node *node, const char *name, const char *missing);
/* The list of ints, its length in *count; NULL when absent. */
const int64_t *sdx_node_ints(const sdx_node *node, const char *name, size_t *count);
/* The same operator with equal attributes; never found of subgraphs, or lists of strings or tensors
 * (merge_duplicates.c). */
bool sdx_node_is_like(const sdx_node *a, const sdx_node *b);
bool sdx_node_is(const sdx_node *node, const char *op_type); /* of the default domain, alive */
bool sdx_node_is_in(const sdx_node *node, const char *domain, const char *op_type);
/* Input i, or SDX_NONE when absent or beyond n_in. */
static inline sdx_id sdx_node_in(const sdx_node *node, int i) { return i < node->n_in ? node->in[i] : SDX_NONE; }
static inline sdx_id sdx_node_out(const sdx_node *node, int i) { return i < node->n_out ? node->out[i] : SDX_NONE; }
/* The live node that makes the value, or NULL (inputs, constants, SDX_NONE). */
sdx_node *sdx_graph_producer(const sdx_graph *graph, sdx_id value);
/* The constant behind a value, or NULL (also for SDX_NONE). */
const sdx_tensor *sdx_graph_constant(const sdx_graph *graph, sdx_id value);
/* The single number of a one-element constant of any numeric type and rank. */
bool sdx_graph_scalar(const sdx_graph *graph, sdx_id value, double *out);
/* How many initializers a graph's live nodes and outputs read. */
size_t sdx_graph_initializer_count(const sdx_graph *graph);
/* "node "layer.3/MatMul" (MatMul)" into buf for messages; the op alone when it has no name. */
char *sdx_node_format(const sdx_node *node, char *buf, size_t size);
#define SDX_NODE_TEXT 256

/* ---- files (graph/onnx_*.c: the only files that know protobuf) --------------------------- */

/* Reads one file; sdx_model_open of the public interface also looks into folders. */
sdx_status sdx_onnx_read(const char *path, sdx_model **out, sdx_error *err);
/* The same of bytes that are mapped already: takes the mapping over, also on failure. */
sdx_status sdx_onnx_read_mapped(const char *path, sdx_file_map file, sdx_model **out, sdx_error *err);

typedef struct sdx_onnx_write_options {
    bool external_data; /* weights of 1 KiB and more go to "<file name>.data" beside the file; forced above 2 GB */
    void (*progress)(void *context, uint64_t done, uint64_t total); /* bytes; NULL: nobody watches */
    void *context;
} sdx_onnx_write_options;

/* Writes atomically. Only live nodes, the initializers they read, and the opsets they use. */
sdx_status sdx_onnx_write(const sdx_model *model, const char *path, const sdx_onnx_write_options *options,
                          sdx_error *err);

/* The same in two steps: the files stand beside their names, and the disk works on them, while the caller checks
 * whether they are worth it. Then either call ends it; sdx_onnx_abort is harmless after a failure. */
typedef struct sdx_onnx_staged {
    sdx_writer data, model; /* data: not open when the weights are in the model */
} sdx_onnx_staged;
sdx_status sdx_onnx_stage(const sdx_model *model, const char *path, const sdx_onnx_write_options *options,
                          sdx_onnx_staged *out, sdx_error *err);
sdx_status sdx_onnx_commit(sdx_onnx_staged *staged, sdx_error *err);
void sdx_onnx_abort(sdx_onnx_staged *staged);

#endif
