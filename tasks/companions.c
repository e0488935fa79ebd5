/* companions.c: the small files beside the graphs of a model's folder, which its users look for there too. */
#include <stdlib.h>
#include <string.h>

#include "../base/file.h"
#include "../base/memory.h"

static sdx_status copy_file(const char *from, const char *to, sdx_error *err)
{
    sdx_file_map map;
    sdx_writer w;
    TRY(sdx_file_map_open(from, &map, err));
    sdx_status status = sdx_writer_open(&w, to, err);
    if (status == SDX_OK) {
        sdx_writer_put(&w, map.data, map.size);
        status = sdx_writer_commit(&w, err);
    }
    sdx_file_map_close(&map);
    return status;
}

sdx_status sdx_copy_companions(const char *folder, const char *to, sdx_error *err)
{
    static const char *const names[] = {
        "config.json",       "generation_config.json",  "tokenizer.json", "tokenizer_config.json",
        "added_tokens.json", "special_tokens_map.json", "vocab.json",     "merges.txt",
        "spiece.model",      "sentencepiece.bpe.model", "source.spm",     "target.spm",
        "target_vocab.json",
        "vocab.txt",         "preprocessor_config.json",
    };
    sdx_status status = SDX_OK;
    for (size_t i = 0; i < sizeof names / sizeof *names && status == SDX_OK; i++) {
        char *from = sdx_path_join(folder, names[i]), *copy = sdx_path_join(to, names[i]);
        if (!from || !copy) status = sdx_fail_memory(err, strlen(folder));
        else if (sdx_file_exists(from)) status = copy_file(from, copy, err);
        free(from);
        free(copy);
    }
    return status;
}
