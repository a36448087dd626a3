"""Figures of a classifier, compared with scikit-learn's."""

import numpy as np
import pytest

from ckpt_tools.train.use import metrics

RANDOM = np.random.default_rng(4)
TRUE = RANDOM.integers(0, 5, 200)
LOGITS = RANDOM.normal(size=(200, 6)).astype(np.float32) + 2 * np.eye(6, dtype=np.float32)[TRUE]
PREDICTED = LOGITS.argmax(axis=1)
LABELS = tuple("abcdef")  # the class f is never true


def test_confusion_and_per_class_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    confusion = metrics.confusion_matrix(TRUE, PREDICTED, 6)
    np.testing.assert_array_equal(confusion, sklearn.confusion_matrix(TRUE, PREDICTED, labels=range(6)))
    rows = metrics.per_class(confusion, LABELS)
    theirs = sklearn.precision_recall_fscore_support(TRUE, PREDICTED, labels=range(6), zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "images"), theirs, strict=True):
        np.testing.assert_allclose([row[name] or 0 for row in rows], values)
    assert rows[5]["recall"] is None
    assert rows[0]["correct"] == confusion[0, 0]
    expected = sklearn.f1_score(TRUE, PREDICTED, average="macro", labels=range(5), zero_division=0)
    assert metrics.macro(rows, "f1") == pytest.approx(expected)


@pytest.mark.parametrize("k", [1, 2, 5])
def test_top_k_is_that_of_scikit_learn(k):
    sklearn = pytest.importorskip("sklearn.metrics")
    expected = sklearn.top_k_accuracy_score(TRUE, LOGITS, k=k, labels=range(6))
    assert metrics.top_k_accuracy(TRUE, LOGITS, k) == pytest.approx(expected)
    assert metrics.top_k_accuracy(TRUE, LOGITS, 6) == 1.0


def test_equal_scores_are_in_the_order_of_the_classes():
    scores = np.zeros((2, 3))
    assert metrics.top_k_accuracy(np.array([0, 2]), scores, 1) == 0.5
    assert metrics.top_k_accuracy(np.array([0, 1]), scores, 2) == 1.0


def test_cross_entropy_and_softmax():
    sklearn = pytest.importorskip("sklearn.metrics")
    probabilities = metrics.softmax(LOGITS)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert metrics.cross_entropy(TRUE, LOGITS) == pytest.approx(sklearn.log_loss(TRUE, probabilities, labels=range(6)))
    assert metrics.cross_entropy(np.array([0]), np.array([[1000.0, 0.0]])) == 0.0
    assert metrics.cross_entropy(np.array([1]), np.array([[1000.0, 0.0]])) == pytest.approx(1000.0)


KHOT = RANDOM.random((150, 6)) < np.array([0.5, 0.3, 0.1, 0.05, 0.9, 0.0])  # the last label is nobody's
SCORES = np.round(RANDOM.normal(size=(150, 6)) + KHOT, 1)  # many are equal


def test_figures_of_several_labels_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    for i in range(5):
        own = metrics.average_precision(KHOT[:, i], SCORES[:, i])
        assert own == pytest.approx(sklearn.average_precision_score(KHOT[:, i], SCORES[:, i]))
        assert metrics.roc_auc(KHOT[:, i], SCORES[:, i]) == pytest.approx(
            sklearn.roc_auc_score(KHOT[:, i], SCORES[:, i])
        )
    expected = sklearn.average_precision_score(KHOT[:, :5], SCORES[:, :5], average="macro")
    assert metrics.mean_average_precision(KHOT, SCORES) == pytest.approx(expected)
    assert metrics.average_precision(KHOT[:, 5], SCORES[:, 5]) is None
    assert metrics.roc_auc(KHOT[:, 5], SCORES[:, 5]) is None
    assert metrics.roc_auc(np.ones(3, bool), np.arange(3)) is None
    assert metrics.mean_average_precision(KHOT[:, 5:], SCORES[:, 5:]) == 0.0


def test_rows_of_several_labels_are_those_of_scikit_learn():
    sklearn = pytest.importorskip("sklearn.metrics")
    predicted = SCORES >= 0.5
    confusion = metrics.confusion_of_each(KHOT, predicted)
    np.testing.assert_array_equal(confusion, sklearn.multilabel_confusion_matrix(KHOT, predicted))
    rows = metrics.per_label(confusion, LABELS, KHOT, SCORES, np.full(6, 0.5))
    theirs = sklearn.precision_recall_fscore_support(KHOT, predicted, zero_division=0)
    for name, values in zip(("precision", "recall", "f1", "images"), theirs, strict=True):
        np.testing.assert_allclose([row[name] or 0 for row in rows], values)
    assert rows[5]["best_threshold"] is None


def test_the_best_threshold_is_the_best_of_all():
    sklearn = pytest.importorskip("sklearn.metrics")
    for i in range(5):
        threshold, f1 = metrics.best_threshold(KHOT[:, i], SCORES[:, i])
        every = [sklearn.f1_score(KHOT[:, i], SCORES[:, i] >= t) for t in np.unique(SCORES[:, i])]
        assert f1 == pytest.approx(max(every))
        assert sklearn.f1_score(KHOT[:, i], SCORES[:, i] >= threshold) == pytest.approx(f1)


def test_binary_cross_entropy_and_sigmoid():
    sklearn = pytest.importorskip("sklearn.metrics")
    probabilities = metrics.sigmoid(SCORES)
    np.testing.assert_allclose(probabilities, 1 / (1 + np.exp(-SCORES)))
    expected = np.mean([sklearn.log_loss(KHOT[:, i], probabilities[:, i], labels=[0, 1]) for i in range(6)])
    assert metrics.binary_cross_entropy(KHOT, SCORES) == pytest.approx(expected)
    assert metrics.binary_cross_entropy(np.array([[1]]), np.array([[-1000.0]])) == 1000.0
    assert metrics.sigmoid(np.array([-1000.0, 1000.0])).tolist() == [0.0, 1.0]


def test_accuracy():
    assert metrics.accuracy(np.array([0, 1]), np.array([[2.0, 1.0], [3.0, 1.0]])) == 0.5
    assert metrics.accuracy(np.array([[1, 0], [1, 1]]), np.array([[2.0, -1.0], [3.0, -1.0]])) == 0.75


def test_confused_pairs_come_most_frequent_first():
    confusion = np.array([[5, 2, 0], [7, 1, 0], [0, 0, 9]])
    assert metrics.confused_pairs(confusion, ["a", "b", "c"]) == [
        {"true": "b", "predicted": "a", "times": 7, "of": 8},
        {"true": "a", "predicted": "b", "times": 2, "of": 7},
    ]


def test_a_matrix_that_is_too_wide_becomes_a_list():
    confusion = np.diag(np.arange(1, 201))
    labels = [f"class {i}" for i in range(200)]
    assert metrics.confusion_text(confusion, labels, 100) == "nothing was confused"
    confusion[3, 7] = 2
    text = metrics.confusion_text(confusion, labels, 100)
    assert text.splitlines()[1] == "     2 of 6 images of class 3 were taken for class 7"
    assert max(map(len, text.splitlines())) <= 100


def test_a_matrix_of_large_numbers_keeps_its_columns():
    text = metrics.confusion_text(np.array([[123456, 1], [0, 99]]), ["a", "b"], 60)
    assert text == "    (0)    (1)\n 123456      1  (0) a\n      0     99  (1) b"
