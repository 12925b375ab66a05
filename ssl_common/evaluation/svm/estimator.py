"""The paper's SVMs on arrays, as scikit-learn's estimators have it: fit, predict, score."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from ssl_common.evaluation.metrics import average_precision, levels
from ssl_common.evaluation.svm import classifiers
from ssl_common.evaluation.svm.backend import scaled_blocks
from ssl_common.progress import silent


class _Rows:
    """The rows of X, as a solver reads them; ValueError where one is not finite."""

    def __init__(self, x: np.ndarray) -> None:
        self.features = x

    def scale(self) -> np.ndarray:
        """Return 1 / (||x|| + 1e-5) of each row, (N,) float64."""
        return np.concatenate([scale for _rows, scale in self._blocks()])

    def normalised(self) -> Iterator[np.ndarray]:
        """Yield the rows as x / (||x|| + 1e-5), float64, a block at a time."""
        for rows, scale in self._blocks():
            yield rows * scale[:, None]

    def _blocks(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        return scaled_blocks(self.features, lambda row: ValueError("X holds NaN or infinity"))


class LinearSVMs:
    """A linear SVM per class on frozen features, its cost chosen by 3-fold cross-validation.

    As train-svm trains them (see its page), with `random_state` for its --seed. After fit():
    `classes_`, `coef_` (C, D), `intercept_` (C,), `cost_` (C,), and `ap_` (C, K), the mean average
    precision in the folds at each of the K costs, NaN for a class that has none.
    """

    def __init__(
        self,
        solver: classifiers.Solver = "exact",
        random_state: int = 0,
        n_jobs: int = 1,
        device: str | None = None,
    ) -> None:
        self.solver, self.random_state, self.n_jobs = solver, random_state, n_jobs
        self.device = device

    def fit(self, X: Any, y: Any) -> "LinearSVMs":  # noqa: N803 the name that scikit-learn gives it
        """Train on X, real (N, D), and Y: a label for each row, or (N, C), true where it has one.

        Raises ValueError for rows and labels that do not fit, and where no class has both positive
        and negative rows.
        """
        rows = _Rows(np.asarray(X))
        self.classes_, positive = _truth(y)
        if len(positive) != len(rows.features):
            raise ValueError(f"X has {len(rows.features)} rows, and labels of {len(positive)}")
        signs = np.where(positive.T, 1, -1).astype(np.int8)
        if not classifiers.rarer_signs(signs).any():
            raise ValueError("no class has both positive and negative rows")
        fit = classifiers.fit_all(
            signs,
            rows,
            self.random_state,
            self.n_jobs,
            silent,
            solver=self.solver,
            device=self.device,
        )
        self.ap_, self.cost_ = fit.ap, fit.cost
        self.coef_, self.intercept_ = fit.weights[:, :-1], fit.weights[:, -1]
        return self

    def decision_function(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the scores (N, C) of the rows of X."""
        blocks = [rows @ self.coef_.T for rows in _Rows(np.asarray(X)).normalised()]
        return np.concatenate([np.empty((0, len(self.coef_))), *blocks]) + self.intercept_

    def predict(self, X: Any) -> np.ndarray:  # noqa: N803
        """Return the class with the highest score, for each row of X."""
        scores = self.decision_function(X)
        return np.asarray(self.classes_)[np.where(np.isnan(scores), -np.inf, scores).argmax(1)]

    def score(self, X: Any, y: Any) -> float:  # noqa: N803
        """Return the mean average precision, in [0, 1], of the classes that are in Y and trained.

        Y is as fit() takes it.
        """
        classes, positive = _truth(y)
        scores = self.decision_function(X)
        if len(positive) != len(scores):
            raise ValueError(f"X has {len(scores)} rows, and labels of {len(positive)}")
        columns = {name: place for place, name in enumerate(self.classes_)}
        ap = [
            average_precision(levels(scores[:, columns[name]]), truth)
            for name, truth in zip(classes, positive.T, strict=True)
            if name in columns and not np.isnan(scores[:, columns[name]]).any()
        ]
        return float(np.mean([each for each in ap if not np.isnan(each)]))


def _truth(y: Any) -> tuple[Sequence[Any], np.ndarray]:
    """Return (classes, bool (N, C)) of Y, labels (N,) or an indicator (N, C)."""
    labels = np.asarray(y)
    if labels.ndim == 2:
        return range(labels.shape[1]), labels.astype(bool)
    classes = sorted(set(labels.tolist()))
    return classes, np.array([[label == each for each in classes] for label in labels.tolist()])
