/* Builds with their logs, and images. What is shown is read from the catalog at that moment. */
#include "base/loop.h"
#include "base/memory.h"
#include "pool/api/handlers.h"
#include "pool/api/http_private.h"
#include "pool/api/http_stream.h"
#include "pool/api/object_json.h"
#include "pool/builds.h"
#include "pool/manager.h"

#include <inttypes.h>

#define BUILDS_SHOWN 50
#define BUILDS_SHOWN_MAX 1000

/* ---- builds ---- */

void handle_build_list(struct http_request *request)
{
	const char *environment = http_query(request, "environment");
	struct build *builds = NULL;
	struct error err = ERROR_INIT;
	size_t count = 0;
	int64_t limit;
	json_t *list;

	if (http_query_int(request, "limit", 1, BUILDS_SHOWN_MAX, BUILDS_SHOWN, &limit, &err) < 0 ||
		build_list(request->manager->store, environment, (size_t)limit, &builds, &count,
			&err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	list = json_array();
	for (size_t i = 0; i < count; i++) {
		json_array_append_new(list, build_to_json(&builds[i]));
		build_done(&builds[i]);
	}
	free(builds);
	http_reply_json(request, MHD_HTTP_OK, json_pack("{s:o}", "builds", list));
}

void handle_build_get(struct http_request *request)
{
	struct build build = {0};
	struct error err = ERROR_INIT;

	if (build_get(request->manager->store, request->match.args[0], &build, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	http_reply_json(request, MHD_HTTP_OK, build_to_json(&build));
	build_done(&build);
}

void handle_build_cancel(struct http_request *request)
{
	const char *id = request->match.args[0];
	struct error err = ERROR_INIT;

	if (build_cancel(request->manager, id, &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	http_reply_json(request, MHD_HTTP_ACCEPTED,
		json_pack("{s:s, s:s}", "id", id, "state", "cancelling"));
}

/* ---- a build's log ---- */

/* A log that is followed is looked at this often; only then. */
#define LOG_POLL_MS 200
#define LOG_CHUNK 65536

struct log_reader {
	struct http_request *request;
	struct http_stream *stream;
	struct loop_timer *timer;
	int fd;
	bool follow;
	char build[ROUTE_ARG_SIZE];
};

static void reader_free(void *work)
{
	struct log_reader *reader = work;

	loop_timer_free(reader->timer);
	fd_done(&reader->fd);
	free(reader);
}

static bool build_is_over(const struct log_reader *reader)
{
	struct build build = {0};
	struct error err = ERROR_INIT;
	bool over = build_get(reader->request->manager->store, reader->build, &build, &err) < 0 ||
		    build.state != BUILD_RUNNING;

	build_done(&build);
	return over;
}

/* Gives on what there is, one chunk at a time; more when the client has read that. */
static void read_on(void *context)
{
	static char chunk[LOG_CHUNK];
	struct log_reader *reader = context;
	/* Asked before reading: what is written before the end is read after it. */
	bool over;
	ssize_t got;

	if (http_stream_pending(reader->stream) > 0) {
		return;
	}
	over = !reader->follow || build_is_over(reader);
	got = read(reader->fd, chunk, sizeof(chunk));
	if (got > 0) {
		http_stream_write(reader->stream, chunk, (size_t)got);
		loop_timer_at(reader->timer, 0);
	} else if (over || got < 0) {
		http_stream_end(reader->stream, got == 0);
		reader_free(reader);
	} else {
		loop_timer_after(reader->timer, LOG_POLL_MS);
	}
}

static void on_log_drained(void *context, size_t bytes)
{
	struct log_reader *reader = context;

	(void)bytes;
	if (http_stream_pending(reader->stream) == 0) {
		loop_timer_at(reader->timer, 0);
	}
}

void handle_build_log(struct http_request *request)
{
	const char *follow = http_query(request, "follow");
	struct build build = {0};
	struct error err = ERROR_INIT;
	struct log_reader *reader;
	int fd;

	if (build_get(request->manager->store, request->match.args[0], &build, &err) < 0 ||
		build_log_open(request->manager->store, build.id, &fd, &err) < 0) {
		build_done(&build);
		http_reply_error(request, &err);
		return;
	}
	build_done(&build);
	reader = xcalloc(1, sizeof(*reader));
	reader->request = request;
	reader->fd = fd;
	reader->follow = follow != NULL && !streq(follow, "0");
	memcpy(reader->build, request->match.args[0], sizeof(reader->build));
	reader->timer = loop_timer_new(request->server->loop, read_on, reader);
	http_request_work(request, reader, reader_free);
	reader->stream =
		http_stream_open(request, &(struct http_stream_spec){.status = MHD_HTTP_OK,
						  .content_type = "text/plain; charset=utf-8",
						  .size = MHD_SIZE_UNKNOWN,
						  .drained = on_log_drained,
						  .context = reader});
	loop_timer_at(reader->timer, 0);
}

/* ---- images ---- */

/* NULL: answered. */
static json_t *list_images(struct http_request *request, struct image *images, size_t count)
{
	json_t *list = json_array();
	struct error err = ERROR_INIT;

	for (size_t i = 0; i < count; i++) {
		json_t *json = image_to_json(request->manager->store, &images[i], &err);

		if (json == NULL) {
			json_decref(list);
			http_reply_error(request, &err);
			return NULL;
		}
		json_array_append_new(list, json);
	}
	return list;
}

void handle_image_list(struct http_request *request)
{
	struct image *images = NULL;
	struct error err = ERROR_INIT;
	size_t count = 0;
	json_t *list;

	if (image_list(request->manager->store, http_query(request, "environment"), &images, &count,
		    &err) < 0) {
		http_reply_error(request, &err);
		return;
	}
	list = list_images(request, images, count);
	for (size_t i = 0; i < count; i++) {
		image_done(&images[i]);
	}
	free(images);
	if (list != NULL) {
		http_reply_json(request, MHD_HTTP_OK, json_pack("{s:o}", "images", list));
	}
}

void handle_image_get(struct http_request *request)
{
	struct image image = {0};
	struct error err = ERROR_INIT;
	json_t *json = NULL;

	if (image_find(request->manager->store, request->match.args[0], &image, &err) == 0) {
		json = image_to_json(request->manager->store, &image, &err);
	}
	image_done(&image);
	if (json == NULL) {
		http_reply_error(request, &err);
	} else {
		http_reply_json(request, MHD_HTTP_OK, json);
	}
}

static json_t *list_of(const json_t *manifest, const char *member)
{
	json_t *list = json_object_get(manifest, member);

	return json_is_array(list) ? json_incref(list) : json_array();
}

/* What is installed below its sources. */
void handle_image_packages(struct http_request *request)
{
	CLEANUP(json_decref_p) json_t *manifest = NULL;
	struct image image = {0};
	struct error err = ERROR_INIT;

	if (image_find(request->manager->store, request->match.args[0], &image, &err) < 0 ||
		json_parse_object(image.manifest, strlen(image.manifest), &manifest, &err) < 0) {
		http_reply_error(request, &err);
	} else {
		http_reply_json(request, MHD_HTTP_OK,
			json_pack("{s:o, s:o, s:o}", "id", json_sprintf("img-%" PRId64, image.id),
				"packages", list_of(manifest, "packages"), "files",
				list_of(manifest, "files")));
	}
	image_done(&image);
}

void handle_image_delete(struct http_request *request)
{
	struct image image = {0};
	struct error err = ERROR_INIT;
	uint64_t freed = 0;
	char name[32];

	if (image_find(request->manager->store, request->match.args[0], &image, &err) < 0 ||
		image_remove(request->manager->store, image.id, &freed, &err) < 0) {
		image_done(&image);
		http_reply_error(request, &err);
		return;
	}
	snprintf(name, sizeof(name), "img-%" PRId64, image.id);
	image_done(&image);
	http_reply_json(request, MHD_HTTP_OK,
		json_pack("{s:s, s:I}", "id", name, "freed_bytes", (json_int_t)freed));
}
