"""Services of warm sandboxes with real servers: when a sandbox counts as ready, what happens when one
dies, floods, is slow or never comes up, and what a restarted or killed hobd makes of them."""

import contextlib
import os
import re
import signal
import time

import pytest

import leftovers
from hobtest import Failure, only_long, wait_for

WEB = {"name": "web", "run": "exec python3 -m http.server 8000 --bind 127.0.0.1",
       "ready": {"http": "http://127.0.0.1:8000/hello.txt"}}
FETCH = ("python3 -c 'import urllib.request as u; "
         "print(u.urlopen(\"http://127.0.0.1:8000/hello.txt\").read().decode(), end=\"\")'")
FAST = {"delay": "10ms", "max_delay": "50ms"}


def server(script):
    """A service that is a Python program with the socket module at hand."""
    return "exec python3 -c '" + "import socket, sys, time, os\n" + script + "'"


# Binds, accepts for ever, and does with each connection `c` what it is told.
LISTEN = """s = socket.socket()
s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
s.bind(("127.0.0.1", 8000)); s.listen()
kept = []
while True:
    c = s.accept()[0]
"""


def prepare(machine, services, least=1, most=8, **keys):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": least, "max": most},
                        services=services, **keys)
    return repository


def start(machine, services, least=1, most=8, gate=True, **keys):
    """gate False: the image is made before the environment has services that cannot come up."""
    repository = prepare(machine, services if gate else [], least if gate else 0, most,
                         **(keys if gate else {}))
    machine.build("app")
    if not gate:
        machine.environment("app", source={"url": repository.path}, pool={"min": least, "max": most},
                            services=services, **keys)
    machine.start()
    return repository


def stay_awake(machine):
    """Sandboxes that wait are not frozen: their services would neither die nor be looked at."""
    machine.settings["freeze_after"] = "1h"
    machine.write_config()


def services_of(machine, made):
    return {service["name"]: service
            for service in machine.client.get(f"/v1/sandboxes/{made['id']}/services")["services"]}


def log_of(machine, made, name):
    reply = machine.client.raw("GET", f"/v1/sandboxes/{made['id']}/services/{name}/log")
    assert reply.status == 200, reply.body
    return reply.body.decode()


def waiting(machine, count=1):
    """The sandboxes of the pool that are ready."""
    wait_for(f"{count} ready", lambda: machine.pool("app")["ready"] == count)
    return machine.client.get("/v1/sandboxes?state=ready")["sandboxes"]


def failure(machine, *words):
    """Of an attempt, until one has failed with these words: on a busy machine the first may not come as far."""
    def look():
        failing = machine.pool("app")["failing"]
        return failing if failing and all(word in failing["message"] for word in words) else None
    return wait_for(f"a failure that says {words}", look, 300)


def test_a_warm_sandbox_has_its_servers(machine):
    start(machine, [WEB], least=2)
    machine.wait_ready("app", 2)
    made = machine.client.create("app")
    assert made["source"] == "warm" and made["services_us"] == 0
    assert machine.client.output(made["id"], FETCH) == "hello\n"
    service = services_of(machine, made)["web"]
    assert service["state"] == "ready" and service["pid"] and service["restarts"] == 0
    wait_for("its log", lambda: "GET /hello.txt" in log_of(machine, made, "web"))
    # They are hob's own: no command of the user's.
    assert machine.client.get(f"/v1/sandboxes/{made['id']}")["execs"] == []
    assert "web ready" in machine.hob("info", made["id"]).stdout
    assert "GET /hello.txt" in machine.hob("logs", made["id"]).stdout
    assert machine.hob("logs", made["id"], "wob").returncode != 0


def test_a_cold_claim_waits_for_the_servers(machine):
    start(machine, [WEB], least=0)
    made = machine.client.create("app")
    assert made["source"] == "cold" and 0 < made["services_us"] <= made["took_us"]
    assert machine.client.output(made["id"], FETCH) == "hello\n"


def test_servers_are_no_activity(machine):
    start(machine, [WEB], least=1, lifecycle={"idle": "1s"})
    machine.wait_ready("app", 1)
    made = machine.client.create("app")
    wait_for("it to end by itself",
             lambda: machine.client.raw("GET", f"/v1/sandboxes/{made['id']}").status == 404)


def test_all_ways_to_be_ready_in_order(machine):
    node = ('exec node -e \'require("http").createServer((q, r) => { r.writeHead(302, {Location: "/x"}); '
            'r.end() }).listen(3000, "::1")\'')
    services = [
        {"name": "first", "run": "sleep 0.3; touch /tmp/first.sock; exec sleep 1000",
         "ready": {"file": "/tmp/first.sock"}},
        {"name": "second", "run": "test -e /tmp/first.sock || exit 1; touch /tmp/second; exec sleep 1000",
         "restart": {"attempts": 0}, "ready": {"command": "test -e /tmp/second"}},
        {"name": "third", "run": server(LISTEN + "    kept.append(c)"), "ready": {"tcp": 8000},
         "env": {"WHO": "third"}, "cwd": "/tmp"},
        {"name": "node", "run": node, "ready": {"http": "http://[::1]:3000/?a=b"}},
        {"name": "plain", "run": "pwd; echo $WHO; exec sleep 1000", "cwd": "/usr", "env": {"WHO": "me"}}]
    start(machine, services, least=1)
    machine.wait_ready("app", 1)
    made = machine.client.create("app")
    assert {s["state"] for s in services_of(machine, made).values()} == {"ready"}
    wait_for("its output", lambda: log_of(machine, made, "plain") == "/usr\nme\n")


def test_prime_runs_once_and_not_for_those_who_wait(machine):
    start(machine, [WEB], least=1, prime={"run": f"{FETCH} && echo primed >> /tmp/primed"})
    machine.wait_ready("app", 1)
    made = machine.client.create("app")
    assert machine.client.output(made["id"], "cat /tmp/primed") == "primed\n"
    machine.wait_ready("app", 1)
    cold = machine.client.create(image=made["image"])
    assert cold["source"] == "warm"
    machine.environment("app", source={"url": machine.folder + "/repos/app"}, pool={"min": 0, "max": 8},
                        services=[WEB], prime={"run": "touch /tmp/primed"})
    wait_for("an empty pool", lambda: [machine.pool("app")[key] for key in ("min", "warming", "ready")] == [0] * 3)
    cold = machine.client.create("app")
    assert cold["source"] == "cold"
    assert machine.client.exec(cold["id"], "test -e /tmp/primed")["exit_code"] == 1


def test_a_prime_that_fails(machine):
    start(machine, [], least=1, gate=False, prime={"run": "echo no such luck >&2; exit 3"})
    failure(machine, "prime ended with code 3", "no such luck")
    machine.environment("app", source={"url": machine.folder + "/repos/app"}, pool={"min": 1, "max": 8},
                        prime={"run": "exit 3", "on_failure": "ignore"})
    machine.wait_ready("app", 1)


def test_a_prime_that_takes_too_long(machine):
    start(machine, [], least=1, gate=False, prime={"run": "sleep 1000", "timeout": "200ms"})
    failure(machine, "longer than its timeout of 200ms")


def test_a_slow_starter_is_waited_for(machine):
    slow = server("time.sleep(1.5)\n" + LISTEN + "    kept.append(c)")
    start(machine, [{"name": "slow", "run": slow, "ready": {"tcp": 8000}}], least=1)
    assert machine.pool("app")["ready"] == 0
    machine.wait_ready("app", 1)


def test_one_that_never_comes_up(machine):
    start(machine, [{"name": "web", "run": "echo I try; exec sleep 1000",
                     "ready": {"tcp": 8000, "timeout": "2s"}}], least=2, gate=False)
    failure(machine, "service web was not ready within 2s", "nobody listens", "I try")
    # Backed off, not retried in a storm; and a claim hears why.
    wait_for("a pause", lambda: machine.pool("app")["failing"]["retry_in_ms"] > 0)
    with pytest.raises(Failure) as refused:
        machine.client.create("app")
    assert "not ready within 2s" in refused.value.message


def test_one_whose_port_is_taken(machine):
    other = {"name": "other", "run": server(LISTEN + "    c.close()"), "ready": {"tcp": 8000}}
    start(machine, [other, {**WEB, "restart": {"attempts": 2, **FAST}}], least=1, gate=False)
    failure(machine, "service web ended with code 1, after 2 restarts", "Address already in use")


HOSTILE = {
    "silent": ("    kept.append(c)", "accepts, but does not answer"),
    "garbage": ("    try: c.sendall(os.urandom(70000)); c.close()\n    except OSError: pass",
                "does not speak HTTP"),
    "closing": ("    c.close()", "closed the connection without an answer"),
    "endless": ("    c.sendall(b\"HTTP/1.1 500 No\\r\\n\")\n    try:\n"
                "        while True: c.sendall(b\"X: y\\r\\n\" * 1000)\n    except OSError: pass",
                "answered with status 500"),
    "slow": ("    c.sendall(b\"HTTP/1.\"); kept.append(c)", "accepts, but does not answer"),
}


@pytest.mark.parametrize("kind", ["garbage", "closing", "silent", pytest.param("endless", marks=only_long),
                                  pytest.param("slow", marks=only_long)])
def test_answers_that_are_none(machine, kind):
    script, expected = HOSTILE[kind]
    # The server is another service, which is up before the time of the one that is asked begins.
    up = LISTEN.replace("s.listen()", "s.listen(); open(\"/tmp/up\", \"w\").close()")
    start(machine, [{"name": "server", "run": server(up + script), "ready": {"file": "/tmp/up"}},
                    {"name": "web", "run": "exec sleep 1000",
                     "ready": {"http": "http://localhost:8000/", "timeout": "4s"}}], gate=False)
    failure(machine, "service web was not ready within 4s", expected)


def test_an_endless_answer_is_good_enough(machine):
    endless = ("    c.sendall(b\"HTTP/1.1 200 OK\\r\\n\")\n    try:\n"
               "        while True: c.sendall(b\"X: y\\r\\n\" * 1000)\n    except OSError: pass")
    start(machine, [{"name": "web", "run": server(LISTEN + endless),
                     "ready": {"http": "http://127.0.0.1:8000/"}}], least=1)
    machine.wait_ready("app", 1)


def test_one_that_dies_while_waiting_is_started_again(machine):
    stay_awake(machine)
    start(machine, [{**WEB, "restart": FAST}], least=1)
    ready = waiting(machine)[0]
    before = services_of(machine, ready)["web"]
    kill_inside(machine, "http.server")
    wait_for("the restart", lambda: services_of(machine, ready)["web"]["restarts"] == 1 and
             services_of(machine, ready)["web"]["state"] == "ready")
    assert "killed by signal 9" in services_of(machine, ready)["web"]["message"]
    assert services_of(machine, ready)["web"]["pid"] != before["pid"]
    log = wait_for("its log", lambda: re.search(r"(?s).*\[hob\] it ended with code 137; started again.*",
                                                log_of(machine, ready, "web"))).group()
    assert log.count("Serving HTTP") <= 2
    made = machine.client.create("app")
    assert made["id"] == ready["id"]
    assert machine.client.output(made["id"], FETCH) == "hello\n"
    # And after the claim.
    kill_inside(machine, "http.server", 0, made["pid"])
    wait_for("the next restart", lambda: services_of(machine, made)["web"]["restarts"] == 2 and
             services_of(machine, made)["web"]["state"] == "ready")


def kill_inside(machine, word, least=1, init=None):
    """Kills processes with `word` in their command line inside this hob's sandboxes."""
    killed = 0
    for pid in machine.inside_pids():
        if word in leftovers.read_text(f"/proc/{pid}/cmdline") and (
                init is None or leftovers.read_text(f"/proc/{pid}/stat").split()[3] == str(init)):
            os.kill(pid, signal.SIGKILL)
            killed += 1
    assert killed >= least


def test_one_that_keeps_dying_replaces_the_sandbox(machine):
    # Ready for a moment each time.
    dying = {"name": "dying", "run": "touch /tmp/up; sleep 0.2; rm /tmp/up; echo out of luck; exit 7",
             "ready": {"file": "/tmp/up", "timeout": "5s"}, "restart": {"attempts": 1, **FAST}}
    start(machine, [dying], least=1, gate=False)
    failure(machine, "service dying ended with code 7, after 1 restarts", "out of luck")
    # It becomes ready again and again, and is no less in trouble for that.
    wait_for("a second attempt", lambda: (machine.pool("app")["failing"] or {"attempts": 0})["attempts"] >= 2)


def test_one_that_gives_up_after_the_claim_stays_down_until_told(machine):
    start(machine, [{**WEB, "run": "test ! -e /tmp/broken || exit 4; " + WEB["run"],
                     "restart": {"attempts": 1, **FAST}}], least=1)
    machine.wait_ready("app", 1)
    made = machine.client.create("app")
    machine.client.output(made["id"], "touch /tmp/broken; pkill -f [h]ttp.server; true")
    wait_for("it to fail", lambda: services_of(machine, made)["web"]["state"] == "failed")
    assert machine.client.get(f"/v1/sandboxes/{made['id']}")["state"] == "claimed"
    machine.client.output(made["id"], "rm /tmp/broken")
    done = machine.hob("logs", made["id"], "web", "--restart")
    assert done.returncode == 0, done.stderr
    wait_for("it to be back", lambda: services_of(machine, made)["web"]["state"] == "ready")
    assert machine.client.output(made["id"], FETCH) == "hello\n"


def test_a_restart_on_request_and_a_log_that_is_followed(machine):
    polite = {"name": "polite", "run": server("import signal\n"
              "signal.signal(signal.SIGTERM, lambda *_: sys.exit(print(\"bye\", flush=True)))\n"
              "print(\"hello\", flush=True)\nwhile True: time.sleep(10)")}
    start(machine, [polite, WEB], least=1)
    machine.wait_ready("app", 1)
    made = machine.client.create("app")
    connection, response = follow(machine, made, "polite")
    assert response.readline() == b"hello\n"
    reply = machine.client.post(f"/v1/sandboxes/{made['id']}/services/polite/restart")
    assert reply["state"] == "restarting"
    assert response.readline() == b"bye\n"
    assert response.readline() == b"[hob] it ended with code 0; started again\n"
    assert response.readline() == b"hello\n"
    wait_for("it to run", lambda: services_of(machine, made)["polite"]["state"] == "ready")
    assert services_of(machine, made)["polite"]["message"] is None
    machine.client.delete(made["id"])
    assert response.read() == b""
    connection.close()


def follow(machine, made, name):
    connection = machine.client.connect()
    connection.request("GET", f"/v1/sandboxes/{made['id']}/services/{name}/log?follow=1")
    response = connection.getresponse()
    assert response.status == 200
    return connection, response


def test_a_flood_of_output_harms_nobody(machine):
    flood = {"name": "flood", "run": "exec yes this-line-comes-for-ever"}
    start(machine, [flood, WEB], least=1)
    machine.wait_ready("app", 1)
    made = machine.client.create("app")
    before, begin = cpu_of(machine), time.monotonic()
    time.sleep(1)
    assert machine.client.output(made["id"], FETCH) == "hello\n"
    assert cpu_of(machine) - before < 50 * (time.monotonic() - begin), "hobd works for what a service says"
    wait_for("a full log", lambda: len(log_of(machine, made, "flood")) >= 60000)
    log = log_of(machine, made, "flood")
    assert len(log) <= 2 * 65536 and log.count("this-line-comes-for-ever\n") > 2000


def cpu_of(machine):
    """Ticks of hobd itself."""
    fields = leftovers.read_text(f"/proc/{machine.daemon.pid}/stat").rsplit(")", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def test_a_changed_service_replaces_waiting_sandboxes_only(machine):
    start(machine, [WEB], least=2)
    old = {sandbox["id"] for sandbox in waiting(machine, 2)}
    made = machine.client.create("app")
    machine.wait_ready("app", 2)
    old |= {sandbox["id"] for sandbox in waiting(machine, 2)}
    image = machine.pool("app")["image"]
    machine.environment("app", source={"url": machine.folder + "/repos/app"}, pool={"min": 2, "max": 8},
                        services=[{**WEB, "env": {"NEW": "yes"}}])
    wait_for("the pool to be new", lambda: len(machine.client.get("/v1/sandboxes?state=ready")["sandboxes"]) == 2
             and not old & {s["id"] for s in machine.client.get("/v1/sandboxes?state=ready")["sandboxes"]})
    assert machine.pool("app")["image"] == image
    assert machine.client.output(made["id"], FETCH) == "hello\n"
    # What does not touch the services replaces nothing.
    new = {sandbox["id"] for sandbox in waiting(machine, 2)}
    machine.environment("app", source={"url": machine.folder + "/repos/app"}, pool={"min": 2, "max": 9},
                        services=[{**WEB, "env": {"NEW": "yes"}}])
    wait_for("the file to be read", lambda: machine.pool("app")["max"] == 9)
    assert new == {sandbox["id"] for sandbox in waiting(machine, 2)}


def test_a_restarted_hobd_takes_services_up(machine):
    stay_awake(machine)
    start(machine, [{**WEB, "restart": FAST}], least=1)
    machine.wait_ready("app", 1)
    made = machine.client.create("app")
    machine.wait_ready("app", 1)
    pid = services_of(machine, made)["web"]["pid"]
    machine.kill()
    assert len([p for p in machine.inside_pids()
                if "http.server" in leftovers.read_text(f"/proc/{p}/cmdline")]) == 2
    machine.start()
    wait_for("the service", lambda: services_of(machine, made)["web"]["state"] == "ready")
    assert services_of(machine, made)["web"]["pid"] == pid
    assert machine.client.get(f"/v1/sandboxes/{made['id']}")["execs"] == []
    wait_for("its log", lambda: "GET /hello.txt" in log_of(machine, made, "web"))
    wait_for("the ready one", lambda: machine.pool("app")["ready"] == 1)
    # Killed while nobody looks; its log and its restarts go on.
    machine.kill()
    kill_inside(machine, "http.server", 2)
    machine.start()
    wait_for("the restart", lambda: services_of(machine, made)["web"]["state"] == "ready" and
             services_of(machine, made)["web"]["pid"] != pid)
    wait_for("its log", lambda: "[hob] it ended with code 137; started again" in log_of(machine, made, "web"))
    assert machine.client.output(made["id"], FETCH) == "hello\n"
    machine.wait_ready("app", 1)
    again = machine.client.create("app")
    assert again["source"] == "warm" and machine.client.output(again["id"], FETCH) == "hello\n"


def test_hobd_killed_while_sandboxes_warm(machine):
    slow = {"name": "slow", "run": "sleep 1000 & sleep 600; touch /tmp/up; wait",
            "ready": {"file": "/tmp/up", "timeout": "10m"}}
    start(machine, [slow], least=3, gate=False)
    wait_for("them to warm", lambda: machine.client.get("/v1/sandboxes?state=warming")["sandboxes"])
    machine.kill()
    machine.start()

    def all_ready():
        leftovers.signal_all(machine.waiting_at_gate(), signal.SIGKILL)
        return machine.pool("app")["ready"] == 3
    wait_for("three to be ready", all_ready)
    assert len(machine.client.get("/v1/sandboxes")["sandboxes"]) == 3


@pytest.mark.parametrize("point", ["service.start", "service.prime", pytest.param("services.start", marks=only_long),
                                   pytest.param("services.ready", marks=only_long)])
def test_a_crash_on_the_way_to_warm(machine, point):
    prepare(machine, [WEB], least=2, prime={"run": "true"})
    machine.build("app")
    env = {"HOB_FAULT": f"{point}:1:kill"}
    with contextlib.suppress(AssertionError):
        machine.start(env)
    wait_for("the crash", lambda: machine.daemon.poll() is not None)
    machine.daemon = None
    machine.start()
    machine.wait_ready("app", 2)
    made = machine.client.create("app")
    assert machine.client.output(made["id"], FETCH) == "hello\n"


def test_restored_and_forked_ones_have_them_too(machine):
    extra = {"name": "extra", "run": "exec sleep 1000", "on_restore": "skip"}
    start(machine, [WEB, extra], least=1)
    machine.wait_ready("app", 1)
    made = machine.client.create("app")
    machine.client.output(made["id"], "echo mine > hello.txt")
    taken = machine.client.post(f"/v1/sandboxes/{made['id']}/snapshots", {})
    restored = machine.client.create(snapshot=taken["id"])
    assert restored["source"] == "restored" and restored["services_us"] > 0
    assert machine.client.output(restored["id"], FETCH) == "mine\n"
    states = {name: service["state"] for name, service in services_of(machine, restored).items()}
    assert states == {"web": "ready", "extra": "skipped"}
    forked = machine.client.post(f"/v1/sandboxes/{made['id']}/fork", {"count": 1})
    assert machine.client.output(forked["children"][0]["id"], FETCH) == "mine\n"


def test_a_paused_sandbox_keeps_its_servers(machine):
    start(machine, [WEB], least=1)
    machine.wait_ready("app", 1)
    made = machine.client.create("app")
    pid = services_of(machine, made)["web"]["pid"]
    machine.client.post(f"/v1/sandboxes/{made['id']}/pause")
    assert services_of(machine, made)["web"]["state"] == "ready"
    wait_for("its log", lambda: "GET /hello.txt" in log_of(machine, made, "web"))
    machine.client.post(f"/v1/sandboxes/{made['id']}/resume")
    assert machine.client.output(made["id"], FETCH) == "hello\n"
    assert services_of(machine, made)["web"]["pid"] == pid


def test_the_gate_needs_the_services(machine):
    prepare(machine, [{**WEB, "run": "echo cannot open the database; exit 5",
                       "restart": {"attempts": 1, **FAST}}], check={"run": "true"})
    done = machine.hob_build("app")
    assert done.returncode != 0
    text = done.stdout + done.stderr
    assert "service web ended with code 5, after 1 restarts" in text, text
    assert "cannot open the database" in text
    prepare_again(machine, [{"name": "web", "run": "exec sleep 1000", "ready": {"tcp": 1, "timeout": "200ms"}}])
    done = machine.hob_build("app")
    assert done.returncode != 0 and "was not ready within 200ms" in done.stdout + done.stderr
    prepare_again(machine, [WEB], check={"run": FETCH + " | grep hello"})
    assert machine.hob_build("app").returncode == 0
    prepare_again(machine, [WEB], prime={"run": "echo too cold; exit 9"}, check={"run": "true"})
    done = machine.hob_build("app", "--force")
    assert done.returncode != 0 and "prime ended with code 9" in done.stdout + done.stderr


def prepare_again(machine, services, **keys):
    machine.environment("app", source={"url": machine.folder + "/repos/app"}, services=services, **keys)
