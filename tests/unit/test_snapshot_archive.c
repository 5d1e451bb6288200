/* Export and import: everything about a tree survives, the same snapshot gives the same bytes, and
 * what is damaged or would leave its place is refused. Needs root for owners and whiteouts. */
#include "snapshots/archive/archive.h"

#include "tests/lib/store_kit.h"
#include "tests/lib/test.h"
#include "tests/lib/tree_kit.h"

#include "base/buffer.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>

#define BASE 300000
#define OTHER 500000

/* Two layers with all there is: modes, owners, times, attributes, an access list, a default one, a
 * capability, hard links, holes, links, a pipe, names that are no UTF-8, whiteouts, opaque. */
static const char lower[] =
	"mkdir -p a/b gone opaque; echo one > a/one; ln a/one a/b/other; ln -s ../one a/b/link;"
	"ln -s /nowhere/$(head -c 200 /dev/zero | tr '\\0' x) dangling; mkfifo -m 640 pipe;"
	"echo x > $(printf 'bad\\377name\\001'); echo y > 'new\nline'; : > empty;"
	"printf 's' | dd of=sparse bs=1 seek=5000000 2>/dev/null; truncate -s 9000000 sparse;"
	"truncate -s 300000 hole; chmod 4755 a/one; chmod 1777 a; chmod 0 empty; echo z > gone/z;"
	"setx a/one user.note 'hello there'; setx a user.a=b 1; mkdir acl; echo q > acl/q;"
	"/usr/bin/python3 -c \"import os,struct;"
	"e=lambda t,p,i:struct.pack('<HHI',t,p,i);"
	"v=struct.pack('<I',2)+e(1,6,0xffffffff)+e(2,6,300007)+e(4,4,0xffffffff)+e(16,6,0xffffffff)"
	"+e(32,4,0xffffffff);"
	"os.setxattr('acl/q','system.posix_acl_access',v);"
	"os.setxattr('acl','system.posix_acl_default',v)\";"
	"chown -hR 300000:300000 .; chown -h 300001:300002 a/b/link; chown 365534 empty; chmod 0 "
	"empty;"
	"/usr/bin/python3 -c \"import os,struct;"
	"os.setxattr('hole','security.capability',struct.pack('<IIIIII',0x3000001,0x400,0,0,0,"
	"300000))\";"
	"chmod 4755 a/one; touch -h -d '2001-02-03 04:05:06.123456789' a/b/link a/one sparse;"
	"touch -d '1969-12-31 23:59:58.5' a/b; touch -d 2040-01-01 pipe;"
	"touch -d '2011-11-11 11:11:11.111111111' .";
static const char upper[] =
	"mknod gone c 0 0; mkdir -p a opaque; mknod a/one c 0 0; ln a/one a/b; echo n > opaque/n;"
	"setx opaque trusted.overlay.opaque y; chown -hR 300000:300000 .;"
	"touch -d '2002-02-02 02:02:02.000000002' opaque";

static int64_t make(struct store *store)
{
	struct layer layers[2] = {tree_kit_layer(store, BASE, lower)};
	struct snapshot snapshot = {.environment = "webapp",
		.reason = SNAPSHOT_SESSION,
		.label = "whole",
		.metadata = (char *)(uintptr_t) "{\"by\":\"me\"}",
		.manifest = (char *)(uintptr_t) "{\"user\":\"root\"}",
		.layers = layers,
		.layer_count = 2,
		.own_count = 1};
	struct error err = ERROR_INIT;

	layers[1] = tree_kit_layer(store, BASE, upper);
	assert_ok(snapshot_commit(store, &snapshot, &err), &err);
	return snapshot.id;
}

static int export_to_memory(struct store *store, const char *name, bool with_parents)
{
	CLEANUP(snapshot_done) struct snapshot snapshot = {0};
	int fd = memfd_create("archive", MFD_CLOEXEC);
	struct error err = ERROR_INIT;
	uint64_t left_out;

	assert_ok(snapshot_find(store, name, &snapshot, &err), &err);
	assert_ok(snapshot_export(store, &snapshot, with_parents, fd, &left_out, &err), &err);
	assert_true(lseek(fd, 0, SEEK_SET) == 0);
	return fd;
}

static int import(struct store *store, int fd, int64_t id_base, struct snapshot *ret_snapshot,
	struct error *err)
{
	CLEANUP(import_source_close) struct import_source source = IMPORT_SOURCE_INIT;

	assert_ok(import_source_open(fd, &source, err), err);
	return snapshot_import(store, &source, id_base, ret_snapshot, err);
}

static struct store *open_other(struct store *store)
{
	CLEANUP(free_p) char *path = xasprintf("%s/../other", store_path(store));
	struct store *other = NULL;
	struct error err = ERROR_INIT;

	assert_ok(store_open(path, STORE_CREATE, &other, &err), &err);
	return other;
}

static void describe_layer(struct store *store, int64_t id, int64_t id_base, struct buffer *text)
{
	CLEANUP(free_p) char *path = xasprintf("layers/%lld/tree", (long long)id);

	tree_kit_describe(store_fd(store), path, id_base, text);
}

static void test_everything_survives(void **state)
{
	CLEANUP(store_close_p) struct store *other = open_other(*state);
	CLEANUP(snapshot_done) struct snapshot found = {0};
	CLEANUP(close_p) int archive = -1;
	struct error err = ERROR_INIT;

	make(*state);
	archive = export_to_memory(*state, "snap-1", true);
	assert_ok(import(other, archive, OTHER, &found, &err), &err);
	assert_string_equal(found.label, "whole");
	assert_string_equal(found.metadata, "{\"by\":\"me\"}");
	assert_int_equal(found.own_count, 1);
	assert_int_equal(found.layers[0].id_base, OTHER);
	for (int64_t id = 1; id <= 2; id++) {
		CLEANUP(buffer_done) struct buffer before = {0};
		CLEANUP(buffer_done) struct buffer after = {0};

		describe_layer(*state, id, BASE, &before);
		describe_layer(other, id, OTHER, &after);
		if (id == 2) {
			assert_string_equal(buffer_text(&after), buffer_text(&before));
			continue;
		}
		/* Ids in an access list and a capability are those of the range. */
		assert_contains(buffer_text(&before), "e7930400");
		assert_contains(buffer_text(&after), "27a10700");
		for (char *at = before.data; (at = strstr(at, "e7930400")) != NULL;) {
			memcpy(at, "27a10700", 8);
		}
		for (char *at = before.data; (at = strstr(at, "e0930400")) != NULL;) {
			memcpy(at, "20a10700", 8);
		}
		assert_string_equal(buffer_text(&after), buffer_text(&before));
	}
}

static void assert_same_bytes(int a, int b)
{
	struct stat x, y;
	char left[65536], right[65536];
	ssize_t got;

	assert_true(fstat(a, &x) == 0 && fstat(b, &y) == 0);
	assert_int_equal(x.st_size, y.st_size);
	for (off_t at = 0; (got = pread(a, left, sizeof(left), at)) > 0; at += got) {
		assert_int_equal(pread(b, right, (size_t)got, at), got);
		assert_memory_equal(left, right, (size_t)got);
	}
}

static void test_the_same_bytes_each_time_and_from_each_store(void **state)
{
	CLEANUP(store_close_p) struct store *other = open_other(*state);
	CLEANUP(snapshot_done) struct snapshot found = {0};
	CLEANUP(close_p) int one = -1;
	CLEANUP(close_p) int two = -1;
	struct error err = ERROR_INIT;

	make(*state);
	one = export_to_memory(*state, "snap-1", true);
	two = export_to_memory(*state, "snap-1", true);
	assert_same_bytes(one, two);
	assert_ok(import(other, one, OTHER, &found, &err), &err);
	/* The second machine's clock is not in it. */
	assert_int_equal(found.layer_count, 2);
}

static void test_only_its_own_and_what_is_there(void **state)
{
	CLEANUP(store_close_p) struct store *other = open_other(*state);
	CLEANUP(snapshot_done) struct snapshot first = {0};
	CLEANUP(snapshot_done) struct snapshot second = {0};
	CLEANUP(close_p) int whole = -1;
	CLEANUP(close_p) int own = -1;
	struct error err = ERROR_INIT;

	make(*state);
	own = export_to_memory(*state, "snap-1", false);
	whole = export_to_memory(*state, "snap-1", true);
	assert_kind(import(other, own, OTHER, &first, &err), &err, ERROR_NOT_FOUND);
	assert_int_equal(store_kit_count(other, "layers"), 0);
	assert_int_equal(store_kit_count(other, "staging"), 0);
	lseek(own, 0, SEEK_SET);
	assert_ok(import(other, whole, OTHER, &first, &err), &err);
	assert_ok(import(other, own, OTHER, &second, &err), &err);
	assert_int_equal(second.layers[0].id, first.layers[0].id);
	assert_int_equal(second.layers[1].id, first.layers[1].id);
	assert_int_equal(store_kit_count(other, "layers"), 2);
}

static void test_damage_is_found(void **state)
{
	CLEANUP(store_close_p) struct store *other = open_other(*state);
	CLEANUP(close_p) int archive = -1;
	struct snapshot found;
	struct error err = ERROR_INIT;
	struct stat status;

	make(*state);
	archive = export_to_memory(*state, "snap-1", true);
	assert_int_equal(fstat(archive, &status), 0);
	for (off_t cut = 0; cut < status.st_size; cut += status.st_size / 9) {
		CLEANUP(close_p) int part = memfd_create("part", MFD_CLOEXEC);
		CLEANUP(free_p) char *bytes = xmalloc((size_t)cut + 1);

		assert_int_equal(pread(archive, bytes, (size_t)cut, 0), cut);
		assert_int_equal(write(part, bytes, (size_t)cut), cut);
		lseek(part, 0, SEEK_SET);
		assert_true(import(other, part, OTHER, &found, &err) < 0);
		assert_int_equal(store_kit_count(other, "layers"), 0);
		assert_int_equal(store_kit_count(other, "staging"), 0);
	}
}

/* Archives by Python's tarfile, which writes whatever it is told. */
static int hostile(const char *entries)
{
	CLEANUP(free_p)
	char *script = xasprintf(
		"/usr/bin/python3 - > evil.tar <<'EOF'\n"
		"import tarfile,io,sys,json\n"
		"t=tarfile.open(fileobj=sys.stdout.buffer,mode='w|',format=tarfile.PAX_FORMAT)\n"
		"def add(name,type=tarfile.REGTYPE,link='',data=b'',**kw):\n"
		"  i=tarfile.TarInfo(name); i.type=type; i.linkname=link; i.size=len(data)\n"
		"  for k,v in kw.items(): setattr(i,k,v)\n"
		"  t.addfile(i,io.BytesIO(data))\n"
		"h={'format':1,'environment':'x','reason':'manual','label':'','commit':'',"
		"'metadata':{},'manifest':{},'layers':[{'digest':'0'*64,'kind':'k','title':'t',"
		"'host_usr':False,'files':1,'bytes':1,'own':True,'included':True}]}\n"
		"add('hob-snapshot.json',data=json.dumps(h).encode())\n"
		"add('layers/0/',tarfile.DIRTYPE)\n%s\nt.close()\nEOF\n",
		entries);
	int dir, fd;
	char folder[] = "/tmp/hob-unit-XXXXXX";
	struct error err = ERROR_INIT;

	assert_non_null(mkdtemp(folder));
	dir = open(folder, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	tree_kit_shell(dir, script);
	fd = openat(dir, "evil.tar", O_RDONLY | O_CLOEXEC);
	assert_true(fd >= 0);
	close(dir);
	assert_ok(io_remove_tree(AT_FDCWD, folder, &err), &err);
	return fd;
}

static void test_hostile_entries_are_refused(void **state)
{
	static const char *const evil[] = {"add('layers/0/../../x',data=b'x')",
		"add('/etc/x',data=b'x')", "add('layers/0//x',data=b'x')", "add('layers/1/x')",
		"add('layers/99/x')", "add('x')", "add('layers/0/./x')",
		"add('layers/0/l',tarfile.SYMTYPE,'/tmp'); add('layers/0/l/x',data=b'x')",
		"add('layers/0/h',tarfile.LNKTYPE,'layers/0/../../../catalog.db')",
		"add('layers/0/h',tarfile.LNKTYPE,'/etc/passwd')",
		"add('layers/0/h',tarfile.LNKTYPE,'layers/0/absent')",
		"add('layers/0/d',tarfile.CHRTYPE,devmajor=1,devminor=3)",
		"add('layers/0/d',tarfile.BLKTYPE,devmajor=8,devminor=0)",
		"add('layers/0/u',uid=70000)", "add('layers/0/x'); add('layers/0/x')",
		"add('layers/0/d',tarfile.DIRTYPE); add('layers/0/d',tarfile.SYMTYPE,'/tmp')",
		"add('layers/0/x',pax_headers={'SCHILY.xattr.security.ima':'x'})",
		"add('layers/0/x',pax_headers={'SCHILY.xattr.trusted.overlay.redirect':'/etc'})",
		"add('layers/0/x',data=b'right, but not what the digest says')"};

	for (size_t i = 0; i < ARRAY_SIZE(evil); i++) {
		CLEANUP(close_p) int archive = hostile(evil[i]);
		struct snapshot found;
		struct error err = ERROR_INIT;
		int status = import(*state, archive, OTHER, &found, &err);

		if (status == 0) {
			print_error("accepted: %s\n", evil[i]);
		}
		assert_true(status < 0);
		assert_int_equal(store_kit_count(*state, "layers"), 0);
		assert_int_equal(store_kit_count(*state, "staging"), 0);
	}
}

#define IN_STORE(test) cmocka_unit_test_setup_teardown(test, setup_store, teardown_store)

int main(void)
{
	const struct CMUnitTest tests[] = {
		IN_STORE(test_everything_survives),
		IN_STORE(test_the_same_bytes_each_time_and_from_each_store),
		IN_STORE(test_only_its_own_and_what_is_there),
		IN_STORE(test_damage_is_found),
		IN_STORE(test_hostile_entries_are_refused),
	};

	if (geteuid() != 0) {
		puts("needs root: skipped");
		return 0;
	}
	return cmocka_run_group_tests(tests, NULL, NULL);
}
