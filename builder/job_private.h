/* What the files of a build share. */
#ifndef HOB_BUILDER_JOB_PRIVATE_H
#define HOB_BUILDER_JOB_PRIVATE_H

#include "builder/git/git.h"
#include "builder/job.h"
#include "builder/machine.h"
#include "builder/range.h"
#include "snapshots/store.h"

/* One source: what was found, and the layers that show it. */
struct job_source {
	struct git_found found;
	char checkout[COMMIT_TEXT_SIZE]; /* of its full checkout; another than found.commit: there
					    is a delta too */
	struct layer layers[2]; /* the full checkout, the delta */
	size_t layer_count;
};

struct job {
	struct machine *machine;
	const struct environment *environment;
	const struct local_files *files;
	struct job_options options;
	char *mirrors;
	int lock_fd, log_fd;
	struct build build;
	bool begun;
	struct image head; /* the image before, when has_head */
	bool has_head;
	struct job_source *sources;
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

/* job_fetch.c: resolves every source. */
MUSTCHECK int job_fetch(struct job *job, struct error *err);
/* A source as git.h wants it; *ret_path holds the text that it points to. */
struct git_source job_git_source(const struct job *job, size_t index, char **ret_path);
/* Drops a mirror that lacks something and fetches it anew. */
MUSTCHECK int job_refetch(struct job *job, size_t index, struct error *err);
/* job_sources.c: makes or finds their layers. */
MUSTCHECK int job_sources(struct job *job, struct error *err);
/* job_steps.c: a layer a step; then the gate. */
MUSTCHECK int job_steps(struct job *job, struct error *err);
MUSTCHECK int job_check(struct job *job, struct error *err);

#endif
