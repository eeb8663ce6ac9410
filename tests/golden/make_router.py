"""Logistic and isotonic regression by scikit-learn: router.json.

    python make_router.py        # scikit-learn 1.9.1
"""

import json
import math
import pathlib

import numpy as np
from sklearn.isotonic import IsotonicRegression
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

GOLDEN = (math.sqrt(5) - 1) / 2


def main():
    # Without a random generator: fractional parts of multiples of irrational numbers.
    rows, labels = [], []
    for i in range(1, 121):
        a, b, c, u = ((i * step) % 1 for step in (GOLDEN, math.sqrt(2), math.sqrt(3), math.sqrt(7)))
        rows.append([10 * a, b - 3, 100 * c * c])
        labels.append(float(u < 1 / (1 + math.exp(-(0.6 * (10 * a - 5) - 2 * (b - 0.5))))))
    out = {"rows": rows, "labels": labels, "logistic": []}
    x, y = np.array(rows), np.array(labels)
    scaler = StandardScaler().fit(x)
    for ridge in (0.01, 1.0, 20.0):
        model = LogisticRegression(C=1 / ridge, solver="newton-cholesky", tol=1e-12, max_iter=1000)
        model.fit(scaler.transform(x), y)
        out["logistic"].append({"ridge": ridge, "coefficients": model.coef_[0].tolist(),
                                "intercept": float(model.intercept_[0]),
                                "probabilities": model.predict_proba(scaler.transform(x))[:10, 1].tolist()})
    out["mean"], out["scale"] = scaler.mean_.tolist(), scaler.scale_.tolist()
    scores = [round((i * GOLDEN) % 1, 2) for i in range(1, 81)]  # some are equal
    outcomes = [float((i * math.sqrt(7)) % 1 < 0.2 + 0.6 * s) for i, s in enumerate(scores, 1)]
    fitted = IsotonicRegression(out_of_bounds="clip").fit(scores, outcomes)
    asked = [-0.5, 0.0, 0.015, 0.111, 0.333, 0.5, 0.777, 0.95, 1.0, 2.0] + scores
    out["isotonic"] = {"x": scores, "y": outcomes, "asked": asked, "answered": fitted.predict(asked).tolist()}
    pathlib.Path(__file__).with_name("router.json").write_text(json.dumps(out) + "\n")


main()
