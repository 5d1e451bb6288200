"""The forecast at work in a real hobd: claims raise the target, budgets lower it, a restart forgets
nothing, and what is counted can be read."""

import json
import os
import pty
import select
import signal
import subprocess
import termios
import time

import pytest
from prometheus_client.parser import text_string_to_metric_families

from hobtest import Failure, Hob, wait_for


@pytest.fixture
def foreseeing():
    made = []

    def make(**settings):
        made.append(Hob(**{"hit_rate": 0.95, **settings}))
        return made[-1]
    yield make
    for machine in made:
        machine.close()


def start(machine, name="app", least=0, most=20, **pool):
    repository = machine.repository(name)
    machine.environment(name, source={"url": repository.path}, pool={"min": least, "max": most, **pool})
    machine.build(name)


def claim(machine, name="app"):
    answer = machine.client.create(name)
    machine.client.delete(answer["id"])
    return answer["source"]


def metrics(machine):
    answer = machine.client.raw("GET", "/metrics")
    assert answer.status == 200
    return list(text_string_to_metric_families(answer.body.decode()))


def test_claims_raise_the_target_and_unused_ones_cost_nothing(foreseeing):
    machine = foreseeing()
    start(machine, "app")
    start(machine, "unused")
    machine.start()
    assert machine.pool("app")["target"] == 0
    assert claim(machine) == "cold"
    wait_for("a target", lambda: machine.pool("app")["target"] > 0)
    wait_for("a ready one", lambda: machine.pool("app")["ready"] > 0)
    for _ in range(5):
        wait_for("a ready one", lambda: machine.pool("app")["ready"] > 0)
        assert claim(machine) == "warm"
    pool = machine.pool("unused")
    assert (pool["target"], pool["ready"], pool["warming"]) == (0, 0, 0)
    pool = machine.pool("app")
    assert 0 < pool["target"] <= 20 and pool["forecast"] == pool["target"]


def test_the_target_stays_within_min_and_max(foreseeing):
    machine = foreseeing()
    start(machine, "app", 1, 2)
    machine.start()
    machine.wait_ready("app", 1)
    for _ in range(30):
        claim(machine)
        assert 1 <= machine.pool("app")["target"] <= 2


def test_a_restart_remembers(foreseeing):
    machine = foreseeing()
    start(machine)
    machine.start()
    for _ in range(10):
        claim(machine)
    before = machine.client.get("/v1/pool/app/explain")
    machine.kill(15)
    machine.start()
    after = wait_for("what it knew", lambda: machine.client.get("/v1/pool/app/explain"))
    assert (before["claims"], after["claims"]) == (10, 10)
    assert machine.pool("app")["target"] > 0
    machine.kill(15)
    path = f"{machine.store}/forecasts/app"
    with open(path, "r+b") as file:
        file.seek(200)
        file.write(b"?")
    machine.start()
    assert "forecast.unusable" in machine.log()
    assert machine.client.get("/v1/pool/app/explain")["claims"] == 0
    assert claim(machine) in ("cold", "warm")


def test_a_budget_of_memory_is_kept(foreseeing):
    machine = foreseeing(memory_budget="1MiB")
    start(machine)
    machine.start()
    for _ in range(20):
        claim(machine)
    explained = machine.client.get("/v1/pool/app/explain")
    # They are small: what one takes was measured when the first was warm.
    assert explained["target"] * explained["bytes_each"] <= 1 << 20
    if explained["forecast"] > explained["target"]:
        assert explained["limited_by"] == "memory_budget"
        assert "memory_budget" in explained["why"]


def test_memory_is_given_back_before_any_goes(foreseeing):
    """Three that take some 30 MB each in a budget for one: all three stay, frozen and paged out."""
    machine = foreseeing(hit_rate=0, page_out="always", freeze_after="1h", page_out_after="1h")
    repository = machine.repository("app")
    machine.environment("app", source={"url": repository.path}, pool={"min": 3, "max": 3, "memory": "45MiB"},
                        prime={"run": "head -c 30000000 /dev/urandom > /srv/big && sync /srv/big"})
    machine.build("app")
    client = machine.start().client
    wait_for("all to give their memory back", lambda: {
        metric.name: metric.samples[0].value for metric in metrics(machine)}["hob_page_outs"] >= 3)
    explained = client.get("/v1/pool/app/explain")
    assert explained["squeezed"] and "paged out" in explained["why"]
    assert explained["bytes_each"] > 20_000_000 > 3 * explained["bytes_each_squeezed"]
    pool = machine.pool("app")
    assert (pool["target"], pool["ready"], pool["freezes"], pool["wasted_s"]) == (3, 3, 3, 0)
    assert "more than the target" not in machine.log()
    box = client.create("app")
    assert box["source"] == "warm" and client.output(box["id"], "wc -c < /srv/big") == "30000000\n"


def test_explain_says_why(foreseeing):
    machine = foreseeing()
    start(machine)
    machine.start()
    for _ in range(3):
        claim(machine)
    explained = machine.client.get("/v1/pool/app/explain")
    assert {base["name"] for base in explained["bases"]} == {"1m", "10m", "1h", "6h", "season"}
    assert abs(sum(base["weight"] for base in explained["bases"]) - 1) < 1e-6
    mixed = sum(base["weight"] * base["per_hour"] for base in explained["bases"])
    assert abs(mixed - explained["per_hour"]) < 1e-6 * max(1, mixed)
    assert sum(line["kept"] for line in explained["worth"]) == explained["target"]
    done = machine.hob("pool", "explain", "app")
    now = machine.client.get("/v1/pool/app/explain")
    assert done.returncode == 0 and any(f"target {one['target']}." in done.stdout for one in (explained, now))
    assert "CLAIMS BY" in done.stdout and "HITS A DAY" in done.stdout
    assert json.loads(machine.hob("pool", "explain", "app", "--json").stdout)["environment"] == "app"
    assert machine.hob("pool", "explain", "nope").returncode != 0
    with pytest.raises(Failure):
        machine.client.get("/v1/pool/nope/explain")


def test_no_forecast_when_told_so(foreseeing):
    machine = foreseeing()
    start(machine, least=1, hit_rate=0)
    machine.start()
    for _ in range(5):
        machine.wait_ready("app", 1)
        claim(machine)
    assert machine.pool("app")["target"] == 1 and machine.pool("app")["forecast"] is None
    assert "no forecast" in machine.client.get("/v1/pool/app/explain")["why"]


def test_metrics_are_what_a_parser_reads(foreseeing):
    machine = foreseeing()
    start(machine)
    machine.start()
    for _ in range(4):
        claim(machine)
    families = {family.name: family for family in metrics(machine)}
    assert all(family.documentation and family.type != "unknown" for family in families.values())
    assert len(families) >= 20 and all(name.startswith("hob_") for name in families)

    def value(name, **labels):
        return next(sample.value for family in families.values() for sample in family.samples
                    if sample.name == name and labels.items() <= sample.labels.items())
    pool = machine.pool("app")
    assert value("hob_hits_total", environment="app") == pool["hits"]
    assert value("hob_misses_total", environment="app", reason="empty") == pool["misses"].get("empty", 0)
    assert value("hob_claim_seconds_count", environment="app") == 4
    buckets = [sample.value for sample in families["hob_claim_seconds"].samples
               if sample.name.endswith("_bucket")]
    assert buckets == sorted(buckets) and buckets[-1] == 4
    assert value("hob_claim_seconds_sum", environment="app") > 0
    assert value("hob_loop_turn_seconds_count") > 0
    assert value("hob_loop_turn_seconds_bucket", le="+Inf") == value("hob_loop_turn_seconds_count")
    machine.client.post("/v1/warm", {"environment": "app", "key": "k"})
    machine.client.delete(machine.client.create("app", key="k")["id"])
    machine.client.post("/v1/environments/app/build")
    wait_for("a build", lambda: [sample.value for family in metrics(machine) for sample in family.samples
                                 if sample.name == "hob_builds_total" and
                                 sample.labels["outcome"] == "unchanged"] == [1.0])
    families = {family.name: family for family in metrics(machine)}
    assert value("hob_hint_to_claim_seconds_count", environment="app") == 1
    assert value("hob_hint_claims_total", environment="app") == 1


def test_top_shows_who_works_and_leaves_the_terminal_as_it_was(foreseeing):
    machine = foreseeing()
    start(machine)
    machine.start()
    busy = machine.client.create("app")["id"]
    machine.client.post(f"/v1/sandboxes/{busy}/exec",
                        {"shell": "while :; do :; done", "detach": True})
    answer = wait_for("a share of the processor", lambda: next(
        (box for box in json.loads(machine.hob("top", "--once", "--json").stdout)["sandboxes"]
         if box.get("cpu_percent", 0) > 5), None))
    assert answer["id"] == busy and answer["usage"]["pids"] >= 1
    text = machine.hob("top", "--once", "--sort", "memory").stdout
    assert busy in text and "CLAIMS/H" in text
    assert machine.hob("top", "--sort", "colour").returncode != 0
    for end in (lambda child, main: os.write(main, b"mq"), lambda child, main: child.send_signal(signal.SIGTERM)):
        main, terminal = pty.openpty()
        before = termios.tcgetattr(terminal)
        child = subprocess.Popen([machine.program("hob"), "--config", machine.config, "top"], stdin=terminal,
                                 stdout=terminal, env=machine.environ({"TERM": "xterm"}))
        shown = b""
        limit = time.monotonic() + 120
        while busy.encode() not in shown and time.monotonic() < limit:
            if select.select([main], [], [], 1)[0]:
                shown += os.read(main, 65536)
        assert busy.encode() in shown and b"\033[?1049h" in shown
        assert termios.tcgetattr(terminal)[3] & termios.ICANON == 0
        end(child, main)
        assert child.wait(120) == 0
        while b"\033[?1049l" not in shown:  # all of it is there, in one piece or more
            assert select.select([main], [], [], 0)[0], shown
            shown += os.read(main, 65536)
        assert termios.tcgetattr(terminal) == before
        os.close(main)
        os.close(terminal)
