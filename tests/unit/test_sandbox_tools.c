/* What agents do all day works under the sandbox's filter: each tool that this machine has. */
#include "tests/lib/sandbox_kit.h"
#include "tests/lib/test.h"

#include <stdio.h>

static struct sandbox_kit *kit;
static struct kit_box box;

static int group_setup(void **state)
{
	(void)state;
	if (geteuid() == 0) {
		kit = sandbox_kit_new(1);
		box_open(kit, &box, "sb-tools", 8);
	}
	return 0;
}

static int group_teardown(void **state)
{
	(void)state;
	if (kit != NULL) {
		assert_int_equal(box_close(&box), 0);
		sandbox_kit_free(kit);
	}
	return 0;
}

/* Skips where the tool is not installed. */
static void tool_says(const char *tool, const char *script, const char *wanted)
{
	CLEANUP(free_p) char *found = xasprintf("/usr/bin/%s", tool);
	CLEANUP(free_p) char *said = NULL;

	if (kit == NULL || access(found, X_OK) < 0) {
		skip();
	}
	said = box_shell(&box, script, NULL);
	assert_string_equal(said, wanted);
}

static void test_git(void **state)
{
	(void)state;
	tool_says("git",
		"cd /workspace && git init -q -b main g 2>/dev/null && cd g && echo x > f && git "
		"add f && "
		"git -c user.name=a -c user.email=a@b commit -qm one && git clone -q . ../h && "
		"git -C ../h log --format=%s && git status --porcelain",
		"one");
}

static void test_compiler_and_make(void **state)
{
	(void)state;
	tool_says("gcc",
		"mkdir -p /workspace/c && cd /workspace/c && printf 'all: p\\n\\t./p\\n' > "
		"Makefile && "
		"printf '#include <stdio.h>\\n#include <pthread.h>\\nvoid *f(void *p) { puts(p); "
		"return 0; }\\n"
		"int main(void) { pthread_t t; pthread_create(&t, 0, f, \"thread\"); "
		"return pthread_join(t, 0); }\\n' > p.c && make -s -j2 CC=gcc CFLAGS=-pthread",
		"thread");
}

static void test_python(void **state)
{
	(void)state;
	tool_says("python3",
		"cd /workspace && cat > p.py <<'END'\n"
		"import multiprocessing, sqlite3, subprocess, tempfile, threading\n"
		"def square(x): return x * x\n"
		"if __name__ == '__main__':\n"
		"    db = sqlite3.connect('/workspace/x.db')\n"
		"    db.execute('PRAGMA journal_mode=WAL')\n"
		"    db.execute('CREATE TABLE t(a)'); db.execute('INSERT INTO t VALUES (7)'); "
		"db.commit()\n"
		"    print(db.execute('SELECT a FROM t').fetchone()[0])\n"
		"    with multiprocessing.Pool(2) as pool: print(pool.map(square, [1, 2, 3]))\n"
		"    print(subprocess.run(['echo', 'child'], capture_output=True).stdout)\n"
		"END\n"
		"python3 p.py",
		"7\n[1, 4, 9]\nb'child\\n'");
}

static void test_node(void **state)
{
	(void)state;
	tool_says("node",
		"cd /workspace && node -e 'const fs = require(\"fs\"), { Worker } = "
		"require(\"worker_threads\");\n"
		"const http = require(\"http\");\n"
		"const s = http.createServer((q, r) => r.end(\"served\")).listen(3000, "
		"\"127.0.0.1\", () =>\n"
		"  http.get(\"http://127.0.0.1:3000/\", r => r.on(\"data\", d => { "
		"console.log(String(d));\n"
		"    new Worker(\"console.log(1 + 1)\", {eval: true}).on(\"exit\", () => "
		"s.close()); })));'",
		"served\n2");
}

static void test_npm(void **state)
{
	(void)state;
	tool_says("npm",
		"mkdir -p /workspace/n && cd /workspace/n && export HOME=/root && npm init -y "
		">/dev/null && "
		"npm pkg set scripts.hello='echo hello' && npm run -s hello",
		"hello");
}

static void test_debuggers(void **state)
{
	(void)state;
	tool_says("strace",
		"strace -f -o /tmp/trace sh -c 'true; true' && grep -c execve /tmp/trace", "1");
}

static void test_gdb(void **state)
{
	(void)state;
	tool_says("gdb",
		"gdb -q -batch -ex run -ex 'print 40 + 2' /usr/bin/true 2>/dev/null | tail -1",
		"$1 = 42");
}

static void test_packages(void **state)
{
	(void)state;
	tool_says("dpkg-deb",
		"mkdir -p /tmp/d/DEBIAN /tmp/d/opt && echo x > /tmp/d/opt/x && "
		"printf 'Package: x\\nVersion: 1\\nArchitecture: all\\nMaintainer: a <a@b>\\n"
		"Description: x\\n' > /tmp/d/DEBIAN/control && dpkg-deb -b /tmp/d /tmp/x.deb "
		">/dev/null && "
		"dpkg-deb -x /tmp/x.deb /tmp/out && cat /tmp/out/opt/x",
		"x");
}

static void test_archives_keep_owners(void **state)
{
	(void)state;
	tool_says("tar",
		"mkdir /tmp/a && touch /tmp/a/f && chown 33:44 /tmp/a/f && chmod 4755 /tmp/a/f && "
		"tar -C /tmp -cf /tmp/a.tar a && rm -r /tmp/a && tar -C /tmp -xpf /tmp/a.tar && "
		"stat -c '%u %g %a' /tmp/a/f",
		"33 44 4755");
}

static void test_terminals(void **state)
{
	(void)state;
	tool_says("script", "script -qc 'tty; echo in' /dev/null </dev/null | tr -d '\\r'",
		"/dev/pts/0\nin");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_git),
		cmocka_unit_test(test_compiler_and_make),
		cmocka_unit_test(test_python),
		cmocka_unit_test(test_node),
		cmocka_unit_test(test_npm),
		cmocka_unit_test(test_debuggers),
		cmocka_unit_test(test_gdb),
		cmocka_unit_test(test_packages),
		cmocka_unit_test(test_archives_keep_owners),
		cmocka_unit_test(test_terminals),
	};

	return cmocka_run_group_tests(tests, group_setup, group_teardown);
}
