"""What other packages compute of the same texts and probabilities: the evaluators' figures must agree.

    make_evaluators.py [OUT]    # needs transformers, rouge_score, nltk, scikit-learn, scipy, numpy

OUT (default evaluators.json beside this file): for pairs of texts SQuAD's normalized text, exact match and F1
(transformers' copy of the official script), rouge_score's rougeL without a stemmer, and n-grams of words (nltk); for made-up
log-probabilities of choices Brier score and log loss (scikit-learn), the temperature of least log loss (scipy), and the
expected calibration error in 15 bins (lo, hi] by numpy; for made-up tokens the bootstrapped standard error of perplexity
(scipy).
"""
import json
import pathlib
import sys
import warnings

import numpy as np
from nltk.util import ngrams
from rouge_score import rouge_scorer
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax
from scipy.stats import bootstrap
from sklearn.metrics import brier_score_loss, log_loss

warnings.filterwarnings("ignore")
from transformers.data.metrics.squad_metrics import compute_exact, compute_f1, normalize_answer  # noqa: E402

out = pathlib.Path(sys.argv[1]) if len(sys.argv) > 1 else pathlib.Path(__file__).with_name("evaluators.json")

TEXTS = [
    ("The capital of France is Paris.", "Paris"),
    ("  the  Paris ", "paris!"),
    ("A device that turns bits into tones and back", "A modem turns bits into tones, and tones into bits."),
    ("an apple a day keeps the doctor away", "An Apple a Day"),
    ("", "something"),
    ("the", "a"),
    ("...", "!!!"),
    ("Über die Brücke, ÉCOLE naïve", "über DIE brücke école NAÏVE"),
    ("state-of-the-art", "stateoftheart"),
    ("the cat the cat the cat sat", "the cat sat sat"),
    ("1,024 bytes is 2^10", "1024 bytes"),
    ("Анна пошла домой", "анна Пошла в дом"),
    ("theatre a–the–b a\u00a0non-breaking\u2007space", "theatre b nonbreaking space"),
    ("no no no no no no no no", "no"),
    ("to be or not to be that is the question to be or not", "to be or not to be"),
]
scorer = rouge_scorer.RougeScorer(["rougeL"], use_stemmer=False)
texts = []
for answer, expected in TEXTS:
    words = answer.split()
    grams = {str(n): [sum(1 for _ in ngrams(words, n)), len(set(ngrams(words, n)))] for n in (1, 2, 4)}
    texts.append(dict(answer=answer, expected=expected, normalized=normalize_answer(answer),
                      exact=compute_exact(expected, answer), f1=compute_f1(expected, answer),
                      rouge_l=scorer.score(expected, answer)["rougeL"].fmeasure, ngrams=grams))

rng = np.random.default_rng(7)
ROWS, CHOICES = 200, 4
logits = np.round(rng.normal(0, 2.5, (ROWS, CHOICES)) - 20, 4)
# Labels from the same logits at temperature 2: the model is overconfident.
labels = np.array([rng.choice(CHOICES, p=softmax(row / 2)) for row in logits])


def ece(probabilities, labels):
    confidence, right = probabilities.max(1), probabilities.argmax(1) == labels
    error = 0.0
    for low in np.linspace(0, 1, 16)[:-1]:
        inside = (confidence > low) & (confidence <= low + 1 / 15)
        if inside.any():
            error += inside.mean() * abs(confidence[inside].mean() - right[inside].mean())
    return error


p = softmax(logits, 1)
fit, measure = slice(0, None, 2), slice(1, None, 2)


def loss(temperature, half):
    return -log_softmax(logits[half] / temperature, 1)[np.arange(len(labels[half])), labels[half]].mean()


best = minimize_scalar(lambda t: loss(np.exp(t), fit), bounds=(-4, 4), method="bounded", options=dict(xatol=1e-10))
temperature = float(np.exp(best.x))
replicates = []
for _ in range(4000):
    chosen = rng.integers(0, ROWS, ROWS)
    replicates.append(ece(p[chosen], labels[chosen]))
calibration = dict(
    log_probabilities=logits.tolist(), labels=labels.tolist(), ece=ece(p, labels), ece_stderr=float(np.std(replicates, ddof=1)),
    ece_interval=np.quantile(replicates, [0.025, 0.975]).tolist(), accuracy=float((p.argmax(1) == labels).mean()),
    brier=float(brier_score_loss(labels, p, labels=np.arange(CHOICES), scale_by_half=False)),
    brier_stderr=float(((p - np.eye(CHOICES)[labels]) ** 2).sum(1).std(ddof=1) / np.sqrt(ROWS)),
    log_loss=float(log_loss(labels, p, labels=np.arange(CHOICES))), temperature=temperature,
    ece_before=ece(p[measure], labels[measure]), ece_after=ece(softmax(logits[measure] / temperature, 1), labels[measure]),
    log_loss_before=float(loss(1, measure)), log_loss_after=float(loss(temperature, measure)))

lengths = rng.integers(1, 9, 60)
rows = [np.round(-rng.gamma(2.0, 0.8, n) - 0.3 * (n > 4), 4).tolist() for n in lengths]
sums, sizes = np.array([-sum(r) for r in rows]), lengths


def perplexity(i):
    return float(np.exp(sums[i].sum() / sizes[i].sum()))


errors = bootstrap((np.arange(60),), perplexity, vectorized=False, n_resamples=20000, rng=rng, method="percentile")
json.dump(dict(texts=texts, calibration=calibration,
               perplexity=dict(targets=rows, value=perplexity(np.arange(60)), stderr=float(errors.standard_error))),
          out.open("w"), separators=(",", ":"), ensure_ascii=False)
