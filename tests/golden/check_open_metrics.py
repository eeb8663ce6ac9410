"""Reads drift_metrics.prom with Prometheus' own parsers (pip install prometheus_client) and compares every sample with
drift_report.json.

    check_open_metrics.py [FILE.prom REPORT.json]
"""
import json
import pathlib
import sys

from prometheus_client.openmetrics.parser import text_string_to_metric_families as open_metrics
from prometheus_client.parser import text_string_to_metric_families as prometheus

here = pathlib.Path(__file__).parent
text = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else here / "drift_metrics.prom").read_text()
report = json.loads(pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else here / "drift_report.json").read_text())
drift = report["drift"]


def samples(parse):
    return {(s.name, tuple(sorted(s.labels.items()))): s.value for family in parse(text) for s in family.samples}


found = samples(open_metrics)
assert found == samples(prometheus), "the two formats read it differently"
whose = {"recipe": report["name"]}
expected = {}


def expect(name, labels, value):
    expected[name, tuple(sorted((whose | labels).items()))] = float(value)


expect("retort_drift_alarm", {}, drift["decision"]["alarm"])
expect("retort_drift_checked_timestamp_seconds", {}, report["checked_at"])
expect("retort_drift_average_run_length", {}, drift["average_run_length"])
expect("retort_drift_canary_kl", {}, drift["canaries"]["kl_mean"])
slot = drift["slots"][-1]
expect("retort_drift_level", {}, slot["level"])
expect("retort_drift_rows", {}, slot["rows"])
for signal in slot["signals"]:
    labels = {key: signal[key] for key in ("signal", "detector")}
    for name, key in (("mean", "mean"), ("effect", "effect"), ("limit", "limit"), ("p_value", "p_adjusted"), ("alarm", "alarm")):
        if key in signal:
            expect("retort_drift_signal_" + name, labels, signal[key])
assert found == expected, (found.items() ^ expected.items())
print(f"{len(found)} samples, as the report has them")
