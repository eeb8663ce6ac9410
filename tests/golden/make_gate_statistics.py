"""Statistics of paired outcomes by scipy and statsmodels: gate_statistics.json.

    python make_gate_statistics.py        # scipy 1.17.1, statsmodels 0.15.0

Tango's score takes its nuisance parameter from a numerical maximisation, and the exact p-value is a sum over every
table of the trinomial on a fine grid of the nuisance parameter: neither uses the closed forms of the program.
"""

import json
import math
import pathlib

import numpy as np
from scipy import optimize, stats
from statsmodels.stats.contingency_tables import mcnemar
from statsmodels.stats.multitest import multipletests
from statsmodels.stats.proportion import proportion_confint


def score(gains, losses, n, delta):
    low, high = max(0.0, -delta), (1 - delta) / 2

    def negative_log_likelihood(loss):
        gain, rest = loss + delta, 1 - 2 * loss - delta
        terms = [(gains, gain), (losses, loss), (n - gains - losses, rest)]
        return -sum(k * math.log(max(p, 1e-300)) for k, p in terms if k > 0)

    found = optimize.minimize_scalar(negative_log_likelihood, bounds=(low, high), method="bounded",
                                     options={"xatol": 1e-12, "maxiter": 2000})
    candidates = [found.x, low, high]
    loss = min(candidates, key=negative_log_likelihood)
    variance = 2 * loss + delta - delta * delta
    return ((gains - losses) / n - delta) / math.sqrt(variance / n) if variance > 1e-15 else 0.0


def exact(gains, losses, n, delta):
    observed = score(gains, losses, n, delta)
    table = [(g, l) for l in range(n + 1) for g in range(n + 1 - l) if score(g, l, n, delta) >= observed - 1e-6]
    g, l = np.array([t[0] for t in table]), np.array([t[1] for t in table])
    low, high = max(0.0, -delta), (1 - delta) / 2
    best = 0.0
    for loss in low + (high - low) * np.linspace(0, 1, 2001) ** 2:
        p = np.array([loss + delta, loss, 1 - 2 * loss - delta]).clip(0)
        best = max(best, stats.multinomial.pmf(np.stack([g, l, n - g - l], -1), n, p / p.sum()).sum())
    return best


def main():
    out = {"mcnemar": [], "score": [], "exact": [], "clopper_pearson": [], "holm": [], "bootstrap": []}
    for gains, losses, n in [(0, 0, 10), (3, 10, 50), (7, 7, 30), (1, 0, 44), (25, 12, 400), (120, 160, 2000)]:
        p = mcnemar([[0, gains], [losses, 0]], exact=True).pvalue if gains + losses else 1.0
        out["mcnemar"].append([gains, losses, n, float(p)])
        for delta in (-0.1, -0.02, 0.05):
            out["score"].append([gains, losses, n, delta, score(gains, losses, n, delta)])
    for gains, losses, n, delta in [(2, 3, 20, -0.1), (0, 0, 30, -0.1), (5, 1, 25, -0.02), (4, 4, 40, -0.15),
                                    (6, 1, 20, 0.05), (1, 4, 30, -0.05)]:
        out["exact"].append([gains, losses, n, delta, float(exact(gains, losses, n, delta))])
    for k, n, alpha in [(0, 20, 0.05), (20, 20, 0.05), (17, 23, 0.05), (880, 1000, 0.01)]:
        low, high = proportion_confint(k, n, alpha=2 * alpha, method="beta")
        out["clopper_pearson"].append([k, n, alpha, float(np.nan_to_num(low)), float(high)])
    p = [0.01, 0.04, 0.03, 0.005, 0.2, 0.9]
    out["holm"] = {"p": p, "adjusted": multipletests(p, method="holm")[1].tolist()}
    # Without a random generator: the fractional parts of multiples of the golden ratio.
    golden = (math.sqrt(5) - 1) / 2
    for name, n, turn in [("symmetric", 60, lambda u: u - 0.48), ("skewed", 40, lambda u: -math.log(1 - u) - 0.8)]:
        sample = [turn((i * golden) % 1) for i in range(1, n + 1)]
        case = {"name": name, "differences": sample, "bounds": []}
        for alpha in (0.05, 0.01):
            found = stats.bootstrap((np.array(sample),), np.mean, vectorized=True, n_resamples=400000, batch=20000,
                                    confidence_level=1 - 2 * alpha, method="BCa", rng=np.random.default_rng(1))
            low, high = found.confidence_interval
            case["bounds"].append([alpha, float(low), float(high)])
        out["bootstrap"].append(case)
    path = pathlib.Path(__file__).with_name("gate_statistics.json")
    path.write_text(json.dumps(out, indent=1) + "\n")


main()
