"""Drift statistics of scipy, Evidently and Frouros on inputs without a random generator: drift.json.

The packages do not agree on their numpy, so each has its environment and writes its own part:

    pip install "pandas<3" evidently==0.7.23 scipy==1.17.1 scikit-learn==1.9.1
                                                               python make_drift.py evidently    (also "scipy")
    pip install frouros==0.9.0 scipy==1.14.1                   python make_drift.py frouros

Evidently 0.7.23 does not import with pandas 3. NannyML's Jensen-Shannon distance, the PSI on deciles and Retort's own bins
are written out here from their definitions. `inputs` are golden-ratio sequences, which tests/monitor/detector_test.cpp builds again.
"""
import json
import pathlib
import sys
import warnings

import numpy as np
import scipy.stats as st
from scipy.spatial.distance import cdist, jensenshannon

warnings.filterwarnings("ignore")
OUT = pathlib.Path(__file__).with_name("drift.json")


def inputs():
    phi1, phi2, phi3 = 0.6180339887498949, 0.7548776662466927, 0.5698402909980532
    i = np.arange(1, 501, dtype=float)
    j = np.arange(1, 301, dtype=float)
    return {
        "ref": i * phi1 % 1 * 10,
        "cur": j * phi2 % 1 * 11 + 0.3,
        "cat_ref": np.floor(i * phi1 % 1 * 5).astype(int),
        "cat_cur": np.floor((j * phi2 % 1) ** 1.25 * 5).astype(int),
        "X": np.stack([i[:120] * phi1 % 1, i[:120] * phi2 % 1], 1),
        "Y": np.stack([j[:80] * phi3 % 1 * 1.3, j[:80] * phi1 % 1], 1),
        # Whole numbers, so many ties; skewed, and more of them than Evidently takes for categories.
        "ties_ref": np.floor((i * phi1 % 1) ** 2 * 40),
        "ties_cur": np.floor((j * phi2 % 1) ** 1.8 * 44),
    }


def psi_deciles(ref, cur, bins=10):
    edges = np.quantile(ref, np.linspace(0, 1, bins + 1))[1:-1]
    p = np.bincount(np.searchsorted(edges, ref), minlength=bins) / len(ref)
    q = np.bincount(np.searchsorted(edges, cur), minlength=bins) / len(cur)
    p = np.maximum(p, 1e-6)
    q = np.maximum(q, 0.5 / len(cur))
    return ((p - q) * np.log(p / q)).sum()


def nannyml_js(ref, cur):
    """NannyML 0.13.1, drift/univariate/methods.py: Doane's bins of the reference, base 2, one bin for the rest."""
    edges = np.histogram_bin_edges(ref, bins="doane")
    p = np.histogram(ref, edges)[0] / len(ref)
    q = np.histogram(cur, edges)[0] / len(cur)
    if 1 - q.sum() > 0:
        p, q = np.append(p, 0), np.append(q, 1 - q.sum())
    return jensenshannon(p, q, base=2)


def retort_bins(ref, cur, bins=10):
    """Bins (a, b] that end at the baseline's quantiles; a repeated value that alone fills one is cut off from those below it."""
    edges = set()
    for b in range(1, bins):
        value = np.sort(ref)[-(-len(ref) * b // bins) - 1]
        edges.add(value)
        if (ref == value).sum() > 1 and (ref == value).sum() * bins >= len(ref):
            edges.add(np.nextafter(value, -np.inf))
    edges = sorted(edges)
    counts = [np.bincount(np.searchsorted(edges, x, side="left"), minlength=len(edges) + 1) for x in (ref, cur)]
    used = counts[0] + counts[1] > 0
    return counts[0][used], counts[1][used]


def retort_psi(a, b):
    p, q = np.maximum(a, 0.5) / a.sum(), np.maximum(b, 0.5) / b.sum()
    return ((p - q) * np.log(p / q)).sum()


def classifier_auc(x, y, repeats=200):
    """Mean over shuffles of the mean area of five stratified folds of scikit-learn's logistic regression."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_score
    from sklearn.preprocessing import StandardScaler
    rows, labels = StandardScaler().fit_transform(np.vstack([x, y])), np.repeat([0, 1], [len(x), len(y)])
    return np.mean([cross_val_score(LogisticRegression(C=1), rows, labels, scoring="roc_auc",
                                    cv=StratifiedKFold(5, shuffle=True, random_state=r)) for r in range(repeats)])


def scipy_values(d):
    out = {}
    for name, ref, cur in (("", "ref", "cur"), ("ties_", "ties_ref", "ties_cur")):
        auto, asymptotic = st.ks_2samp(d[ref], d[cur]), st.ks_2samp(d[ref], d[cur], method="asymp")
        out |= {
            name + "ks_d": auto.statistic, name + "ks_p": auto.pvalue, name + "ks_p_asymptotic": asymptotic.pvalue,
            name + "wasserstein": st.wasserstein_distance(d[ref], d[cur]),
            name + "energy": st.energy_distance(d[ref], d[cur]),
            name + "psi_deciles": psi_deciles(d[ref], d[cur]),
            name + "js_nannyml": nannyml_js(d[ref], d[cur]),
        }
        a, b = retort_bins(d[ref], d[cur])
        out |= {name + "psi": retort_psi(a, b), name + "js": jensenshannon(a / a.sum(), b / b.sum()),
                name + "psi_threshold": (1 / a.sum() + 1 / b.sum()) * st.chi2.ppf(0.95, len(a) - 1)}
    chi2 = st.chi2_contingency([np.bincount(d["cat_ref"], minlength=5), np.bincount(d["cat_cur"], minlength=5)])
    out |= {"chi2": chi2[0], "chi2_p": chi2[1], "domain_classifier": classifier_auc(d["X"], d["Y"])}
    # Kolmogorov-Smirnov p-values where the two-sample law and each form of the one-sample law are used: first rows of
    # two sequences against the others.
    u = np.arange(1, 40001) * 0.6180339887498949 % 1
    out["ks_sizes"] = []
    for n, m, power in ((30, 30, 1.3), (300, 300, 1.2), (200, 77, 1.5), (3000, 1000, 1.1), (10000, 9999, 1.05),
                        (11000, 40, 1.6), (11000, 40, 1.3), (11000, 120, 1.2), (20000, 500, 1.2), (20000, 500, 1.05),
                        (20000, 20000, 1.02), (20000, 20000, 1.03), (20000, 20000, 1.3), (20000, 300, 2.0)):
        result = st.ks_2samp(u[:n], (np.arange(1, m + 1) * 0.7548776662466927 % 1) ** power)
        out["ks_sizes"].append({"n": n, "m": m, "power": power, "d": result.statistic, "p": result.pvalue})
    # MMD^2, unbiased, with Alibi Detect's bandwidth: its sigma^2 is half a quantile of the reference's squared distances.
    x, y = d["X"], d["Y"]
    n, m = len(x), len(y)
    sigma2 = 0.5 * np.sort(cdist(x, x, "sqeuclidean").ravel())[n + (n * n - n) // 2 - 1]
    k = np.exp(-cdist(np.vstack([x, y]), np.vstack([x, y]), "sqeuclidean") / (2 * sigma2))
    np.fill_diagonal(k, 0)
    out["mmd2_gamma"] = 1 / (2 * sigma2)
    out["mmd2"] = k[:n, :n].sum() / (n * (n - 1)) + k[n:, n:].sum() / (m * (m - 1)) - 2 * k[n:, :n].mean()
    p = np.array([0.01, 0.04, 0.03, 0.005, 0.2, 0.03, 1.0])
    out["bh_p"] = list(p)
    out["bh_adjusted"] = list(st.false_discovery_control(p))
    return out


def evidently_values(d):
    import pandas as pd
    from evidently.legacy.calculations import stattests as tests
    from evidently.legacy.core import ColumnType
    from evidently.legacy.metrics.data_drift.embedding_drift_methods import mmd

    def score(test, ref, cur, kind):
        return test(pd.Series(d[ref]), pd.Series(d[cur]), kind, None).drift_score

    out = {}
    for name, test in (("psi", tests.psi_stat_test), ("js", tests.jensenshannon_stat_test),
                       ("wasserstein", tests.wasserstein_stat_test), ("ks_p", tests.ks_stat_test)):
        out[name] = score(test, "ref", "cur", ColumnType.Numerical)
        out["ties_" + name] = score(test, "ties_ref", "ties_cur", ColumnType.Numerical)
    for name, test in (("psi", tests.psi_stat_test), ("js", tests.jensenshannon_stat_test)):
        out["categories_" + name] = score(test, "cat_ref", "cat_cur", ColumnType.Categorical)
    out["mmd2"] = mmd()(pd.DataFrame(d["Y"]), pd.DataFrame(d["X"]))[0]
    return out


def frouros_values(d):
    from frouros.detectors.data_drift import EMD, JS, MMD, PSI, EnergyDistance

    def distance(detector, ref, cur):
        detector.fit(X=d[ref])
        return detector.compare(X=d[cur])[0].distance

    out = {name: distance(detector(), "ref", "cur")
           for name, detector in (("psi", PSI), ("js", JS), ("wasserstein", EMD), ("energy", EnergyDistance))}
    out |= {"ties_" + name: distance(detector(), "ties_ref", "ties_cur") for name, detector in (("psi", PSI), ("js", JS))}
    out["mmd2"] = distance(MMD(), "X", "Y")
    return out


def plain(value):
    if isinstance(value, dict):
        return {k: plain(v) for k, v in value.items()}
    if isinstance(value, list):
        return [plain(v) for v in value]
    return int(value) if isinstance(value, int) else float(value)


golden = json.loads(OUT.read_text()) if OUT.exists() else {}
data = inputs()
if sys.argv[1:] == ["evidently"]:
    golden |= {"scipy": plain(scipy_values(data)), "evidently": plain(evidently_values(data))}
elif sys.argv[1:] == ["frouros"]:
    golden |= {"frouros": plain(frouros_values(data))}
else:
    sys.exit(__doc__)
OUT.write_text(json.dumps(golden, indent=1) + "\n")
