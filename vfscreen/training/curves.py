"""Learning curves of what is wanted: errors of heights and G, and how well G tells fractures."""

from __future__ import annotations

import numpy as np

from vfscreen.evaluation.figures import roc_auc
from vfscreen.measure import MILD, MODERATE, genant_ratio
from vfscreen.volume import Floats


def ratio_figures(heights_mm: Floats, true_mm: Floats) -> dict[str, float]:
    """Mean absolute errors of heights (n, 3) and G, correlation of G, ROC AUC at G <= 0.8 and 0.74."""
    found, true = genant_ratio(heights_mm), genant_ratio(true_mm)
    return {
        "height_mm": float(np.abs(heights_mm - true_mm).mean()),
        "ratio": float(np.abs(found - true).mean()),
        "correlation": float(np.corrcoef(found, true)[0, 1]),
        "auc_mild": roc_auc(-found, true <= MILD),
        "auc_moderate": roc_auc(-found, true <= MODERATE),
    }
