"""Rules, alerts, dashboard and metrics, against a real Prometheus that scrapes a real node."""

import concurrent.futures
import json
import pathlib
import re
import tempfile
import time
import urllib.parse

import yaml
from prometheus_client.openmetrics.parser import text_string_to_metric_families

import promql
from support import DEPLOY, Origin, ask, eventually, free_port, node, process, run, site

RULES = DEPLOY / "prometheus/larder.rules.yml"
# Metrics that the contract names, `larder_` apart.
PROMISED = """requests_total response_bytes_total request_duration_seconds_bucket ttfb_seconds_bucket connections
origin_requests_total origin_duration_seconds_bucket origin_up origin_requests_in_flight origin_queue origin_bytes_total
store_bytes store_objects store_capacity_bytes store_evictions_total store_writes_total store_errors_total index_bytes
compress_jobs_total compress_seconds_total purges_total purge_duration_seconds_bucket purge_log_entries warm_urls_total
collapse_followers tls_handshakes_total certificate_not_after_timestamp_seconds config_reloads_total
config_last_reload_success config_last_reload_timestamp_seconds saturation_ratio build_info""".split()


def rules_are_valid():
    run("promtool", "check", "rules", RULES)


def rules_pass_their_unit_tests():
    run("promtool", "test", "rules", RULES.with_name("larder.rules.test.yml"), cwd=RULES.parent)


def each_alert_has_a_test_and_a_page_in_the_runbook():
    tests = yaml.safe_load(RULES.with_name("larder.rules.test.yml").read_text())["tests"]
    cases = [case for test in tests for case in test.get("alert_rule_test", [])]
    fired = {case["alertname"] for case in cases if case["exp_alerts"]}
    headings = set(re.findall(r"^## (\w+)$", (DEPLOY / "runbook.md").read_text(), re.MULTILINE))
    alerts = {rule["alert"]: rule for rule in all_rules(RULES.read_text()) if "alert" in rule}
    for name, rule in alerts.items():
        assert name in fired, f"no test fires {name}"
        assert name in headings, f"the runbook has no page on {name}"
        assert rule["annotations"]["runbook"] == f"runbook.md#{name.lower()}", f"{name} points elsewhere"
        assert rule["labels"]["severity"] in ("critical", "warning"), name
    assert not headings - set(alerts), f"the runbook tells of alerts that there are not: {headings - set(alerts)}"


def prometheus_of_the_compose_file_takes_its_configuration():
    run("promtool", "check", "config", DEPLOY / "prometheus/prometheus.yml")


def all_rules(text):
    return [rule for group in yaml.safe_load(text)["groups"] for rule in group["rules"]]


def shortened(text):
    """The same rules on a clock that runs sixty times as fast; windows keep room for a few scrapes."""
    seconds = {"s": 1, "m": 60, "h": 3600, "d": 86400}

    def short(match):
        length = int(match["n"]) * seconds[match["unit"]] * 1000 // 60
        return f"{match['before']}{max(length, 3000 if match['before'] == '[' else 1000)}ms"

    return re.sub(r"(?P<before>\[|for: |offset )(?P<n>\d+)(?P<unit>[smhd])", short, text)


class Prometheus:
    def __init__(self, port):
        self.port = port

    def query(self, expression):
        status, _, body = ask(self.port, "GET", "/api/v1/query?" + urllib.parse.urlencode({"query": expression}))
        assert status == 200, f"{expression}: {body.decode()}"
        return json.loads(body)["data"]["result"]

    def firing(self):
        return {(r["metric"]["alertname"], r["metric"].get("origin")) for r in self.query('ALERTS{alertstate="firing"}')}


def make_certificate(folder):
    run("openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "90",
        "-subj", "/CN=shop.example", "-keyout", folder / "key.pem", "-out", folder / "cert.pem")
    return f'[[certificate]]\ncert = "{folder}/cert.pem"\nkey = "{folder}/key.pem"\n'


def traffic(a_node):
    """Every result that a request can have, and purges."""
    for path in ("/a", "/a", "/stale", "/checked"):
        assert a_node.get(path)[0] == 200
    with concurrent.futures.ThreadPoolExecutor(8) as pool:
        assert {answer[0] for answer in pool.map(a_node.get, ["/slow"] * 8)} == {200}
    time.sleep(1.2)
    assert "hit" in a_node.get("/stale")[1]["cache-status"]
    assert a_node.get("/checked")[0] == 200
    assert ask(a_node.http, "POST", "/form", {"Host": "shop.example"}, b"a=b")[0] == 204
    assert a_node.get("/", "nobody.example")[0] == 421
    for order in ({"urls": ["http://shop.example/gone"], "site": "shop"}, {"site": "shop", "all": True}):
        status, _, body = a_node.call("POST", "/v1/purges", json.dumps(order))
        assert status == 201, body
    a_node.get("/a"), a_node.get("/a")


def is_valid_openmetrics(a_node):
    for port in (a_node.admin, a_node.metrics):
        status, fields, body = ask(port, "GET", "/metrics")
        assert status == 200 and fields["content-type"].startswith("application/openmetrics-text; version=1.0.0")
        families = list(text_string_to_metric_families(body.decode()))
        names = {sample.name for family in families for sample in family.samples}
        missing = {f"larder_{name}" for name in PROMISED} - names
        assert not missing, f"not exported: {missing}"
        assert {"process_cpu_seconds_total", "process_start_time_seconds", "process_open_fds"} <= names
        first = min(float(s.labels["le"]) for f in families for s in f.samples if s.name == "larder_ttfb_seconds_bucket")
        assert first == 50e-6, first
        labels = [value for family in families for s in family.samples for value in s.labels.values()]
        assert not [value for value in labels if "/slow" in value or "nobody.example" in value], "a URL or a Host is a label"


def expressions():
    """(where, expression) of everything that asks Prometheus."""
    for rule in all_rules(RULES.read_text()):
        yield rule.get("alert") or rule["record"], rule["expr"]
    dashboard = json.loads((DEPLOY / "grafana/larder.json").read_text())
    for panel in dashboard["panels"]:
        for target in panel.get("targets", []):
            yield f"panel {panel['title']}", target["expr"]
    for annotation in dashboard["annotations"]["list"]:
        yield f"annotation {annotation['name']}", annotation["expr"]
    for variable in dashboard["templating"]["list"]:
        for selector in re.findall(r"label_values\((.*), (\w+)\)", variable.get("query", "")):
            yield f"variable {variable['name']}", f"sum by ({selector[1]}) ({selector[0]})"


def filled_in(expression):
    for variable, value in {"$__rate_interval": "1m", "$job": "larder", "$instance": ".*", "$site": ".*"}.items():
        expression = expression.replace(variable, value)
    return expression


def unknown(prometheus, expression):
    """What an expression asks for and nobody exports."""
    expression = filled_in(expression)
    prometheus.query(expression)
    selectors, labels = promql.read(expression)
    known = set()
    for selector in selectors:
        series = prometheus.query(f"last_over_time({selector}[10m])" if ":" not in selector else selector)
        if not series:
            yield selector
        known.update(label for one in series for label in one["metric"])
    yield from (f"label {label}" for label in labels - known)


def a_killed_origin_fires_its_alert_and_every_query_asks_for_what_there_is():
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        shop, blog = Origin(), Origin()
        config = '[[listen]]\naddress = "127.0.0.1:0"\n[[listen]]\naddress = "127.0.0.1:0"\ntls = true\n'
        config += '[admin]\naddress = "127.0.0.1:0"\n[metrics]\naddress = "127.0.0.1:0"\n' + make_certificate(folder)
        config += f'[access_log]\noutput = "{folder}/access.log"\n'
        config += site("shop", "shop.example", shop.port) + site("blog", "blog.example", blog.port)
        with node(folder, config) as larder, started_prometheus(folder, larder.metrics) as prometheus:
            traffic(larder)
            larder.get("/", "blog.example")
            is_valid_openmetrics(larder)
            eventually("it is scraped", lambda: prometheus.query('up{job="larder"} == 1'))
            time.sleep(3)
            assert not prometheus.firing(), f"without a fault: {prometheus.firing()}"

            shop.kill()
            eventually("it is noticed", lambda: larder.get(f"/new-{time.monotonic()}")[0] >= 502)
            keep_asking(larder, prometheus)
            alerts = {name for name, _ in prometheus.firing()}
            assert ("LarderOriginDown", "blog") not in prometheus.firing(), "the other origin is well"
            assert alerts <= {"LarderOriginDown", "LarderErrorBudgetBurnsFast", "LarderErrorBudgetBurnsSlowly"}, alerts
            check_queries(prometheus)


def keep_asking(larder, prometheus):
    def fires():
        larder.get(f"/new-{time.monotonic()}")
        return ("LarderOriginDown", "shop") in prometheus.firing()

    eventually("LarderOriginDown fires for shop", fires)


def started_prometheus(folder, target):
    import contextlib

    @contextlib.contextmanager
    def started():
        (folder / "rules.yml").write_text(shortened(RULES.read_text()))
        (folder / "prometheus.yml").write_text(f"""
global: {{ scrape_interval: 500ms, scrape_timeout: 400ms, evaluation_interval: 500ms }}
rule_files: [rules.yml]
scrape_configs:
  - {{ job_name: larder, static_configs: [{{ targets: ["127.0.0.1:{target}"] }}] }}
""")
        run("promtool", "check", "rules", folder / "rules.yml")
        port = free_port()
        flags = [f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/tsdb",
                 f"--web.listen-address=127.0.0.1:{port}"]
        with process("prometheus", *flags) as child:
            def is_ready():
                assert child.poll() is None, child.read_log()
                try:
                    return ask(port, "GET", "/-/ready")[0] == 200
                except OSError:
                    return False

            eventually("Prometheus is ready", is_ready)
            yield Prometheus(port)

    return started()


def check_queries(prometheus):
    wrong = []
    for where, expression in expressions():
        wrong += [f"{where}: {m}" for m in sorted(set(unknown(prometheus, expression)))]
    assert not wrong, "nobody exports " + "; ".join(wrong)
    # The check itself: what does not exist is found.
    for bad in ("larder_no_such_total", 'larder_origin_up{origin="nobody"}', "sum by (nothing) (larder_origin_up)"):
        assert list(unknown(prometheus, bad)), f"{bad} was not noticed"


CHECKS = [
    rules_are_valid,
    rules_pass_their_unit_tests,
    each_alert_has_a_test_and_a_page_in_the_runbook,
    prometheus_of_the_compose_file_takes_its_configuration,
    a_killed_origin_fires_its_alert_and_every_query_asks_for_what_there_is,
]
