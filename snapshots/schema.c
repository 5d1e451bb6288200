/*
 * The catalog's tables. A version is one text in the table below, never changed once released: a
 * later hob appends a text that alters what is there. user_version says how many have been applied.
 *
 * Ids are AUTOINCREMENT: a number is never given out twice, so a folder in layers/ with a number
 * that this catalog never gave out proves that the catalog is not the one those layers belong to.
 */
#include "snapshots/catalog.h"

#include "base/memory.h"

#include <stdio.h>
#include <sys/file.h>

/* "hobs", so that another program's database is not taken for a catalog. */
#define CATALOG_APPLICATION_ID 0x686f6273

static const char *const versions[] = {
	/* 1 */
	"CREATE TABLE layers ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT,"
	"  state TEXT NOT NULL CHECK (state IN ('sealing', 'ready')),"
	"  staging TEXT NOT NULL," /* the folder it was written in, for the recovery of 'sealing' */
	"  kind TEXT NOT NULL,"
	"  title TEXT NOT NULL,"
	"  step_key TEXT NOT NULL,"
	"  id_base INTEGER NOT NULL,"
	"  id_count INTEGER NOT NULL,"
	"  host_usr INTEGER NOT NULL,"
	"  files INTEGER NOT NULL,"
	"  bytes INTEGER NOT NULL,"
	"  stored INTEGER NOT NULL,"
	"  created_ms INTEGER NOT NULL);"
	"CREATE INDEX layers_by_key ON layers (step_key) WHERE step_key <> '';"
	"CREATE INDEX layers_by_state ON layers (state) WHERE state = 'sealing';"
	"CREATE TABLE images ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT,"
	"  environment TEXT NOT NULL,"
	"  commit_id TEXT NOT NULL,"
	"  fingerprint TEXT NOT NULL,"
	"  manifest TEXT NOT NULL,"
	"  created_ms INTEGER NOT NULL);"
	"CREATE INDEX images_by_environment ON images (environment, id);"
	"CREATE TABLE image_layers ("
	"  image_id INTEGER NOT NULL REFERENCES images (id) ON DELETE CASCADE,"
	"  position INTEGER NOT NULL,"
	"  layer_id INTEGER NOT NULL REFERENCES layers (id),"
	"  PRIMARY KEY (image_id, position)) WITHOUT ROWID;"
	"CREATE UNIQUE INDEX image_layers_by_layer ON image_layers (layer_id, image_id);"
	"CREATE TABLE heads ("
	"  environment TEXT PRIMARY KEY,"
	"  image_id INTEGER NOT NULL REFERENCES images (id)) WITHOUT ROWID;"
	"CREATE INDEX heads_by_image ON heads (image_id);"
	"CREATE TABLE leases ("
	"  image_id INTEGER NOT NULL REFERENCES images (id),"
	"  holder TEXT NOT NULL,"
	"  taken_ms INTEGER NOT NULL,"
	"  PRIMARY KEY (image_id, holder)) WITHOUT ROWID;"
	"CREATE TABLE builds ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT,"
	"  environment TEXT NOT NULL,"
	"  state TEXT NOT NULL,"
	"  commit_id TEXT NOT NULL,"
	"  image_id INTEGER NOT NULL," /* 0: none; may name an image that was removed since */
	"  started_ms INTEGER NOT NULL,"
	"  ended_ms INTEGER NOT NULL,"
	"  pid INTEGER NOT NULL,"
	"  message TEXT);"
	"CREATE INDEX builds_by_environment ON builds (environment, id);"
	"CREATE INDEX builds_running ON builds (state) WHERE state = 'running';",
	/* 2: snapshots. layers.refs counts the lists that a layer is in, kept by triggers, so that
	 * what is exclusive and what is unreachable is found without reading every list. It is a
	 * count for speed only: the references themselves forbid deleting a layer that is listed.
	 */
	"ALTER TABLE layers ADD COLUMN refs INTEGER NOT NULL DEFAULT 0;"
	/* sha256 of its content, across machines; known once it was exported or imported */
	"ALTER TABLE layers ADD COLUMN digest TEXT NOT NULL DEFAULT '';"
	/* it has files that are hard links to another layer's */
	"ALTER TABLE layers ADD COLUMN linked INTEGER NOT NULL DEFAULT 0;"
	"ALTER TABLE layers ADD COLUMN verified_ms INTEGER NOT NULL DEFAULT 0;"
	"UPDATE layers SET refs ="
	"  (SELECT count(*) FROM image_layers WHERE layer_id = layers.id);"
	"CREATE INDEX layers_unlisted ON layers (id) WHERE refs = 0;"
	"CREATE INDEX layers_by_digest ON layers (digest) WHERE digest <> '';"
	"CREATE TABLE snapshots ("
	"  id INTEGER PRIMARY KEY AUTOINCREMENT,"
	"  environment TEXT NOT NULL,"
	"  image_id INTEGER REFERENCES images (id)," /* NULL: imported without one */
	"  parent_id INTEGER REFERENCES snapshots (id)," /* NULL: the image */
	"  reason TEXT NOT NULL CHECK (reason IN ('base', 'session', 'exit', 'manual')),"
	"  label TEXT NOT NULL,"
	"  sandbox TEXT NOT NULL,"
	"  commit_id TEXT NOT NULL,"
	"  pinned INTEGER NOT NULL DEFAULT 0,"
	"  generation INTEGER NOT NULL DEFAULT 1,"
	"  layer_count INTEGER NOT NULL,"
	"  own_count INTEGER NOT NULL,"
	"  bytes INTEGER NOT NULL,"
	"  stored INTEGER NOT NULL,"
	"  created_ms INTEGER NOT NULL,"
	"  metadata TEXT NOT NULL,"
	"  manifest TEXT NOT NULL);"
	"CREATE INDEX snapshots_by_environment ON snapshots (environment, id);"
	"CREATE INDEX snapshots_by_image ON snapshots (image_id);"
	"CREATE INDEX snapshots_by_parent ON snapshots (parent_id);"
	/* a list of an earlier generation stays while a lease from before its flattening does */
	"CREATE TABLE snapshot_layers ("
	"  snapshot_id INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE,"
	"  generation INTEGER NOT NULL,"
	"  position INTEGER NOT NULL,"
	"  layer_id INTEGER NOT NULL REFERENCES layers (id),"
	"  PRIMARY KEY (snapshot_id, generation, position)) WITHOUT ROWID;"
	"CREATE INDEX snapshot_layers_by_layer ON snapshot_layers (layer_id);"
	"CREATE TABLE snapshot_tags ("
	"  name TEXT PRIMARY KEY,"
	"  snapshot_id INTEGER NOT NULL REFERENCES snapshots (id) ON DELETE CASCADE)"
	"  WITHOUT ROWID;"
	"CREATE INDEX snapshot_tags_by_snapshot ON snapshot_tags (snapshot_id);"
	"CREATE TABLE snapshot_leases ("
	"  snapshot_id INTEGER NOT NULL REFERENCES snapshots (id),"
	"  holder TEXT NOT NULL,"
	"  generation INTEGER NOT NULL," /* the oldest that the holder may stand on */
	"  taken_ms INTEGER NOT NULL,"
	"  PRIMARY KEY (snapshot_id, holder)) WITHOUT ROWID;"
	/* the one snapshot of a sandbox that is being taken */
	"CREATE TABLE snapshot_runs ("
	"  sandbox TEXT PRIMARY KEY,"
	"  staging TEXT NOT NULL,"
	"  started_ms INTEGER NOT NULL) WITHOUT ROWID;"
	/* where long work goes on after an interruption */
	"CREATE TABLE marks (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID;"
	"CREATE TRIGGER image_layers_added AFTER INSERT ON image_layers BEGIN"
	"  UPDATE layers SET refs = refs + 1 WHERE id = NEW.layer_id; END;"
	"CREATE TRIGGER image_layers_removed AFTER DELETE ON image_layers BEGIN"
	"  UPDATE layers SET refs = refs - 1 WHERE id = OLD.layer_id; END;"
	"CREATE TRIGGER snapshot_layers_added AFTER INSERT ON snapshot_layers BEGIN"
	"  UPDATE layers SET refs = refs + 1 WHERE id = NEW.layer_id; END;"
	"CREATE TRIGGER snapshot_layers_removed AFTER DELETE ON snapshot_layers BEGIN"
	"  UPDATE layers SET refs = refs - 1 WHERE id = OLD.layer_id; END;",
	/* 3: builds that are not tried again in vain, heads that went back, sharing, reuse.
	 */
	/* of everything that shapes the image that a build failed to make; '' until it is known */
	("ALTER TABLE builds ADD COLUMN fingerprint TEXT NOT NULL DEFAULT '';"
	 /* of the image that the head was taken back from; '': none */
	 "ALTER TABLE heads ADD COLUMN refused TEXT NOT NULL DEFAULT '';"
	 /* A layer is compared once with the one before it; pair_bytes is what the two
	  * have in common on disk, shared the most that it has with any other. Triggers keep the
	  * latter, and make a layer whose pair has gone one to be compared again. */
	 "ALTER TABLE layers ADD COLUMN compared_with INTEGER NOT NULL DEFAULT 0;"
	 "ALTER TABLE layers ADD COLUMN pair_bytes INTEGER NOT NULL DEFAULT 0;"
	 "ALTER TABLE layers ADD COLUMN shared INTEGER NOT NULL DEFAULT 0;"
	 "CREATE INDEX layers_by_pair ON layers (compared_with) WHERE compared_with > 0;"
	 "CREATE INDEX layers_uncompared ON layers (id) WHERE compared_with = 0;"
	 "CREATE TRIGGER layers_pair_changed AFTER UPDATE OF compared_with, pair_bytes ON layers "
	 "BEGIN"
	 "  UPDATE layers SET shared = min(stored, max(pair_bytes, coalesce("
	 "   (SELECT max(n.pair_bytes) FROM layers AS n WHERE n.compared_with = layers.id"
	 "    AND n.compared_with > 0), 0)))"
	 "  WHERE id IN (NEW.id, NEW.compared_with, OLD.compared_with); END;"
	 "CREATE TRIGGER layers_pair_removed AFTER DELETE ON layers WHEN OLD.linked BEGIN"
	 "  UPDATE layers SET compared_with = 0, pair_bytes = 0"
	 "   WHERE compared_with = OLD.id AND compared_with > 0;"
	 "  UPDATE layers SET pair_bytes = pair_bytes WHERE id = OLD.compared_with; END;"
	 /* what the background could not flatten, and when it is tried again */
	 "CREATE TABLE flatten_failures ("
	 "  snapshot_id INTEGER PRIMARY KEY REFERENCES snapshots (id) ON DELETE CASCADE,"
	 "  attempts INTEGER NOT NULL,"
	 "  failed_ms INTEGER NOT NULL,"
	 "  retry_ms INTEGER NOT NULL,"
	 "  message TEXT NOT NULL);"
	 /* Reuse of steps: line_key finds the newest result of a step whatever its inputs were,
	  * origin says which commits it was made over, over_id the result it starts from, which
	  * belongs below it in every list. */
	 "ALTER TABLE layers ADD COLUMN line_key TEXT NOT NULL DEFAULT '';"
	 "ALTER TABLE layers ADD COLUMN origin TEXT NOT NULL DEFAULT '';"
	 "ALTER TABLE layers ADD COLUMN over_id INTEGER NOT NULL DEFAULT 0;"
	 "CREATE INDEX layers_by_line ON layers (line_key) WHERE line_key <> '';"),
};

#define SCHEMA_VERSION ((int64_t)ARRAY_SIZE(versions))

static int read_number(sqlite3 *db, const char *sql, int64_t *ret_number, struct error *err)
{
	CLEANUP(query_done) struct query query = {0};
	int row;

	query_init(&query, db, sql);
	row = query_row(&query, err);
	if (row < 0) {
		return row;
	}
	*ret_number = row > 0 ? query_int(&query, 0) : 0;
	return 0;
}

/* How many versions have been applied; refuses what is not a catalog of ours. */
static int read_version(sqlite3 *db, int64_t *ret_version, struct error *err)
{
	int64_t version = 0, application = 0, tables = 0;
	int status = read_number(db, "PRAGMA user_version", &version, err);

	if (status == 0) {
		status = read_number(db, "PRAGMA application_id", &application, err);
	}
	if (status == 0) {
		status = read_number(db, "SELECT count(*) FROM sqlite_schema", &tables, err);
	}
	if (status < 0) {
		return status;
	}
	if (application != CATALOG_APPLICATION_ID && (tables > 0 || version != 0)) {
		return error_set(err, ERROR_CORRUPT, "catalog.db is another program's database");
	}
	if (version > SCHEMA_VERSION) {
		error_set(err, ERROR_UNSUPPORTED,
			"the catalog has schema %lld, this hob knows up to %lld",
			(long long)version, (long long)SCHEMA_VERSION);
		return error_hint(err, "a newer hob has used this store: run that one");
	}
	*ret_version = version;
	return 0;
}

static int apply(sqlite3 *db, int64_t version, struct error *err)
{
	CLEANUP(transaction_done) struct transaction transaction = {NULL};
	char mark[96];
	int status;

	/* PRAGMA takes no parameters. Both values are in the file's header and roll back with it.
	 */
	snprintf(mark, sizeof(mark), "PRAGMA user_version = %lld; PRAGMA application_id = %d",
		(long long)version + 1, CATALOG_APPLICATION_ID);
	status = transaction_begin(&transaction, db, TRANSACTION_WRITE, err);
	if (status == 0) {
		status = catalog_exec(db, versions[version], err);
	}
	if (status == 0) {
		status = catalog_exec(db, mark, err);
	}
	return status < 0 ? status : transaction_commit(&transaction, err);
}

static int update_locked(sqlite3 *db, struct error *err)
{
	int64_t version = 0;
	int status = read_version(db, &version, err);

	if (status == 0 && version == 0) {
		status = catalog_exec(db, "PRAGMA journal_mode = WAL", err);
	}
	for (; status == 0 && version < SCHEMA_VERSION; version++) {
		status = apply(db, version, err);
	}
	return status;
}

int schema_update(sqlite3 *db, int lock_fd, struct error *err)
{
	int64_t version = 0;
	int status = read_version(db, &version, err);

	if (status == 0 && version == SCHEMA_VERSION) {
		return 0;
	}
	/* Two processes may meet a new store at once: one makes it, the other waits. Whatever was
	 * seen before the lock may have been half of that, so only the second look counts. */
	if (flock(lock_fd, LOCK_EX) < 0) {
		return error_sys(err, errno, "lock the store");
	}
	status = update_locked(db, err);
	flock(lock_fd, LOCK_UN);
	return status;
}
