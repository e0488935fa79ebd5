/* folder_tests.h: what the tests that write files share: folders in /tmp, also of checkpoints with random weights. */
#ifndef SDX_TESTS_FOLDER_TESTS_H
#define SDX_TESTS_FOLDER_TESTS_H

#include <stddef.h>

/* Makes one and writes its path into path [FOLDER]. */
enum { FOLDER = 32 };
void make_folder(char *path);
/* With all that is in it. */
void remove_folder(const char *path);
void put_file(const char *folder, const char *name, const void *bytes, size_t size);
/* Puts `to` in place of the first `from`, which has to be there. */
void edit_file(const char *folder, const char *name, const char *from, const char *to);
/* A new folder with this config.json and weights of its own. */
void make_checkpoint(char *path, const char *config);

#endif
