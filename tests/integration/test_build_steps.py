"""Steps are run again when what they read has changed, and only then."""

import json
import sqlite3
import time

from history import History
from hobtest import Repository


def catalog(machine, query, *values):
    with sqlite3.connect(f"file:{machine.store}/catalog.db?mode=ro", uri=True) as db:
        return db.execute(query, values).fetchall()


def head(machine, name="app"):
    """(id, kind, title) of the head's layers."""
    return catalog(machine, "SELECT l.id, l.kind, l.title FROM heads h JOIN image_layers i ON i.image_id = h.image_id"
                   " JOIN layers l ON l.id = i.layer_id WHERE h.environment = ? ORDER BY i.position", name)


def steps(machine):
    return {title: number for number, kind, title in head(machine) if kind == "step"}


class Project:
    """A repository that is large enough for deltas, and its environment."""

    def __init__(self, machine, *environment_steps, **more):
        self.machine, self.more = machine, more
        self.repository = machine.repository("app")
        History(self.repository, 1, 60)
        self.commit({"lock": "1\n", "code/a.c": "a\n", "docs/x.md": "x\n"})
        self.set(*environment_steps)
        self.build()

    def set(self, *environment_steps):
        self.machine.environment("app", source={"url": self.repository.path}, steps=list(environment_steps),
                                 **self.more)

    def commit(self, files):
        return self.repository.commit(files)

    def build(self, *words):
        done = self.machine.hob_build("app", *words)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def output(self, command):
        """Of a command in a new sandbox of the head."""
        machine = self.machine
        if machine.daemon is None:
            machine.start()
        image = f"img-{catalog(machine, 'SELECT image_id FROM heads')[0][0]}"
        made = machine.client.post("/v1/sandboxes", {"image": image})["id"]
        text = machine.client.output(made, command)
        machine.client.delete(made)
        return text


def test_only_what_reads_a_change_runs_again(machine):
    project = Project(machine, {"name": "deps", "run": "cp lock deps", "inputs": ["lock"]},
                      {"name": "build", "run": "cat deps code/*.c > built", "inputs": ["code/**"]})
    first = steps(machine)
    project.commit({"docs/x.md": "changed\n"})
    assert "as before" in project.build()
    assert steps(machine) == first
    assert catalog(machine, "SELECT message FROM builds ORDER BY id") == [
        ("4 layers made, 0 reused",), ("1 layers made, 4 reused",)]
    assert project.output("cat docs/x.md built; git status --porcelain") == "changed\n1\na\n?? built\n?? deps\n"
    project.commit({"code/a.c": "b\n"})
    project.build()
    second = steps(machine)
    assert second["step deps"] == first["step deps"] and second["step build"] != first["step build"]
    assert project.output("cat built") == "1\nb\n"
    project.commit({"lock": "2\n"})
    project.build()
    third = steps(machine)
    assert third["step deps"] != first["step deps"] and third["step build"] != second["step build"]
    assert project.output("cat built") == "2\nb\n"
    project.commit({"lock": "1\n", "code/a.c": "a\n"})
    project.build()
    assert steps(machine) == first, "an earlier result was not found again"


def test_a_step_without_inputs_reads_everything(machine):
    project = Project(machine, {"name": "all", "run": "cat docs/x.md > copy"})
    project.commit({"docs/x.md": "2\n"})
    project.build()
    assert project.output("cat copy") == "2\n"


def test_command_environment_and_network_count(machine):
    one = {"name": "one", "run": "true", "inputs": []}
    project = Project(machine, one)
    before = steps(machine)
    for more in ({"env": {"A": "1"}}, {"env": {"A": "1"}, "user": "1000"},
                 {"env": {"A": "1"}, "user": "1000", "build": {"network": "none"}}):
        project.more = more
        project.set(one)
        project.build()
        assert steps(machine) != before
        before = steps(machine)
    project.set({**one, "run": "true; true"})
    project.build()
    assert steps(machine) != before


def test_a_result_does_not_hide_a_newer_file(machine):
    """The step writes a file that is in the source too: once that changes there, the step runs again."""
    project = Project(machine, {"name": "gen", "run": "echo generated >> docs/x.md; echo y > new.txt; rm -r base/1",
                                "inputs": ["lock"]})
    first = steps(machine)
    project.commit({"code/a.c": "other\n"})
    project.build()
    assert steps(machine) == first
    project.commit({"docs/x.md": "newer\n"})
    assert "would hide docs/x.md" in project.build()
    assert project.output("cat docs/x.md") == "newer\ngenerated\n"
    second = steps(machine)
    project.commit({"new.txt": "theirs\n"})
    assert "would hide new.txt" in project.build()
    assert steps(machine) != second
    project.commit({"base/1/added": "1\n"})
    assert "would hide base/1/added" in project.build()
    assert project.output("cat base/1/added 2>&1 || true").startswith("cat: ")


def test_a_folder_made_anew_does_not_hide_newer_files(machine):
    """The step replaces a folder of the source, so the layer hides all that is there, also what comes later."""
    project = Project(machine, {"name": "gen", "run": "if [ ! -e docs/new.md ]; then rm -r docs; mkdir docs; fi;"
                                " mkdir -p own; echo made | tee own/made > docs/made", "inputs": ["lock"]})
    first = steps(machine)
    project.commit({"docs.txt": "1\n", "own/theirs": "merged\n"})
    project.build()
    assert steps(machine) == first
    assert project.output("cat own/theirs own/made docs/made") == "merged\nmade\nmade\n"
    project.commit({"docs/new.md": "theirs\n"})
    assert "would hide docs/new.md" in project.build()
    assert project.output("cat docs/new.md docs/made docs/x.md") == "theirs\nmade\nx\n"


def test_strict_steps_see_their_inputs_only(machine):
    project = Project(machine, {"name": "dep", "run": "echo dep > /dep", "inputs": []},
                      {"name": "strict", "run": "find . -type f | sort > /seen; cat /dep >> /seen; cp code/a.c made",
                       "inputs": ["code/*.c", "lock"], "strict": True})
    assert project.output("cat /seen made; cat docs/x.md") == "./code/a.c\n./lock\ndep\na\nx\n"
    before = steps(machine)
    project.commit({"docs/x.md": "2\n"})
    project.build()
    assert steps(machine) == before
    project.commit({"code/b.c": "b\n"})
    project.build()
    assert "./code/b.c" in project.output("cat /seen")


def test_strict_without_a_match(machine):
    project = Project(machine, {"name": "strict", "run": "pwd; ls -A > /seen", "inputs": ["no-such/*"], "strict": True})
    assert project.output("cat /seen; ls -d docs") == "docs\n"


def test_incremental_steps_go_on_from_their_result(machine):
    step = {"name": "make", "run": "cat code/a.c >> /log", "inputs": ["code/**"], "incremental": True}
    project = Project(machine, step)
    for number in range(1, 9):
        project.commit({"code/a.c": f"{number}\n"})
        project.build()
        wanted = "".join(f"{'a' if i == 0 else i}\n" for i in range(number + 1))
        if number < 6:
            assert project.output("cat /log") == wanted
            assert len([layer for layer in head(machine) if layer[1] == "step"]) == number + 1
        elif number == 6:  # it had grown high, and began anew
            assert project.output("cat /log") == "6\n"
    assert project.output("cat /log") == "6\n7\n8\n"
    project.commit({"docs/x.md": "2\n"})
    before = head(machine)[-3:]
    project.build()
    assert head(machine)[-3:] == before


def test_make_rebuilds_what_changed(machine):
    """Times: a changed file is newer than what was made from the one before, an unchanged one is not."""
    make = ("cat > /m.sh <<'E'\nfor f in code/*.c; do o=/o/$(basename $f).o; mkdir -p /o; "
            "if [ ! -e $o ] || [ $f -nt $o ]; then cp $f $o; echo $f >> /did; fi; done\nE\n: > /did; sh /m.sh")
    project = Project(machine, {"name": "make", "run": make, "inputs": ["code/**"], "incremental": True})
    project.commit({"code/b.c": "b\n"})
    project.build()
    project.commit({"code/a.c": "A\n"})
    project.build()
    assert project.output("cat /did /o/a.c.o /o/b.c.o") == "code/a.c\nA\nb\n"


def test_no_cache_and_force(machine):
    project = Project(machine, {"name": "s", "run": "date +%N > /when", "inputs": []})
    before = head(machine)
    assert "unchanged" in project.build()
    project.build("--force")
    forced = head(machine)
    assert [layer[0] for layer in forced][:-1] == [layer[0] for layer in before][:-1]
    assert forced[-1][0] != before[-1][0]
    project.build("--no-cache")
    fresh = {layer[0] for layer in head(machine)}
    assert not fresh & {layer[0] for layer in forced + before}


def test_clean_every(machine):
    project = Project(machine, {"name": "s", "run": "date +%N > /when", "inputs": []},
                      schedule={"clean_every": "2s"})
    before = {layer[0] for layer in head(machine)}
    time.sleep(2)
    assert "made from nothing" in project.build()
    after = {layer[0] for layer in head(machine)}
    assert not before & after
    project.commit({"docs/x.md": "2\n"})
    project.build()
    assert json.loads(catalog(machine, "SELECT manifest FROM images ORDER BY id DESC LIMIT 1")[0][0])["clean_ms"] > 0


def test_what_failed_keeps_what_went_well(machine):
    project = Project(machine)
    project.set({"name": "good", "run": "date +%N > /when", "inputs": []},
                {"name": "bad", "run": "cat docs/x.md; test ! -e bad", "inputs": []})
    project.commit({"bad": "1\n"})
    assert machine.hob_build("app").returncode != 0
    project.set({"name": "good", "run": "date +%N > /when", "inputs": []}, {"name": "fine", "run": "true"})
    assert "as before: nothing that it reads" in project.build()


def test_a_failure_that_may_be_is_tried_again(machine):
    project = Project(machine, {"name": "may", "run": "test -e good && echo ok > /ok", "inputs": [],
                                "allow_failure": True})
    project.commit({"good": "1\n"})
    project.build()
    assert project.output("cat /ok") == "ok\n"


def test_several_repositories(machine):
    one, two = machine.repository("one"), Repository(f"{machine.folder}/two")
    History(two, 2, 40)
    machine.environment("app", source=[{"url": one.path, "path": "/one"}, {"url": two.path, "path": "/two"}],
                        steps=[{"name": "s", "run": "cat /two/lock > /made", "inputs": ["lock"]}])
    two.commit({"lock": "1\n"})
    machine.build("app")
    before = steps(machine)
    one.commit({"hello.txt": "2\n"})
    two.commit({"other": "2\n"})
    machine.build("app")
    assert steps(machine) == before
    two.commit({"lock": "2\n"})
    machine.build("app")
    assert steps(machine) != before


def test_explain_says_what_a_build_would_do(machine):
    project = Project(machine, {"name": "deps", "run": "cp lock deps", "inputs": ["lock"]},
                      {"name": "build", "run": "cat code/*.c > built", "inputs": ["code/**"], "incremental": True},
                      {"name": "all", "run": "true"})

    def explain(*words):
        builds = catalog(machine, "SELECT count(*) FROM builds")
        done = machine.hob_build("--explain", "--json", *words)
        assert done.returncode == 0, done.stderr
        assert catalog(machine, "SELECT count(*) FROM builds") == builds
        plan = json.loads(done.stdout)
        return plan, {row["name"]: row for row in plan["layers"]}
    plan, rows = explain()
    assert plan["unchanged"] and {row["action"] for row in rows.values()} == {"reuse"}
    project.commit({"code/b.c": "b\n", "docs/x.md": "2\n"})
    plan, rows = explain("app")
    assert not plan["unchanged"]
    assert {name: row["action"] for name, row in rows.items()} == {
        "host": "reuse", "/workspace": "make", "deps": "reuse", "build": "run", "all": "run"}
    assert rows["build"]["changed"] == ["code/b.c"] and rows["build"]["layer"]
    assert rows["/workspace"]["changed"] == ["code/b.c", "docs/x.md"]
    assert "declares no inputs" in rows["all"]["why"]
    text = machine.hob_build("--explain", "app").stdout
    assert "1 of its inputs changed: code/b.c" in text and "none of its 1 input files changed" in text
    project.build()
    _, rows = explain("--force")
    assert rows["deps"]["action"] == "run" and rows["host"]["action"] == "reuse"
    plan, rows = explain("--no-cache")
    assert plan["clean"] and {row["action"] for row in rows.values()} == {"make", "run"}
    project.set({"name": "deps", "run": "cp lock deps; true", "inputs": ["lock"]},
                {"name": "build", "run": "cat code/*.c > built", "inputs": ["code/**"]})
    _, rows = explain()
    assert "its command" in rows["deps"]["why"] and "step deps before it" in rows["build"]["why"]
    machine.environment("new", source={"url": project.repository.path})
    assert "its first image" in machine.hob_build("--explain", "new").stdout
