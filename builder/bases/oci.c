/*
 * The way of an image: its manifest and config are read once, in a child, and what they say is kept
 * beside the downloads; then what is missing in the store is fetched and unpacked. Once all layers
 * are there, nothing is asked of the network any more.
 */
#include "builder/bases/oci.h"

#include "base/fault.h"
#include "base/io.h"
#include "builder/base.h"
#include "builder/bases/oci_source.h"
#include "builder/bases/oci_unpack.h"
#include "builder/child.h"
#include "builder/machine.h"
#include "builder/report.h"
#include "configs/config.h"
#include "configs/environment.h"
#include "configs/secret.h"

#include <fcntl.h>
#include <stdio.h>
#include <unistd.h>

#define STALL_MS 60000
#define DEPTH_MAX 4 /* of indexes in indexes */
/* What `tar` of nothing has after gzip in Docker: many old images list it again and again. */
#define EMPTY_LAYER "a3ed95caeb02ffe68cdd9fd84406680ae93d633cb16422d00e8a7c22955b46d4"

struct work {
	struct machine *machine;
	const struct environment *environment;
	struct oci_reference reference;
	struct secret secret;
	int local_fd, folder_fd;
	char *kept; /* name of what is known of the image, in downloads/ */
	struct oci_image *image;
	bool wanted[OCI_LAYERS_MAX]; /* for the child that fetches */
};

static void work_done(struct work *work)
{
	oci_reference_done(&work->reference);
	secret_done(&work->secret);
	fd_done(&work->folder_fd);
	free(work->kept);
	free(work->image);
}

static int work_open(struct work *work, struct machine *machine,
	const struct environment *environment, int local_fd, struct error *err)
{
	const char *problem = "";

	*work = (struct work){.machine = machine,
		.environment = environment,
		.local_fd = local_fd,
		.folder_fd = -1,
		.image = xcalloc(1, sizeof(*work->image))};
	if (!oci_reference_parse(environment->base_location, &work->reference, &problem)) {
		return error_set(
			err, ERROR_INTERNAL, "base oci:%s %s", environment->base_location, problem);
	}
	if (environment->base_sha256 != NULL) {
		work->kept = xasprintf("%s.oci-%s", environment->base_sha256, oci_architecture());
	}
	work->folder_fd =
		io_open(store_fd(machine->store), "downloads", O_RDONLY | O_DIRECTORY, 0, err);
	return work->folder_fd < 0 ? work->folder_fd : 0;
}

/* Only when something is asked of the registry. */
static int read_secret(struct work *work, struct error *err)
{
	const char *name = work->environment->base_secret;

	return name == NULL || work->secret.text != NULL
		       ? 0
		       : secret_read(work->machine->config->secrets, name, &work->secret, err);
}

static struct oci_place place_of(const struct work *work)
{
	return (struct oci_place){.reference = &work->reference,
		.user = work->secret.text != NULL ? work->environment->base_user : NULL,
		.password = work->secret.text,
		.local_fd = work->local_fd,
		.folder_fd = work->folder_fd};
}

/* Runs with descriptors of the downloads and the layout only. */
static int run_child(struct work *work, const char *what,
	int (*run)(struct child *child, void *context, void *ret_result, struct error *err),
	size_t result_size, void *ret_result, struct error *err)
{
	int fds[2] = {work->folder_fd, work->local_fd}, status;
	struct child_spec spec = {.what = what,
		.run = run,
		.context = work,
		.result_size = result_size,
		.fds = fds,
		.fd_count = work->local_fd >= 0 ? 2 : 1,
		.stall_ms = STALL_MS};

	status = read_secret(work, err);
	return status < 0 ? status : child_run(work->machine, &spec, ret_result, err);
}

/* ---- what it is ---- */

static int read_blob(
	const struct work *work, const char *sha256, struct buffer *text, struct error *err)
{
	buffer_init(text, OCI_MANIFEST_BYTES_MAX);
	return io_read_file(work->folder_fd, sha256, text, err);
}

static int take_config(struct work *work, struct oci_source *source, struct error *err)
{
	CLEANUP(buffer_done) struct buffer text = {0};
	const struct oci_blob *config = &work->image->config;

	if (config->bytes > OCI_MANIFEST_BYTES_MAX) {
		return error_set(err, ERROR_LIMIT, "the image's config is over %d bytes",
			OCI_MANIFEST_BYTES_MAX);
	}
	if (oci_source_bring(source, config->sha256, false, config->bytes, err) < 0 ||
		read_blob(work, config->sha256, &text, err) < 0) {
		return -(int)err->kind;
	}
	return oci_config_parse(
		buffer_text(&text), text.length, oci_architecture(), work->image, err);
}

/* From an index to a manifest to its config. */
static int look_up(struct work *work, struct oci_source *source, struct error *err)
{
	struct oci_blob next = {0};

	memcpy(next.sha256, work->environment->base_sha256, sizeof(next.sha256));
	for (int depth = 0; depth < DEPTH_MAX; depth++) {
		CLEANUP(buffer_done) struct buffer text = {0};
		char sha256[SHA256_TEXT_SIZE];

		memcpy(sha256, next.sha256, sizeof(sha256));
		if (oci_source_bring(source, sha256, true, OCI_MANIFEST_BYTES_MAX, err) < 0 ||
			read_blob(work, sha256, &text, err) < 0 ||
			oci_manifest_parse(buffer_text(&text), text.length, oci_architecture(),
				work->image, &next, err) < 0) {
			return -(int)err->kind;
		}
		if (next.sha256[0] == '\0') {
			return take_config(work, source, err);
		}
	}
	return error_set(err, ERROR_LIMIT, "indexes within indexes, more than %d deep", DEPTH_MAX);
}

static int resolve_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	struct work *work = context;
	CLEANUP(oci_source_close_p) struct oci_source *source = NULL;
	struct oci_place place = place_of(work);
	int status = oci_source_open(child, &place, &source, err);

	if (status == 0) {
		status = look_up(work, source, err);
	}
	*(bool *)ret_result = true;
	return status < 0 ? status
			  : io_write_file(work->folder_fd, work->kept, work->image,
				    sizeof(*work->image), 0600, err);
}

static bool read_kept(struct work *work)
{
	CLEANUP(buffer_done) struct buffer bytes;
	struct error ignored = ERROR_INIT;

	buffer_init(&bytes, sizeof(*work->image));
	if (io_read_file(work->folder_fd, work->kept, &bytes, &ignored) < 0 ||
		bytes.length != sizeof(*work->image)) {
		return false;
	}
	memcpy(work->image, bytes.data, sizeof(*work->image));
	return oci_image_is_sound(work->image);
}

static int resolve(struct work *work, struct error *err)
{
	bool done = false;
	int status;

	if (read_kept(work)) {
		return 0;
	}
	status = run_child(
		work, "read the image's manifest", resolve_child, sizeof(done), &done, err);
	if (status == 0 && !read_kept(work)) {
		status = error_set(
			err, ERROR_INTERNAL, "what was read of the image does not hold together");
	}
	return status < 0 ? status
	       : fault_point("base.resolved") == 0
		       ? 0
		       : error_sys(err, EIO, "read the image's manifest");
}

/* ---- which of its layers there are ---- */

static bool is_empty(const struct oci_image *image, size_t index)
{
	return streq(image->layers[index].sha256, EMPTY_LAYER);
}

/* How many must be in one whatever they hold: those too many, and up to a blob that comes again
 * further up, as overlayfs takes no folder twice. */
static size_t merged_at_least(const struct oci_image *image)
{
	size_t count = 0, merged = 0;

	for (size_t i = image->layer_count; i-- > 0;) {
		count += !is_empty(image, i);
		if (count == OCI_BASE_LAYERS_MAX && merged == 0 && i > 0) {
			merged = i + 1;
		}
	}
	for (size_t i = 0; i < image->layer_count; i++) {
		for (size_t j = i + 1; j < image->layer_count && i + 1 > merged; j++) {
			if (streq(image->layers[i].sha256, image->layers[j].sha256) &&
				!is_empty(image, i)) {
				merged = i + 1;
			}
		}
	}
	return merged;
}

struct found {
	size_t merged; /* in one; 0: none */
	bool merged_missing;
	size_t missing[OCI_LAYERS_MAX], missing_count;
};

static int add_layer(struct oci_base *base, const struct layer *layer, struct error *err)
{
	if (base->layer_count == OCI_BASE_LAYERS_MAX) {
		return error_set(err, ERROR_INTERNAL, "too many layers in a base");
	}
	base->layers[base->layer_count++] = *layer;
	return 0;
}

/* One key; absent is no failure. */
static int look_for(struct store *store, const char *key, struct layer *ret_layer, bool *ret_found,
	struct error *err)
{
	int status = layer_find(store, key, ret_layer, err);

	*ret_found = status == 0;
	if (status == -ERROR_NOT_FOUND) {
		*err = ERROR_INIT;
		return 0;
	}
	return status;
}

/* The longest part in one that there is: it was made because it had to be. */
static int find_merged(struct work *work, size_t least, struct found *found, struct oci_base *base,
	struct error *err)
{
	const struct oci_image *image = work->image;
	char key[SHA256_TEXT_SIZE];
	struct layer layer;
	bool there = false;
	int status = 0;

	found->merged = least;
	for (size_t count = image->layer_count;
		status == 0 && !there && count > 0 && count >= least; count--) {
		oci_merged_key(image, count, key);
		status = look_for(work->machine->store, key, &layer, &there, err);
		if (there) {
			found->merged = count;
		}
	}
	if (status < 0) {
		return status;
	}
	found->merged_missing = found->merged > 0 && !there;
	return there ? add_layer(base, &layer, err) : 0;
}

static int find_layers(struct work *work, size_t least, struct found *found, struct oci_base *base,
	struct error *err)
{
	const struct oci_image *image = work->image;
	char key[SHA256_TEXT_SIZE];
	int status;

	*found = (struct found){0};
	base->layer_count = 0;
	status = find_merged(work, least, found, base, err);
	for (size_t i = found->merged; status == 0 && i < image->layer_count; i++) {
		struct layer layer;
		bool there;

		if (is_empty(image, i)) {
			continue;
		}
		oci_layer_key(&image->layers[i], key);
		status = look_for(work->machine->store, key, &layer, &there, err);
		if (status == 0 && !there) {
			found->missing[found->missing_count++] = i;
		} else if (status == 0) {
			status = add_layer(base, &layer, err);
		}
	}
	return status;
}

/* ---- fetching ---- */

static int fetch_child(struct child *child, void *context, void *ret_result, struct error *err)
{
	struct work *work = context;
	CLEANUP(oci_source_close_p) struct oci_source *source = NULL;
	struct oci_place place = place_of(work);
	int status = oci_source_open(child, &place, &source, err);

	for (size_t i = 0; status == 0 && i < work->image->layer_count; i++) {
		const struct oci_blob *blob = &work->image->layers[i];

		if (work->wanted[i]) {
			status = oci_source_bring(source, blob->sha256, false, blob->bytes, err);
		}
	}
	*(bool *)ret_result = true;
	return status;
}

static int fetch(struct work *work, const struct found *found, struct error *err)
{
	uint64_t most = (uint64_t)work->environment->limits.disk_bytes, sum = 0;
	bool done = false, any = false;

	memset(work->wanted, 0, sizeof(work->wanted));
	for (size_t i = 0; found->merged_missing && i < found->merged; i++) {
		work->wanted[i] = true;
	}
	for (size_t i = 0; i < found->missing_count; i++) {
		work->wanted[found->missing[i]] = true;
	}
	for (size_t i = 0; i < work->image->layer_count; i++) {
		const struct oci_blob *blob = &work->image->layers[i];

		if (!work->wanted[i]) {
			continue;
		}
		sum += blob->bytes;
		if (most > 0 && (blob->bytes > most || sum > most)) {
			error_set(err, ERROR_LIMIT, "the image's layers have more than %llu bytes",
				(unsigned long long)most);
			return error_hint(err, "raise `limits: {disk: …}` if that is right");
		}
		any |= faccessat(work->folder_fd, blob->sha256, F_OK, 0) < 0;
	}
	return any ? run_child(work, "fetch the image's layers", fetch_child, sizeof(done), &done,
			     err)
		   : 0;
}

/* ---- all of it ---- */

static int make_missing(struct work *work, const struct found *found, struct range *range,
	size_t *ret_needs_below, struct oci_base *base, struct error *err)
{
	struct oci_unpacking unpacking = {.machine = work->machine,
		.range = range,
		.folder_fd = work->folder_fd,
		.bytes_max = (uint64_t)work->environment->limits.disk_bytes};
	int status = fetch(work, found, err);

	if (status == 0 && fault_point("base.fetched") != 0) {
		status = error_sys(err, EIO, "fetch the image's layers");
	}
	if (status == 0 && found->merged_missing) {
		status = oci_unpack_merged(&unpacking, work->image, found->merged, err);
		base->made++;
	}
	if (status == 0) {
		status = oci_unpack(&unpacking, work->image, found->missing, found->missing_count,
			ret_needs_below, err);
		base->made += found->missing_count;
	}
	return status;
}

/* Each round either ends it or puts more of the image into one layer. */
static int make_layers(
	struct work *work, struct range *range, struct oci_base *base, struct error *err)
{
	size_t least = merged_at_least(work->image), needs_below = 0;
	struct found *found = xcalloc(1, sizeof(*found));
	int status;

	for (size_t round = 0;; round++) {
		status = find_layers(work, least, found, base, err);
		if (status < 0 || (!found->merged_missing && found->missing_count == 0)) {
			break;
		}
		if (round > work->image->layer_count) {
			status = error_set(err, ERROR_INTERNAL, "the image's layers do not settle");
			break;
		}
		status = make_missing(work, found, range, &needs_below, base, err);
		if (status < 0) {
			break;
		}
		if (needs_below > 0) {
			report_line(work->machine->report,
				"layer %zu does not stand by itself: put into one with all below",
				needs_below);
		}
		least = needs_below > least ? needs_below : least;
	}
	free(found);
	return status;
}

int oci_base_prepare(struct machine *machine, const struct environment *environment, int local_fd,
	struct range *range, struct oci_base *ret_base, struct error *err)
{
	struct work work;
	struct oci_base *base = xcalloc(1, sizeof(*base));
	int status = work_open(&work, machine, environment, local_fd, err);

	report_stage(machine->report, "base", "oci:%s@sha256:%.12s", environment->base_location,
		environment->base_sha256);
	if (status == 0) {
		status = resolve(&work, err);
	}
	if (status == 0) {
		status = make_layers(&work, range, base, err);
	}
	if (status == 0) {
		base->image = *work.image;
		*ret_base = *base;
		if (base->made > 0) {
			report_stage_end(machine->report, "%zu layers, %zu unpacked",
				base->layer_count, base->made);
		} else {
			report_stage_end(
				machine->report, "%zu layers, as before", base->layer_count);
		}
	} else {
		error_wrap(err, "base oci:%s", environment->base_location);
	}
	free(base);
	work_done(&work);
	return status;
}

int oci_base_look(struct machine *machine, const struct environment *environment,
	struct oci_base *ret_base, size_t *ret_missing, struct error *err)
{
	struct found *found = xcalloc(1, sizeof(*found));
	struct work work;
	int status = work_open(&work, machine, environment, -1, err);

	if (status == 0 && !read_kept(&work)) {
		status = error_set(err, ERROR_NOT_FOUND, "its manifest has not been read yet");
	}
	if (status == 0) {
		status = find_layers(&work, merged_at_least(work.image), found, ret_base, err);
	}
	if (status == 0) {
		ret_base->image = *work.image;
		*ret_missing = found->missing_count + (found->merged_missing ? found->merged : 0);
	}
	free(found);
	work_done(&work);
	return status;
}

/* ---- what the environment leaves open ---- */

static bool has_variable(char *const *env, const char *entry)
{
	size_t length = strcspn(entry, "=") + 1;

	for (; *env != NULL; env++) {
		if (strncmp(*env, entry, length) == 0) {
			return true;
		}
	}
	return false;
}

static int compare_texts(const void *a, const void *b)
{
	return strcmp(*(char *const *)a, *(char *const *)b);
}

/* "name:group" has no use for the group's name: hob takes the user's groups. */
static char *image_user(const char *user)
{
	size_t length = strcspn(user, ":");

	if (length == 0) {
		return xstrdup("root");
	}
	return strspn(user, "0123456789:") == strlen(user) ? xstrdup(user) : xstrndup(user, length);
}

void oci_defaults(
	const struct oci_image *image, const struct environment *from, struct environment *ret_own)
{
	char **env = strv_copy(from->env);

	for (uint32_t at = 0; at < image->env_bytes; at += (uint32_t)strlen(image->env + at) + 1) {
		if (!has_variable(env, image->env + at)) {
			strv_add(&env, image->env + at);
		}
	}
	qsort(env, strv_count(env), sizeof(*env), compare_texts);
	*ret_own = *from;
	ret_own->env = env;
	ret_own->user = from->user != NULL ? xstrdup(from->user) : image_user(image->user);
	ret_own->workdir = xstrdup(from->workdir != NULL       ? from->workdir
				   : image->workdir[0] != '\0' ? image->workdir
							       : "/");
}

void oci_defaults_done(struct environment *own)
{
	strv_free(own->env);
	free(own->user);
	free(own->workdir);
	*own = (struct environment){0};
}
