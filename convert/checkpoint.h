/* checkpoint.h: tensors of a Hugging Face folder, found by name, whatever file format holds them.
 *
 *   safetensors.c   model.safetensors, or shards named by model.safetensors.index.json
 *   torch_zip.c     pytorch_model.bin, or shards named by pytorch_model.bin.index.json
 *
 * Files stay mapped: a tensor's data points into the mapping, at any alignment, until the checkpoint is closed.
 */
#ifndef SDX_CONVERT_CHECKPOINT_H
#define SDX_CONVERT_CHECKPOINT_H

#include "../base/arena.h"
#include "../base/file.h"
#include "../base/map.h"
#include "../base/tensor.h"

typedef struct sdx_checkpoint {
    sdx_arena arena;    /* names, and tensors that had to be made contiguous */
    char *folder;       /* in arena; for messages */
    const char *prefix; /* "bert.": find() also tries this in front of a name; NULL: none */
    sdx_file_map *file; /* [n_file]; owned */
    size_t n_file;
    const char **name;  /* [n_tensor]; owned array, strings in arena */
    sdx_tensor *tensor; /* [n_tensor]; owned */
    size_t n_tensor, capacity;
    sdx_map index; /* name -> position in tensor */
} sdx_checkpoint;

sdx_status sdx_checkpoint_open(const char *folder, sdx_checkpoint **out, sdx_error *err);
void sdx_checkpoint_close(sdx_checkpoint *checkpoint);

/* The tensor called name, prefix + name, or by TensorFlow's old LayerNorm names (gamma, beta); NULL if absent.
 */
const sdx_tensor *sdx_checkpoint_find(const sdx_checkpoint *checkpoint, const char *name);
/* The same, with a sentence when it is absent, is no float type or has another shape. */
sdx_status sdx_checkpoint_get(const sdx_checkpoint *checkpoint, const char *name, int rank, const int64_t *dim,
                              const sdx_tensor **out, sdx_error *err);
/* The tensor has been used for now: its pages may leave memory (they are read again when touched). */
void sdx_checkpoint_release(const sdx_checkpoint *checkpoint, const sdx_tensor *tensor);

/* Elements [from, from + n) of a float tensor as float32. */
void sdx_weight_load(const sdx_tensor *tensor, int64_t from, int64_t n, float *out);

/* ---- for the readers ------------------------------------------------------------------------------------- */

/* Takes a tensor in; a name that is already there is an error. */
sdx_status sdx_checkpoint_add(sdx_checkpoint *checkpoint, const char *name, size_t length,
                              const sdx_tensor *tensor, sdx_error *err);
/* Both read one file's bytes, which must outlive the checkpoint; messages come without the path. */
sdx_status sdx_safetensors_read(sdx_checkpoint *checkpoint, const unsigned char *data, size_t size,
                                sdx_error *err);
sdx_status sdx_torch_zip_read(sdx_checkpoint *checkpoint, const unsigned char *data, size_t size,
                              sdx_error *err);
/* An empty checkpoint, for readers and tests. */
sdx_status sdx_checkpoint_create(const char *folder, sdx_checkpoint **out, sdx_error *err);

#endif
