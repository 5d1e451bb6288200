/* The changes from one image to another as text, for hob-snapshots and, of hobd's reply, for hob.
 */
#ifndef HOB_SNAPSHOTS_CLI_IMAGES_CHANGES_H
#define HOB_SNAPSHOTS_CLI_IMAGES_CHANGES_H

#include "base/json.h"

/* "sources", "packages", "files" and "layers" of the object; those that it has. */
void images_changes_print(const json_t *reply);
/* '+', '-' or '~' for one change of any list. */
char images_change_mark(const json_t *change);

#endif
