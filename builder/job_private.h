/* What the files of a build share. */
#ifndef HOB_BUILDER_JOB_PRIVATE_H
#define HOB_BUILDER_JOB_PRIVATE_H

#include "builder/credentials/step_secrets.h"
#include "builder/git/git.h"
#include "builder/git/git_modules.h"
#include "builder/job.h"
#include "builder/machine.h"
#include "builder/packages/packages.h"
#include "builder/range.h"
#include "configs/environment.h"
#include "snapshots/store.h"

/* One submodule of a source, or of one of its submodules. */
struct job_module {
	char *path; /* below the source's */
	char *url; /* where it is fetched */
	char *local; /* the folder, when the url names one */
	struct git_found found; /* its commit */
	struct git_module_list inner; /* its own */
};

struct job_modules {
	bool known; /* job_modules_find was here */
	struct git_module_list top; /* the source's own */
	struct job_module **items; /* each after the one it lies in */
	size_t count, room;
};

/* One source: what was found, and the layers that show it. */
struct job_source {
	struct git_found found;
	char checkout[COMMIT_TEXT_SIZE]; /* of its full checkout; another than found.commit: there
					    is a delta too */
	struct layer layers[2]; /* the full checkout, the delta */
	size_t layer_count;
	struct job_modules modules;
};

#define JOB_SOURCES_MAX 4

/* One step: what its result depends on (job_keys.c). */
struct job_step {
	char key[65];
	char line[65]; /* the same without the sources: results of one line follow one another */
	char inputs[JOB_SOURCES_MAX][65];
	uint64_t input_files;
};

/* The result of a step: one layer, or with `incremental` several, each over the one before. */
#define RESULT_LAYERS_MAX 6
struct job_result {
	struct layer layers[RESULT_LAYERS_MAX];
	size_t count;
	char *hidden; /* why it cannot be taken: the changed file that it would hide */
};
void job_result_done(struct job_result *result);

/* Paths that differ between a commit and that of now. */
struct job_changes {
	size_t source;
	char from[COMMIT_TEXT_SIZE];
	struct buffer paths;
};

struct job {
	struct machine *machine;
	const struct environment *environment; /* `own` once an oci base has said its part */
	struct environment own;
	const struct local_files *files;
	struct job_options options;
	char *mirrors;
	int lock_fd, log_fd;
	struct build build;
	bool begun;
	struct image head; /* the image before, when has_head */
	bool has_head;
	struct job_source *sources;
	struct job_step *steps;
	struct job_changes changes[16];
	size_t change_count;
	size_t reused, made; /* layers of this build */
	bool clean; /* from nothing: no layer is reused */
	int64_t clean_ms; /* when the last image from nothing was begun */
	char base_key[65];
	char package_keys[PACKAGE_MANAGERS][65];
	char files_key[65];
	json_t *installed; /* packages with versions and digests; NULL: not known yet */
	char below_key[65]; /* of all that lies below the sources */
	char fingerprint[65];
	struct layer layers[IMAGE_LAYERS_MAX];
	size_t layer_count;
	size_t first_source, first_step; /* where in layers they begin */
	struct range range;
	struct step_secrets secrets; /* what its steps are given */
	int64_t image_id;
	int64_t published_us; /* monotonic; 0: not */
	bool unchanged;
	char *unchanged_why; /* NULL: the head is what it would make */
};

/* job.c: an object for one build, or for the look before it. */
struct job *job_new(struct machine *machine, const struct environment *environment,
	const struct local_files *files, const struct job_options *options);
void job_free(struct job *job);
/* Fetches and compares: sets the commits, the fingerprint, head, clean and unchanged. */
MUSTCHECK int job_look(struct job *job, struct error *err);
/* Passes a fault point by name; the error if one is set. */
MUSTCHECK int job_fault(const char *name, struct error *err);
MUSTCHECK int job_add_layer(struct job *job, const struct layer *layer, struct error *err);

/* job_fetch.c: resolves every source. */
MUSTCHECK int job_fetch(struct job *job, struct error *err);
/* A source as git.h wants it; *ret_path holds the text that it points to. */
struct git_source job_git_source(const struct job *job, size_t index, char **ret_path);
/* The fetch itself; trusted: with the source's credential. */
MUSTCHECK int job_fetch_source(struct job *job, size_t index, struct git_source *source,
	bool trusted, struct git_found *ret_found, struct error *err);
/* Drops a mirror that lacks something and fetches it anew. */
MUSTCHECK int job_refetch(struct job *job, size_t index, struct error *err);
/* job_sources.c: makes or finds their layers. */
MUSTCHECK int job_sources(struct job *job, struct error *err);
/* Finds them only: sources[index].layers. */
bool job_find_source(struct job *job, size_t index);
/* The index of a source's workspace, or of the submodule at a path in it (""), as the layers of now
 * have it; -1 if it is not there. */
int job_open_index(const struct job *job, size_t index, const char *module);
/* The same of the image before. */
int job_open_index_before(const struct job *job, size_t index, const char *module);
/* A folder or file of a layer; -1 if it is not there. */
int job_open_in_layer(
	const struct job *job, const struct layer *layer, const char *path, int flags);
/* Its commit in the image before, and that of its full checkout then. */
bool job_source_before(const struct job *job, size_t index, char *commit, char *checkout);
/* job_modules.c: are submodules of the source to be there? */
bool job_has_modules(const struct job *job, size_t index);
/* Fetches them all; sources[index].modules. */
MUSTCHECK int job_modules_find(struct job *job, size_t index, struct error *err);
/* Drops their mirrors, so that they are found anew. */
MUSTCHECK int job_modules_refetch(struct job *job, size_t index, struct error *err);
struct job_modules_place {
	int tree_fd;
	const struct layer *full; /* the full checkout that a delta is written over; NULL: none */
};
/* Writes them where the source has been written. */
MUSTCHECK int job_modules_write(struct job *job, size_t index, const struct job_modules_place *to,
	struct git_delta *delta, struct error *err);
/* Of each the files that match: what a strict step sees. */
MUSTCHECK int job_modules_inputs(
	struct job *job, size_t index, char *const *patterns, int tree_fd, struct error *err);
void job_modules_done(struct job_modules *modules);
/* job_keys.c: the keys of all steps, from below_key and the sources as they were found. */
MUSTCHECK int job_make_keys(struct job *job, struct error *err);
/* The commits of the sources, for layer.origin. */
void job_origin(const struct job *job, char *text);
/* job_reuse.c: a result of this very key; and for incremental steps the last one of its line.
 * False with result->hidden set: there is one, but it hides something. */
bool job_find_result(struct job *job, size_t index, struct job_result *result);
bool job_find_start(struct job *job, size_t index, struct job_result *result);
/* The paths of a source that differ between `from` and now, as git_read_changes gives them. */
MUSTCHECK int job_changes_since(struct job *job, size_t index, const char *from,
	const struct buffer **ret_paths, struct error *err);
/* The commit of a source that a layer was made over, into commit[COMMIT_TEXT_SIZE]. */
bool job_origin_of(const struct layer *layer, size_t index, char *commit);
void job_changes_done(struct job *job);
/* job_steps.c: a layer a step; then the gate. */
MUSTCHECK int job_steps(struct job *job, struct error *err);
MUSTCHECK int job_check(struct job *job, struct error *err);

#endif
