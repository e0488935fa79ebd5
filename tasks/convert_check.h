/* convert_check.h: the converter's check of what it wrote. */
#ifndef SDX_TASKS_CONVERT_CHECK_H
#define SDX_TASKS_CONVERT_CHECK_H

#include "../convert/convert.h"

/* Compares the report->graphs files at path with the reference, which is taken over; fills in the report's
 * differences, the worst of all, and the name of what was compared. */
sdx_status sdx_convert_check(const sdx_convert_options *options, sdx_reference *reference, char *const *path,
                             sdx_convert_report *report, sdx_error *err);
bool sdx_convert_has_tokenizer(const char *folder);

#endif
