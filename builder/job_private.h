/* What the files of a build share. */
#ifndef HOB_BUILDER_JOB_PRIVATE_H
#define HOB_BUILDER_JOB_PRIVATE_H

#include "builder/git/git.h"
#include "builder/job.h"
#include "builder/machine.h"
#include "builder/range.h"
#include "snapshots/store.h"

struct job {
	struct machine *machine;
	const struct environment *environment;
	const struct local_files *files;
	struct job_options options;
	char *mirrors;
	int lock_fd, log_fd;
	struct build build;
	bool begun;
	struct git_found *found; /* one a source */
	char base_key[65];
	char fingerprint[65];
	struct layer layers[IMAGE_LAYERS_MAX];
	size_t layer_count;
	struct range range;
	int64_t image_id;
	int64_t published_us; /* monotonic; 0: not */
	bool unchanged;
	char *unchanged_why; /* NULL: the head is what it would make */
};

/* Passes a fault point by name; the error if one is set. */
MUSTCHECK int job_fault(const char *name, struct error *err);
MUSTCHECK int job_add_layer(struct job *job, const struct layer *layer, struct error *err);

/* job_sources.c: resolves every source, then makes or finds their layers. */
MUSTCHECK int job_fetch(struct job *job, struct error *err);
MUSTCHECK int job_sources(struct job *job, struct error *err);
/* job_steps.c: a layer a step; then the gate. */
MUSTCHECK int job_steps(struct job *job, struct error *err);
MUSTCHECK int job_check(struct job *job, struct error *err);

#endif
