/* Where environments come from: the operator's folder of files, read at start, on SIGHUP and when
 * inotify sees a change; and the store's heads/, whose links say that a build was published. */
#ifndef HOB_POOL_ENVIRONMENTS_H
#define HOB_POOL_ENVIRONMENTS_H

#include "base/error.h"

struct manager;

MUSTCHECK int environments_open(struct manager *manager, struct error *err);
void environments_close(struct manager *manager);
/* Reads the folder again. A file that became unusable keeps the environment it gave before. */
void environments_reload(struct manager *manager);

#endif
