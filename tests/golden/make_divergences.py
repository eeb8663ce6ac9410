"""Losses between a teacher and a student, for trainer/divergence.h: writes divergences.json beside this file.

Plain Python floats on the fixture of torchtune's tests/torchtune/modules/loss/test_kd_losses.py (BSD-3-Clause): 8 positions,
4 tokens, logits. torchtune asserts three of these values itself, which are checked here: the cross-entropy form of the
forward KL, the reverse KL, and their mean. A value is the mean over the positions in nats, without T²; its gradient, by the
student's logits, is taken by central differences.
"""
import json
import pathlib
from math import exp, log

STUDENT = [
    [1.1250, -0.4102, -0.0879, -2.5000], [0.2676, 0.3535, 0.8711, -1.4688],
    [-0.1084, 1.6641, 0.0084, 0.1196], [0.5000, -0.6406, -0.2236, -1.5938],
    [-1.5312, -1.9219, 0.0, -0.5039], [-1.5391, 1.5312, 0.5820, 0.2695],
    [-0.3887, 1.2188, 0.0, 0.6055], [0.5, 1.3828, 0.1309, -1.0312],
]
TEACHER = [
    [-0.0381, -1.2578, -1.2031, 0.0947], [-0.7852, 0.4492, 1.5547, 0.0972],
    [0.8203, 0.0012, 0.7656, 0.3477], [-1.5781, 0.4297, 0.5977, 0.3926],
    [1.5156, 0.1641, 2.0781, -0.7734], [-0.5898, 0.4453, -0.7969, 0.6328],
    [0.6289, -0.8359, 0.9258, 0.2109], [0.0006, 0.5195, 3.2344, -1.5781],
]


def log_softmax(z, t=1.0):
    z = [x / t for x in z]
    top = max(z)
    total = top + log(sum(exp(x - top) for x in z))
    return [x - total for x in z]


# p and q are log-probabilities of teacher and student; -inf is a cell without mass.
def kl(a, b):
    return sum(exp(x) * (x - y) for x, y in zip(a, b) if x > -1e9)


def mix(a, b, w):
    return [log(w * exp(x) + (1 - w) * exp(y)) for x, y in zip(a, b)]


def jsd(p, q, beta):
    if beta in (0, 1):
        return kl(q, p) if beta else kl(p, q)
    m = mix(p, q, beta)
    return beta * kl(p, m) + (1 - beta) * kl(q, m)


def ranks(p, q):
    return sum(abs(exp(x) - exp(y)) for x, y in zip(sorted(p), sorted(q)))


def taid(p, q, t, frozen):
    return kl(log_softmax([(1 - t) * y + t * x for x, y in zip(p, frozen)]), q)


LOSSES = {
    "forward_kl": lambda p, q, _, frozen: kl(p, q),
    "reverse_kl": lambda p, q, _, frozen: kl(q, p),
    "jsd": lambda p, q, beta, frozen: jsd(p, q, beta),
    "skew_kl": lambda p, q, w, frozen: kl(p, mix(p, q, w)),
    "skew_reverse_kl": lambda p, q, w, frozen: kl(q, mix(p, q, 1 - w)),
    "tvd": lambda p, q, _, frozen: .5 * sum(abs(exp(x) - exp(y)) for x, y in zip(p, q)),
    "uld": lambda p, q, _, frozen: ranks(p, q),
    "taid": taid,
}


def merged(p, ids, cells, zero=False):
    """Log-probabilities of a partition: the tokens of `ids`, then the cells without them."""
    named = [p[j] for j in ids]
    if zero:  # the student's cell keeps its mass, the teacher's has none
        total = log(sum(exp(x) for x in named))
        return [x - total for x in named] + [-float("inf")]
    masses = [sum(exp(p[j]) for j in cell if j not in ids) for cell in cells]
    return named + [log(m) if m > 0 else -float("inf") for m in masses]


def loss(name, parameter, temperature, targets, student, frozen):
    total = 0
    for z_t, z_s, z_f in zip(TEACHER, student, frozen):
        p, q, f = (log_softmax(z, temperature) for z in (z_t, z_s, z_f))
        if targets != "dense":
            ids = sorted(range(4), key=lambda j: -p[j])[:1 if targets == "cells" else 2]
            cells = [[0, 3], [1, 2]] if targets == "cells" else [range(4)]
            p = merged(p, ids, cells, targets == "zero")
            q, f = merged(q, ids, cells), merged(f, ids, cells)
            keep = [i for i in range(len(p)) if q[i] > -1e9]
            p, q, f = ([x[i] for i in keep] for x in (p, q, f))
        total += LOSSES[name](p, q, parameter, f)
    return total / len(student)


def gradient(*case):
    h, out = 1e-6, []
    for r in range(len(STUDENT)):
        out.append([])
        for j in range(4):
            sides = []
            for sign in (1, -1):
                moved = [row[:] for row in STUDENT]
                moved[r][j] += sign * h
                sides.append(loss(*case, moved, STUDENT))
            out[r].append((sides[0] - sides[1]) / (2 * h))
    return out


CASES = [("forward_kl", 0, 1), ("forward_kl", 0, 2), ("reverse_kl", 0, 1), ("reverse_kl", 0, 2), ("jsd", .5, 1),
         ("jsd", .1, 1), ("jsd", .9, 1), ("jsd", .01, 1), ("jsd", 0, 1), ("jsd", 1, 1), ("jsd", .5, 4), ("skew_kl", .1, 1),
         ("skew_reverse_kl", .1, 1), ("tvd", 0, 1), ("tvd", 0, 2), ("taid", .4, 1), ("taid", .4, 2), ("uld", 0, 1),
         ("uld", 0, 2)]
cases = []
for targets in ("dense", "ghost", "cells", "zero"):
    for name, parameter, temperature in CASES:
        if name == "uld" and targets != "dense" or targets == "zero" and (name, parameter) != ("forward_kl", 0):
            continue
        case = (name, parameter, temperature, targets)
        cases.append({"loss": name, "parameter": parameter, "temperature": temperature, "targets": targets,
                      "value": loss(*case, STUDENT, STUDENT), "gradient": gradient(*case)})

entropy = sum(-sum(exp(x) * x for x in log_softmax(z)) for z in TEACHER) / len(TEACHER)
forward, reverse = (next(c["value"] for c in cases if c["loss"] == name) for name in ("forward_kl", "reverse_kl"))
for got, torchtune in ((forward + entropy, 1.7209), (reverse, .6775), ((forward + entropy + reverse) / 2, 1.1992)):
    assert abs(got - torchtune) < 1e-4, (got, torchtune)
pathlib.Path(__file__).with_name("divergences.json").write_text(
    json.dumps({"student": STUDENT, "teacher": TEACHER, "cases": cases}) + "\n")
