/* sardonyx.h: run, make and shrink transformer models on a CPU.
 *
 *   file.onnx --sdx_model_open--> model --sdx_program_create--> program --sdx_session_create--> session
 *
 * A model is a graph that can be looked at and rewritten. A program is that graph compiled for this
 * machine: passes done, weights packed (large ones when it runs for the second time). Any number of sessions
 * share it.
 * A session holds the working memory of one run at a time and belongs to one thread.
 *
 * Every function that can fail returns an sdx_status and takes an sdx_error, which may be NULL; on
 * failure the record holds one sentence for a person and the out parameters are untouched. Strings are UTF-8.
 * Nothing here prints, exits or aborts. What opens or creates has a free or close, which takes NULL.
 */
#ifndef SARDONYX_H
#define SARDONYX_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

#if defined(__GNUC__)
#define SDX_API __attribute__((visibility("default")))
#else
#define SDX_API
#endif

#define SDX_VERSION "0.1.0"
#define SDX_MAX_RANK 12
#define SDX_MAX_STEPS 100000000u
#define SDX_ERROR_MAX 1024

/* ---- status ------------------------------------------------------------------------------------ */

typedef enum sdx_status {
    SDX_OK = 0,
    SDX_ERR_USAGE,       /* the caller asked for something that makes no sense: name, dtype, shape, option */
    SDX_ERR_FILE,        /* a file is absent, unreadable, truncated, malformed or hostile */
    SDX_ERR_UNSUPPORTED, /* well-formed, but not something this engine knows */
    SDX_ERR_MEMORY,      /* an allocation failed */
    SDX_ERR_INTERNAL     /* our own fault */
} sdx_status;

typedef struct sdx_error {
    sdx_status status;
    char message[SDX_ERROR_MAX]; /* one sentence, no newline; empty while status is SDX_OK */
} sdx_error;

/* ---- tensors ----------------------------------------------------------------------------------- */

/* The element types, with the codes that ONNX's TensorProto gives them. */
typedef enum sdx_dtype {
    SDX_UNDEFINED = 0,
    SDX_F32 = 1,
    SDX_U8 = 2,
    SDX_I8 = 3,
    SDX_U16 = 4,
    SDX_I16 = 5,
    SDX_I32 = 6,
    SDX_I64 = 7,
    SDX_STRING = 8,
    SDX_BOOL = 9,
    SDX_F16 = 10,
    SDX_F64 = 11,
    SDX_U32 = 12,
    SDX_U64 = 13,
    SDX_C64 = 14,
    SDX_C128 = 15,
    SDX_BF16 = 16,
    SDX_F8E4M3FN = 17,
    SDX_F8E4M3FNUZ = 18,
    SDX_F8E5M2 = 19,
    SDX_F8E5M2FNUZ = 20,
    SDX_U4 = 21,
    SDX_I4 = 22,
    SDX_F4E2M1 = 23,
    SDX_F8E8M0 = 24,
    SDX_U2 = 25,
    SDX_I2 = 26,
    SDX_F6E2M3 = 27,
    SDX_F6E3M2 = 28,
    SDX_TENSOR_LIST = 100, /* not a tensor: data points to an sdx_tensor_list, the rank is 0 */
    SDX_NOTHING = 101   /* an optional that holds nothing; one that holds something is that something */
} sdx_dtype;

/* A view of a dense row-major array: it never owns `data`. rank 0 is a scalar. An element of less than 8 bits
 * has a byte of its own: the value of an integer, the code of a float in the low bits. */
typedef struct sdx_tensor {
    sdx_dtype dtype;
    int rank;
    int64_t dim[SDX_MAX_RANK];
    void *data;
} sdx_tensor;

/* A list of tensors of one element type. */
typedef struct sdx_tensor_list {
    sdx_dtype dtype; /* of the items; SDX_UNDEFINED if it is empty and nobody said */
    size_t count;
    sdx_tensor *item; /* [count] */
} sdx_tensor_list;

SDX_API size_t sdx_dtype_size(sdx_dtype dtype); /* bytes of one element; 0 for SDX_STRING and unknown codes */
SDX_API const char *sdx_dtype_name(sdx_dtype dtype); /* "float32", "int64", ... as NumPy does, else as ONNX */
SDX_API int64_t sdx_tensor_count(const sdx_tensor *t); /* number of elements */
SDX_API size_t sdx_tensor_bytes(const sdx_tensor *t); /* of data: count times size */
/* Element i of any integer, bool or real type, the nearest double; 0 for strings and complex numbers. */
SDX_API double sdx_tensor_get_f64(const sdx_tensor *t, int64_t i);

/* Tensor files. Reading allocates data with malloc; free it with sdx_tensor_free. Writing is atomic.
 * .npy: NumPy format 1.0-3.0, C or Fortran order. .pb: a serialized ONNX TensorProto. */
SDX_API sdx_status sdx_tensor_read_npy(const char *path, sdx_tensor *out, sdx_error *err);
SDX_API sdx_status sdx_tensor_write_npy(const char *path, const sdx_tensor *t, sdx_error *err);
SDX_API sdx_status sdx_tensor_read_pb(const char *path, sdx_tensor *out, sdx_error *err);
SDX_API void sdx_tensor_free(sdx_tensor *t);

/* ---- models ------------------------------------------------------------------------------------ */

typedef struct sdx_model sdx_model;

/* A graph input or output. Dims: >= 0 a size, -1 unknown or symbolic, with its name in `symbol` (or NULL). */
typedef struct sdx_port {
    const char *name;
    sdx_dtype dtype;
    int rank; /* -1: unknown */
    int64_t dim[SDX_MAX_RANK];
    const char *symbol[SDX_MAX_RANK];
    bool sequence; /* a sequence of such tensors */
    bool optional; /* of them or nothing */
    bool has_default; /* an input that need not be given */
} sdx_port;

/* Maps the file (an .onnx file, or a folder that holds model.onnx or onnx/model.onnx) and reads the graph.
 * Weights stay in the mapping until they are needed, so the file must not change while the model lives. */
SDX_API sdx_status sdx_model_open(const char *path, sdx_model **out, sdx_error *err);
SDX_API void sdx_model_close(sdx_model *model);
SDX_API size_t sdx_model_input_count(const sdx_model *model);
SDX_API size_t sdx_model_output_count(const sdx_model *model);
SDX_API sdx_port sdx_model_input(const sdx_model *model, size_t i);
SDX_API sdx_port sdx_model_output(const sdx_model *model, size_t i);
/* A serialized ONNX TensorProto, SequenceProto or OptionalProto, as the port says; free it with
 * sdx_tensor_free. */
SDX_API sdx_status sdx_value_read_pb(const char *path, const sdx_port *port, sdx_tensor *out, sdx_error *err);
/* From now on the input is this value, and no input any more: what depends on it alone is decided when a
 * program is made. Copies the value. */
SDX_API sdx_status sdx_model_fix_input(sdx_model *model, const char *input, const sdx_tensor *value,
                                       sdx_error *err);
/* What a person should know although the model was read: one sentence, or NULL. */
SDX_API const char *sdx_model_warning(const sdx_model *model);
SDX_API const char *sdx_model_metadata(const sdx_model *model, const char *key); /* NULL if absent */
/* What is in the model, as text or as one JSON object; free() the string. */
SDX_API sdx_status sdx_model_inspect(const sdx_model *model, bool json, char **text, sdx_error *err);
/* The graph as a self-contained HTML page; free() the string. shapes: NULL, or the model of a program made of
 * the same file (with no_optimize), whose inferred shapes are shown where the file itself says none. */
SDX_API sdx_status sdx_model_inspect_html(const sdx_model *model, const sdx_model *shapes, char **html,
                                          sdx_error *err);
/* The same in the DOT language of Graphviz. */
SDX_API sdx_status sdx_model_inspect_dot(const sdx_model *model, const sdx_model *shapes, char **dot,
                                         sdx_error *err);

/* ---- running ----------------------------------------------------------------------------------- */

typedef struct sdx_program sdx_program;
typedef struct sdx_session sdx_session;

typedef struct sdx_run_options {
    int threads;      /* 0: what the cgroup quota, the cpuset and OMP_NUM_THREADS allow */
    const char *isa;  /* cap on the instruction set, NULL: SARDONYX_ISA, else the best this CPU has */
    /* "bf16": products with constant weights of float32 round both sides to bfloat16 and sum in float32; about
     * two digits for twice the speed, on CPUs that multiply bfloat16. "fp16": in float16, with sums of 64 products
     * before they go on in float32; about three digits, for twice the speed where the CPU has AVX512-FP16, and in
     * software elsewhere, to the same bytes but slow. "auto": the fastest of them where a short measurement says that
     * it pays here, else float32; so another machine may give other values. NULL or "fp32": float32 throughout. */
    const char *precision;
    bool no_optimize; /* run the graph as the file spells it */
    bool strict;      /* only what the standard says, also where the file's metadata allows something better */
    /* Outputs need not be right where the attention mask is 0: there they are 0, and cost nothing. For callers
     * that look at real tokens only. */
    bool skip_padding;
    /* For a run or two: weights are not packed ahead, which saves their memory and a pass over them. */
    bool brief;
    bool profile;     /* record the time of every step, for sdx_session_profile */
    /* A run that takes more operators than this fails: so loops end. One whose work its inputs' and outputs'
     * sizes do not bound (Einsum, NonMaxSuppression, copies of lists) counts once per 65536 operations. 0:
     * SDX_MAX_STEPS; UINT64_MAX: no limit. */
    uint64_t max_steps;
} sdx_run_options;

/* Compiles a model and takes it over: the model is closed with the program, or on failure. */
SDX_API sdx_status sdx_program_create(sdx_model *model, const sdx_run_options *options, sdx_program **out,
                                      sdx_error *err);
/* sdx_model_open and sdx_program_create in one. Only a program made here runs inputs that broadcast against each other
 * along two named sizes of the graph, else taken as equal: the first such run compiles the file again. */
SDX_API sdx_status sdx_program_open(const char *path, const sdx_run_options *options, sdx_program **out,
                                    sdx_error *err);
SDX_API void sdx_program_free(sdx_program *program);
SDX_API const sdx_model *sdx_program_model(const sdx_program *program);
/* What constant weights are multiplied in: "fp32", "bf16" or "fp16"; under "auto", what it chose. */
SDX_API const char *sdx_program_precision(const sdx_program *program);
/* What a run on inputs of these types and shapes (data may be NULL) would do: the steps in order, and where in
 * memory each leaves its outputs; as text or as one JSON object. free() the string. */
SDX_API sdx_status sdx_program_describe_plan(const sdx_program *program, size_t n_inputs,
                                             const char *const *input_names,
                                             const sdx_tensor *inputs, bool json, char **text, sdx_error *err);
/* Of a program's model: some operator draws random numbers, so that two runs differ. */
SDX_API bool sdx_model_is_random(const sdx_model *model);
/* Of a program's model: the rows of a batch change each other's numbers, because one scale
 * quantizes them all. */
SDX_API bool sdx_model_mixes_rows(const sdx_model *model);

SDX_API sdx_status sdx_session_create(const sdx_program *program, sdx_session **out, sdx_error *err);
SDX_API void sdx_session_free(sdx_session *session);
/* Runs the graph. inputs[i] is bound to input_names[i]; every graph input without a default must be given.
 * outputs[i] becomes a view of the graph output i, in the model's order, valid until the next run of this
 * session. */
SDX_API sdx_status sdx_session_run(sdx_session *session, size_t n_inputs, const char *const *input_names,
                                   const sdx_tensor *inputs, size_t n_outputs, sdx_tensor *outputs,
                                   sdx_error *err);
/* From now on the session keeps what graph output `output` was after a run, and it is graph input `input` of
 * the next: the keys and values of earlier tokens, [rows, heads, tokens, size] of which tokens grow. The input
 * is no longer given, the output comes back as SDX_UNDEFINED, and where the graph's attention allows new rows
 * are written behind the old ones, without a copy. Before the first run. */
SDX_API sdx_status sdx_session_keep(sdx_session *session, const char *input, const char *output,
                                    sdx_error *err);
/* Copies what the next run shall begin with; it may have no tokens. */
SDX_API sdx_status sdx_session_set_kept(sdx_session *session, const char *input, const sdx_tensor *value,
                                        sdx_error *err);
/* In all that is kept, row r becomes what row[r] was. */
SDX_API sdx_status sdx_session_reorder_kept(sdx_session *session, const size_t *row, size_t rows,
                                            sdx_error *err);
/* Time per operator of the runs so far, as a text table; free() the string. */
SDX_API sdx_status sdx_session_profile(const sdx_session *session, char **text, sdx_error *err);

/* Arithmetic, by what it is done in: operations, two a multiply-add. */
typedef struct sdx_work {
    double f32, bf16, f16, int8;
} sdx_work;
/* Of the last run: its matrix products, convolutions and attention. */
SDX_API sdx_work sdx_session_work(const sdx_session *session);
/* What one core does at best with the program's instruction set, operations a second, measured now in some
 * milliseconds. 0: it has no such arithmetic, or there is no measure of it (other CPUs than x86). */
SDX_API sdx_work sdx_program_peak(const sdx_program *program);

/* ---- making and rewriting models ----------------------------------------------------------------- */

typedef struct sdx_convert_options {
    const char *checkpoint; /* a Hugging Face folder */
    const char *output;     /* the .onnx file to write; sequence-to-sequence models are several files, which go
                               to a folder of this name without .onnx, with config.json and the tokenizer */
    const char *vocabulary; /* file to write the tokenizer's vocabulary to, or NULL */
    const char *task;       /* NULL or "auto": from config.json's architectures */
    const char *text;       /* validation text; NULL: "what is AI?" */
    int opset;              /* 0: 14 */
    bool splade;            /* append relu, log1p, mask, max over tokens, nonzero */
    bool external_data;     /* weights in <output>.data */
    bool skip_validation;
    /* of stored matrices: SDX_F32 (and 0), SDX_F16 or SDX_BF16; computing is in float32 */
    sdx_dtype dtype;
    bool no_past;           /* sequence to sequence: no decoder_with_past_model.onnx */
    bool merged;            /* sequence to sequence: also decoder_model_merged.onnx, both decoders in one */
    /* Called, if set, as each file is written: bytes that have gone to it, and how many there will be. */
    void (*progress)(void *context, uint64_t done, uint64_t total);
    void *progress_context;
} sdx_convert_options;

typedef struct sdx_convert_report {
    size_t nodes, initializers;
    char model_type[32];
    char task[40];
    char output_name[40];  /* the output that was compared */
    double l1_difference;  /* mean |graph - reference| after ReLU; NaN if validation was skipped */
    double max_difference; /* max |graph - reference| */
    bool wrote_vocabulary; /* asked for, and the checkpoint has a tokenizer */
    size_t graphs;         /* files written; nodes and initializers are of all of them */
} sdx_convert_report;

/* Writes the files and compares the graph with an independent forward pass. report may be NULL. */
SDX_API sdx_status sdx_convert(const sdx_convert_options *options, sdx_convert_report *report, sdx_error *err);

typedef struct sdx_op_tally {
    char name[48]; /* operator type */
    size_t count;
} sdx_op_tally;

typedef struct sdx_graph_stats {
    size_t nodes, inputs, outputs, initializers;
    size_t n_fused;
    sdx_op_tally fused[24]; /* fused operators by kind, most frequent first */
} sdx_graph_stats;

typedef struct sdx_optimize_options {
    const char *input, *output;
    const char *only;     /* comma-separated pass names; NULL: all */
    const char *model_type; /* accepted and, if given, checked; NULL or "auto" */
    int num_heads, hidden_size; /* 0: read from the graph; else checked against it */
    /* "ort" or NULL: also com.microsoft's operators, for ONNX Runtime from 1.17 on; "std": standard operators
     * only, those of opset 23 among them */
    const char *target;
    /* "fp16", "bf16": large weights, and what safe operators make of them, in 16 bits; NULL: as they are */
    const char *weights;
    bool external_data;
    /* not NULL: why nothing was compared, as the original failed on all inputs; else empty */
    sdx_error *unchecked;
    int threads;     /* as in sdx_run_options, as is isa */
    const char *isa;
    /* Not NULL: what became of every place that looks like attention, a norm, a GELU or an embedding; free()
     * it. As text (NULL too), as a JSON list, or as the page of sdx_model_inspect_html with the places marked:
     * "text", "json", "html". *missed: how many of them should have fused and did not. */
    char **explanation;
    const char *explain_form;
    size_t *missed;
} sdx_optimize_options;

/* Rewrites a file, and compares both graphs on made-up inputs before the new one takes its name. before and
 * after may be NULL. */
SDX_API sdx_status sdx_optimize(const sdx_optimize_options *options, sdx_graph_stats *before,
                                sdx_graph_stats *after, sdx_error *err);

/* The inputs of one run. */
typedef struct sdx_case {
    size_t count;
    const char *const *name;  /* [count] */
    const sdx_tensor *tensor; /* [count] */
} sdx_case;
/* Gives the next case, good until the next call; count 0 when there are no more. */
typedef sdx_status (*sdx_case_fn)(void *context, sdx_case *out, sdx_error *err);

typedef enum sdx_quantize_format {
    SDX_QUANTIZE_QOPERATOR, /* integer operators */
    /* float operators between pairs of QuantizeLinear and DequantizeLinear; static only */
    SDX_QUANTIZE_QDQ
} sdx_quantize_format;

/* What range an activation gets, of all the values it had. */
typedef enum sdx_quantize_method {
    SDX_QUANTIZE_MINMAX,
    SDX_QUANTIZE_PERCENTILE, /* the middle `percentile` of a hundred */
    SDX_QUANTIZE_ENTROPY     /* that loses the least information */
} sdx_quantize_method;

typedef struct sdx_quantize_options {
    const char *input, *output;
    /* "accurate" (ours), or what others write: "anserini", "avx512_vnni", "avx2", "arm64". NULL: ours, or with
     * one of the next three the form of ONNX Runtime's quantize_dynamic. */
    const char *preset;
    bool per_channel;
    bool unsigned_weights; /* QUInt8 instead of QInt8 */
    bool reduce_range;     /* 7-bit weights */
    const char *op_types;  /* comma-separated; NULL: MatMul,Gemm,Gather,Attention,EmbedLayerNormalization */
    const char *const *exclude; /* node names left alone */
    size_t n_exclude;
    /* 4 or 8: MatMulNBits, whose blocks of weights have scales of their own and activations stay float; 0 */
    int weight_bits;
    int block_size;  /* of those; 0: 32 */
    bool is_static;  /* activation scales are constants, from the values that the cases show */
    sdx_quantize_format format;
    sdx_quantize_method method;
    double percentile;      /* 0: 99.999 */
    sdx_case_fn next_case;  /* calibration; NULL: made-up tokens, which a static form does not take */
    void *case_context;
    bool external_data;
    bool allow_none; /* a graph with nothing to quantize is written as it is; without, it is a mistake */
    /* fill in the report's table: a line for each layer, with the error it adds and the time it saves */
    bool report;
    /* "cosine>=0.999" or "top10>=0.97" to the float model on the cases: leaves in float what it must */
    const char *target;
} sdx_quantize_options;

typedef struct sdx_quantize_report {
    size_t quantized;           /* operators now in int8 */
    size_t skipped;             /* candidates left in float */
    size_t cases;               /* of calibration that were run */
    uint64_t bytes_before, bytes_after;
    char *table; /* free() it; NULL if not asked */
} sdx_quantize_report;

/* Rewrites a file. report may be NULL. */
SDX_API sdx_status sdx_quantize(const sdx_quantize_options *options, sdx_quantize_report *report,
                                sdx_error *err);

/* Copies what users of a model's folder look for beside its graphs: configuration and tokenizer files, those
 * there are. */
SDX_API sdx_status sdx_copy_companions(const char *folder, const char *to, sdx_error *err);

/* ---- text -------------------------------------------------------------------------------------- */

typedef struct sdx_tokenizer sdx_tokenizer;

typedef struct sdx_encoding {
    size_t count;
    int64_t *ids;      /* [count] */
    int64_t *type_ids; /* [count] */
    size_t padding;    /* so many of them are padding, at one end */
    struct sdx_encoding *overflow; /* [overflow_count]: further windows of a truncated text; owned */
    size_t overflow_count;
} sdx_encoding;

typedef struct sdx_text {
    const char *data;
    size_t length;
} sdx_text;

typedef enum sdx_truncation_strategy {
    SDX_LONGEST_FIRST,
    SDX_ONLY_FIRST,
    SDX_ONLY_SECOND
} sdx_truncation_strategy;

typedef struct sdx_truncation {
    size_t max_length; /* tokens, special ones included */
    size_t stride;     /* tokens that neighbouring windows share */
    sdx_truncation_strategy strategy;
    bool left; /* drops from the left */
} sdx_truncation;

typedef struct sdx_padding {
    bool fixed;     /* to `length`; else to the longest of the batch */
    size_t length;
    size_t multiple; /* rounded up to a multiple of this; 0: not */
    int64_t id, type_id;
    bool left;
} sdx_padding;

/* A folder with tokenizer.json, or with the older files: vocab.txt, vocab.json (and merges.txt), a
 * SentencePiece model, Marian's source.spm and target.spm; tokenizer_config.json beside them. Or one of those
 * files. A tokenizer is read-only after opening: threads may share it. */
SDX_API sdx_status sdx_tokenizer_open(const char *path, sdx_tokenizer **out, sdx_error *err);
SDX_API void sdx_tokenizer_free(sdx_tokenizer *tokenizer);
/* pair may be NULL. max_length 0: no truncation; else the longest sequence is cut, special tokens kept.
 * On success *out owns its arrays: sdx_encoding_free. Text need not be valid UTF-8. */
SDX_API sdx_status sdx_tokenizer_encode(const sdx_tokenizer *tokenizer, const char *text, size_t text_len,
                                        const char *pair, size_t pair_len, size_t max_length,
                                        sdx_encoding *out, sdx_error *err);
SDX_API void sdx_encoding_free(sdx_encoding *encoding);
/* What tokenizer.json itself says, which only sdx_tokenizer_encode_batch can be told to follow; NULL:
 * nothing. */
SDX_API const sdx_truncation *sdx_tokenizer_truncation(const sdx_tokenizer *tokenizer);
SDX_API const sdx_padding *sdx_tokenizer_padding(const sdx_tokenizer *tokenizer);
/* As encode_batch of Hugging Face's tokenizers: what is cut off comes back as overflow, and all are padded
 * alike. pairs: NULL, or the second text of each, whose data may be NULL. truncation, padding: NULL for none.
 * out[count]: free each. */
SDX_API sdx_status sdx_tokenizer_encode_batch(const sdx_tokenizer *tokenizer, const sdx_text *texts,
                                              const sdx_text *pairs, size_t count,
                                              const sdx_truncation *truncation, const sdx_padding *padding,
                                              sdx_encoding *out, sdx_error *err);
/* free() the string. length may be NULL; texts can hold NUL characters. */
SDX_API sdx_status sdx_tokenizer_decode(const sdx_tokenizer *tokenizer, const int64_t *ids, size_t count,
                                        bool skip_special, char **text, size_t *length, sdx_error *err);
SDX_API size_t sdx_tokenizer_vocab_size(const sdx_tokenizer *tokenizer);
/* NULL when id is outside the vocabulary. */
SDX_API const char *sdx_tokenizer_token(const sdx_tokenizer *tokenizer, int64_t id);
SDX_API bool sdx_tokenizer_is_special(const sdx_tokenizer *tokenizer, int64_t id);

/* ---- tasks ---------------------------------------------------------------------------------------
 *
 * From a folder and some text (or a sound) to an answer: open, run as often as you like, free;
 * examples/answer.c has them all. A task object belongs to one thread. Opening fails with SDX_ERR_FILE when a
 * file is absent or damaged and with SDX_ERR_UNSUPPORTED when the model has not the outputs that the task
 * needs; running with SDX_ERR_USAGE when the fault is the caller's (an option, a text that gives no token, a
 * sound that is too short).
 */

typedef struct sdx_task_options {
    /* .onnx file, a folder that holds one, or a checkpoint folder, converted in memory */
    const char *model;
    const char *tokenizer; /* folder or file; NULL: beside the model */
    size_t max_length;     /* tokens; 0: what the tokenizer's or the model's configuration says */
    size_t batch_tokens;   /* padded tokens in one run; 0: 4096 */
    sdx_run_options run;
} sdx_task_options;

/* Dense vectors: tokenizer, model, then pooling, dense layers and normalization as modules.json in the
 * tokenizer's folder says (mean pooling, normalized, when there is none). */
typedef struct sdx_embedder sdx_embedder;
SDX_API sdx_status sdx_embedder_open(const sdx_task_options *options, sdx_embedder **out, sdx_error *err);
SDX_API void sdx_embedder_free(sdx_embedder *embedder);
SDX_API size_t sdx_embedder_dim(const sdx_embedder *embedder);
/* What stands before every text from now on: a prompt of config_sentence_transformers.json by its name, or any
 * text. Both NULL: the folder's default_prompt_name, as after opening. An unknown name is SDX_ERR_USAGE. */
SDX_API sdx_status sdx_embedder_set_prompt(sdx_embedder *embedder, const char *name, const char *text,
                                           sdx_error *err);
/* out: [count, dim] float32, row-major. The vector of a text does not depend on its neighbours. */
SDX_API sdx_status sdx_embedder_run(sdx_embedder *embedder, const sdx_text *texts, size_t count, float *out,
                                    sdx_error *err);

/* Sparse vectors: SPLADE graphs with outputs output_idx and output_weights, or a masked-LM graph with logits.
 * The vector of a text does not depend on its neighbours. */
typedef struct sdx_sparse_encoder sdx_sparse_encoder;

typedef struct sdx_sparse_vector {
    size_t count;
    const int64_t *index; /* vocabulary ids, ascending */
    const float *weight;  /* > 0 */
} sdx_sparse_vector;

SDX_API sdx_status sdx_sparse_encoder_open(const sdx_task_options *options, sdx_sparse_encoder **out,
                                           sdx_error *err);
SDX_API void sdx_sparse_encoder_free(sdx_sparse_encoder *encoder);
SDX_API const sdx_tokenizer *sdx_sparse_encoder_tokenizer(const sdx_sparse_encoder *encoder);
/* The tokens around every text ([CLS], [SEP]) and padding, whose weights Anserini leaves out. */
SDX_API bool sdx_sparse_encoder_is_frame(const sdx_sparse_encoder *encoder, int64_t id);
/* out[count]: views into the encoder, valid until its next run. */
SDX_API sdx_status sdx_sparse_encoder_run(sdx_sparse_encoder *encoder, const sdx_text *texts, size_t count,
                                          sdx_sparse_vector *out, sdx_error *err);

/* Labels and scores of texts or text pairs, as config.json beside the tokenizer has them: id2label names the
 * labels; problem_type decides between softmax over labels, a sigmoid for each (multi_label_classification, or
 * one label) and the bare number (regression). */
typedef struct sdx_classifier sdx_classifier;
SDX_API sdx_status sdx_classifier_open(const sdx_task_options *options, sdx_classifier **out, sdx_error *err);
SDX_API void sdx_classifier_free(sdx_classifier *classifier);
SDX_API size_t sdx_classifier_label_count(const sdx_classifier *classifier);
SDX_API const char *sdx_classifier_label(const sdx_classifier *classifier, size_t i);
/* pairs: NULL, or the second text of each, whose data may be NULL. scores: [count, labels] row-major. */
SDX_API sdx_status sdx_classifier_run(sdx_classifier *classifier, const sdx_text *texts, const sdx_text *pairs,
                                      size_t count, float *scores, sdx_error *err);

/* Text from text, by a sequence-to-sequence model (encoder_model.onnx, decoder_model.onnx and, for speed,
 * decoder_with_past_model.onnx, or decoder_model_merged.onnx) or a decoder-only graph. Greedy for one beam,
 * else beam search, both as transformers' generate() has them; or sampling, by a random generator of our
 * own. */
typedef struct sdx_generator sdx_generator;

typedef enum sdx_early_stopping {
    SDX_STOP_HEURISTIC, /* false: when the best row can hardly beat the worst finished one */
    SDX_STOP_EARLY,     /* true: as soon as num_beams are finished */
    SDX_STOP_NEVER      /* "never": when none can */
} sdx_early_stopping;

typedef struct sdx_generate_options {
    size_t num_beams;
    size_t max_length, min_length;         /* of all ids that are returned */
    size_t max_new_tokens, min_new_tokens; /* not 0: count instead of the two above */
    size_t no_repeat_ngram_size;           /* 0: n-grams may repeat */
    double length_penalty, repetition_penalty; /* 1: none */
    sdx_early_stopping early_stopping;
    size_t num_return_sequences;  /* for each text; of beams: at most num_beams */
    int64_t forced_bos_token_id;  /* the first token after the decoder's start, as mBART's language; -1: free */
    bool do_sample;               /* draw tokens, with one beam only */
    double temperature, top_p;    /* 1: none */
    size_t top_k;                 /* 0: all */
    uint64_t seed;                /* the same seed, text and number of the text: the same draws */
    size_t first_text;            /* the number of texts[0]: of runs before this one, if they belong together */
    /* NULL, or told each new token of texts[text] as soon as it is chosen; with one beam and one sequence a
     * text. Returns false to end the run, which then fails with SDX_ERR_USAGE. */
    bool (*on_token)(void *context, size_t text, int64_t id);
    void *context;
} sdx_generate_options;

/* What generate() returns: the decoder's start (decoder-only: the prompt) and what follows. */
typedef struct sdx_generated {
    const int64_t *ids; /* [count], valid until the next run */
    size_t count;
} sdx_generated;

/* The model's folder, or the tokenizer's, has generation_config.json or config.json. */
SDX_API sdx_status sdx_generator_open(const sdx_task_options *options, sdx_generator **out, sdx_error *err);
SDX_API void sdx_generator_free(sdx_generator *generator);
/* As the folder has them. */
SDX_API sdx_generate_options sdx_generator_defaults(const sdx_generator *generator);
/* options: NULL for the defaults. out: [count, num_return_sequences]; sdx_tokenizer_decode makes text of the
 * ids. What a text gives does not depend on its neighbours. */
SDX_API sdx_status sdx_generator_run(sdx_generator *generator, const sdx_generate_options *options,
                                     const sdx_text *texts,
                                     size_t count, sdx_generated *out, sdx_error *err);
SDX_API const sdx_tokenizer *sdx_generator_tokenizer(const sdx_generator *generator);

/* Text from speech, by a CTC model (input_values to logits): resampling and normalization follow
 * preprocessor_config.json in the tokenizer's folder. */
typedef struct sdx_transcriber sdx_transcriber;

typedef struct sdx_transcribe_options {
    size_t num_beams;      /* 0 and 1: the best token of each frame; else prefix beam search */
    double chunk_seconds;  /* longer sounds run in windows of this length; 0: 30; below 0: whole */
    double stride_seconds; /* what a window has on each side for context alone; 0: a sixth of it */
} sdx_transcribe_options;

typedef struct sdx_timed_text {
    char *text;
    double start, end; /* seconds */
} sdx_timed_text;

typedef struct sdx_transcript {
    char *text;
    size_t length;
    sdx_timed_text *word, *character; /* [words], [characters] */
    size_t words, characters;
} sdx_transcript;

SDX_API sdx_status sdx_transcriber_open(const sdx_task_options *options, sdx_transcriber **out, sdx_error *err);
SDX_API void sdx_transcriber_free(sdx_transcriber *transcriber);
/* samples: [count], one channel in [-1, 1] at rate Hz; rate 0: the model's input as it is, neither resampled
 * nor normalized. options: NULL for the defaults. Free with sdx_transcript_free. */
SDX_API sdx_status sdx_transcriber_run(sdx_transcriber *transcriber, const sdx_transcribe_options *options,
                                       const float *samples, size_t count, int rate, sdx_transcript *out,
                                       sdx_error *err);
SDX_API void sdx_transcript_free(sdx_transcript *transcript);
/* A sound file (WAV, FLAC, Ogg, ... by libsndfile; WAV alone in builds without it), its channels mixed to one.
 * free() the samples. */
SDX_API sdx_status sdx_audio_read(const char *path, float **samples, size_t *count, int *rate, sdx_error *err);

/* ---- about -------------------------------------------------------------------------------------- */

typedef struct sdx_op_info {
    const char *domain; /* "ai.onnx" spelled out */
    const char *name;
    int since, until; /* opset versions, inclusive; until 0: open */
    int min_inputs, max_inputs, min_outputs, max_outputs; /* max -1: any number */
    const char *family; /* the file of engine/ops that computes it, without .c */
} sdx_op_info;

SDX_API size_t sdx_operator_count(void);
SDX_API sdx_op_info sdx_operator_at(size_t i);
/* The best instruction set of this CPU that this build has kernels for. */
SDX_API const char *sdx_cpu_isa(void);
/* The same under the cap of sdx_set_isa or SARDONYX_ISA: what a program gets whose options name no other. */
SDX_API const char *sdx_used_isa(void);
SDX_API const char *sdx_build_flags(void);  /* compiler, mode, OpenMP, OpenBLAS */
SDX_API int sdx_default_threads(void);
/* Caps the instruction set for everything after; SDX_ERR_USAGE for an unknown name. Call before any program is
 * made. */
SDX_API sdx_status sdx_set_isa(const char *name, sdx_error *err);

#ifdef __cplusplus
}
#endif
#endif
