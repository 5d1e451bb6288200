"""What sandboxes write: measured in the background, held to limits.disk while they run, and within the
budgets of disk of an environment and of the machine."""

import threading

import pytest

from hobtest import Failure, Hob, wait_for

MIB = 1 << 20


def start(machine, least=1, **keys):
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, **{"pool": {"min": least, "max": 20}, **keys})
    machine.build("app")
    machine.start()
    machine.wait_ready("app", least)
    return machine.client


def written(client, sandbox):
    return client.get(f"/v1/sandboxes/{sandbox}")["usage"]["disk_bytes"] or 0


def state(client, sandbox):
    return client.get(f"/v1/sandboxes/{sandbox}")["state"]


def fill(client, sandbox, mebibytes, name="big"):
    return client.exec(sandbox, f"head -c {mebibytes * MIB} /dev/urandom > /var/tmp/{name}")


def test_what_is_written_is_measured(machine):
    client = start(machine)
    sandbox = client.create("app")["id"]
    assert fill(client, sandbox, 20)["exit_code"] == 0
    wait_for("its 20 MiB to be seen", lambda: 20 * MIB <= written(client, sandbox) < 25 * MIB, 90)
    # What links point at is not its own, and a file with two names is one.
    client.exec(sandbox, "ln /var/tmp/big /var/tmp/same; ln -s /usr /var/tmp/usr; rm -f /var/tmp/none; "
                "head -c 5242880 /dev/urandom > /var/tmp/more")
    wait_for("5 MiB more", lambda: 25 * MIB <= written(client, sandbox) < 30 * MIB, 90)
    wait_for("the pool to count it", lambda: machine.pool("app")["disk_bytes"] == written(client, sandbox))

    def metrics():
        return client.raw("GET", "/metrics").body.decode()
    wait_for("metrics to count it",
             lambda: f'hob_claimed_disk_bytes{{environment="app"}} {written(client, sandbox)}' in metrics())
    client.delete(sandbox)
    wait_for("nothing to be counted", lambda: machine.pool("app")["disk_bytes"] == 0)


def test_over_the_limit_it_stands_still_and_its_commands_fail(machine):
    client = start(machine, limits={"disk": "30MiB"})
    sandbox, other = client.create("app")["id"], client.create("app")["id"]
    detached = client.post(f"/v1/sandboxes/{sandbox}/exec", {"shell": "sleep 1000", "detach": True})["exec"]
    with pytest.raises(Failure) as failure:
        client.exec(sandbox, "head -c 60000000 /dev/urandom > /var/tmp/big; sleep 1000")
    assert failure.value.status == 507 and "limits.disk" in str(failure.value)
    assert state(client, sandbox) == "paused"
    with pytest.raises(Failure) as failure:
        client.exec(sandbox, "true")
    assert failure.value.status == 507 and "hob resume" in str(failure.value)
    assert client.output(other, "cat hello.txt") == "hello\n", "nobody else is harmed"
    machine.kill()
    machine.start()
    with pytest.raises(Failure):
        client.exec(sandbox, "true")
    # Let go on, it may not grow, but clean up; and is as any other then.
    client.post(f"/v1/sandboxes/{sandbox}/resume")
    with pytest.raises(Failure) as failure:
        client.exec(sandbox, "head -c 20000000 /dev/urandom > /var/tmp/more; sleep 1000")
    assert failure.value.status == 507
    client.post(f"/v1/sandboxes/{sandbox}/resume")
    client.exec(sandbox, "rm /var/tmp/big /var/tmp/more")
    wait_for("less to be seen", lambda: written(client, sandbox) < MIB, 90)
    assert client.output(sandbox, "cat hello.txt") == "hello\n"
    assert not any(e["running"] for e in client.get(f"/v1/sandboxes/{sandbox}/execs")["execs"]
                   if e["exec"] == detached)


@pytest.mark.parametrize("whose", ["pool.disk", "disk_budget"])
def test_a_spent_budget_shrinks_the_pool_and_refuses_more(whose):
    hob = Hob(**({"disk_budget": "40MiB"} if whose == "disk_budget" else {}))
    try:
        pool = {"min": 2, "max": 20, **({"disk": "40MiB"} if whose == "pool.disk" else {})}
        client = start(hob, 2, pool=pool)
        sandbox = client.create("app")["id"]
        assert fill(client, sandbox, 50)["exit_code"] == 0
        wait_for("the pool to shrink", lambda: hob.pool("app")["target"] == 0 and hob.pool("app")["ready"] == 0, 90)
        wait_for("all of it to be seen", lambda: written(client, sandbox) >= 50 * MIB, 90)
        explained = client.get("/v1/pool/app/explain")
        assert explained["limited_by"] == whose and whose in explained["why"]
        assert explained["disk_claimed"] >= 50 * MIB
        with pytest.raises(Failure) as failure:
            client.create("app")
        assert failure.value.status == 503 and "over_limit" in str(failure.value) and whose in str(failure.value)
        assert client.output(sandbox, "cat hello.txt") == "hello\n", "what is claimed goes on"
        client.exec(sandbox, "rm /var/tmp/big")
        hob.wait_ready("app", 2, 90)
        assert client.get("/v1/pool/app/explain")["limited_by"] is None
    finally:
        hob.close()


def test_moving_folders_about_escapes_nothing(machine):
    """Deep folders that change places while they are counted cost tries, not the limit."""
    client = start(machine, limits={"disk": "20MiB"})
    sandbox = client.create("app")["id"]
    script = ("mkdir -p /var/tmp/a /var/tmp/b; cd /var/tmp/a; i=0; while [ $i -lt 100 ]; do mkdir d; cd d; i=$((i+1)); "
              "done; head -c 40000000 /dev/urandom > big; cd /var/tmp; "
              "while :; do mv a/d b/d; mv b/d a/d; done")
    ended = []

    def run():
        try:
            client.exec(sandbox, script)
        except Failure as failure:
            ended.append(failure.status)
    worker = threading.Thread(target=run)
    worker.start()
    worker.join(timeout=120)
    assert ended == [507]
    client.delete(sandbox)
