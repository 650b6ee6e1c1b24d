"""The linear student, solved exactly: its loss is convex, so the optimum does not depend on a seed.

A text is the set of its rows, each of value one over the root of their number; a logit is the sum of its rows' coefficients
and a bias. Full-batch L-BFGS (Liu and Nocedal 1989) takes a second or two, where stochastic gradient descent takes ten and
stops near the optimum.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from scipy.optimize import minimize
from scipy.sparse import csr_matrix
from scipy.special import log_softmax
from threadpoolctl import threadpool_limits
from tqdm import tqdm

from tasks.compress.distillation import UNLABELLED, DistillData, DistillLoss
from tasks.compress.sgd import History
from tasks.kinds.text_classification.compress.hashed import Hashed
from tasks.kinds.text_classification.compress.networks import Network
from tasks.metrics import mean_one, ranking
from tasks.stage import Settings

Floats = npt.NDArray[np.float64]

MEMORY = 10
"""Number of past steps that L-BFGS stores."""


def matrix(rows: Sequence[npt.NDArray[np.int64]], width: int) -> csr_matrix:
    """Texts as a sparse ``float64[texts, width]``: one over the root of their number at each of a text's rows."""
    counts = np.array([len(text_rows) for text_rows in rows])
    values = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    return csr_matrix((values, np.concatenate([*rows, np.zeros(0, np.int64)]), starts), shape=(len(rows), width))


def loss_and_gradient(
    logits: Floats, labels: npt.NDArray[np.int64], teacher: Floats, weights: Floats, distill_loss: DistillLoss
) -> tuple[float, Floats]:
    """``distillation_loss`` of logits ``[n, labels]`` in double precision, and its gradient with respect to them."""
    temperature, share = distill_loss.temperature, distill_loss.teacher_share
    log_probs, student_log_probs_t, teacher_log_probs_t = (
        log_softmax(z, axis=1) for z in (logits, logits / temperature, teacher / temperature)
    )
    targets = np.eye(logits.shape[1])[labels] * (labels != UNLABELLED)[:, None]
    label_loss = -(targets * log_probs).sum(axis=1)
    teacher_loss = (np.exp(teacher_log_probs_t) * (teacher_log_probs_t - student_log_probs_t)).sum(axis=1)
    loss = ((1 - share) * label_loss + share * temperature**2 * teacher_loss) * weights
    label_gradient = np.exp(log_probs) * targets.sum(axis=1, keepdims=True) - targets
    gradient = (1 - share) * label_gradient + share * temperature * (np.exp(student_log_probs_t) - np.exp(teacher_log_probs_t))
    return float(loss.mean()), gradient * weights[:, None] / len(logits)


def solve(
    texts: csr_matrix,
    objective: Callable[[Floats], tuple[float, Floats]],
    labels: int,
    penalty: float,
    max_iter: int,
    watch: Callable[[float, Floats, Floats], None],
) -> tuple[Floats, Floats]:
    """(coefficients ``[width, labels]``, bias ``[labels]``) that minimise ``objective`` + ``penalty`` / 2 * sum of squares.

    ``objective`` gives the loss of all texts' logits and its gradient. L-BFGS takes at most ``max_iter`` steps from zero, and
    calls ``watch`` after each with loss, coefficients and bias.
    """
    width = texts.shape[1]
    transposed = texts.T.tocsr()
    latest = 0.0

    def unpack(point: Floats) -> tuple[Floats, Floats]:
        return point[labels:].reshape(width, labels), point[:labels]

    def penalised(point: Floats) -> tuple[float, Floats]:
        nonlocal latest
        coefficients, bias = unpack(point)
        loss, gradient = objective(texts @ coefficients + bias)
        latest = loss
        coefficient_gradient = transposed @ gradient + penalty * coefficients
        return loss + penalty / 2 * float((coefficients**2).sum()), np.concatenate(
            [gradient.sum(axis=0), coefficient_gradient.ravel()]
        )

    with threadpool_limits(1):  # another order of summation would give another student
        result = minimize(
            penalised,
            np.zeros(labels * (width + 1)),
            jac=True,
            method="L-BFGS-B",
            callback=lambda point: watch(latest, *unpack(point)),
            options={"maxiter": max_iter, "maxcor": MEMORY},
        )
    return unpack(result.x)


class Linear(Settings):
    penalty: float = Field(ge=0)
    """L2 regularisation: weight of half the sum of squared coefficients in the loss."""
    max_iter: int = Field(ge=1)
    """At most this many steps of L-BFGS; each is a pass over all texts."""


def seconds_of_pass(student: Hashed, train: DistillData, distill_loss: DistillLoss) -> float:
    """Seconds per pass over all texts: the loss, its gradient, and the same again for L-BFGS."""
    texts = matrix(train.inputs, student.tokenizer.rows)
    texts = texts[:, np.unique(texts.indices)]
    teacher, weights = train.teacher.astype(np.float64), train.weights.astype(np.float64)
    start = time.perf_counter()
    logits = texts @ np.zeros((texts.shape[1], teacher.shape[1]))
    _, gradient = loss_and_gradient(logits, train.labels, teacher, weights, distill_loss)
    texts.T.tocsr() @ gradient
    return 2 * (time.perf_counter() - start)


def fit_linear(student: Hashed, train: DistillData, valid: DistillData, settings: Linear, distill_loss: DistillLoss) -> History:
    """Solve for the coefficients and store them in the student's network; the history, one entry per pass.

    L-BFGS starts from zero, whatever the network holds: its last steps are long, and what another start leaves in rows of few
    texts is noise. Rows that no text holds are zero. The network must have as many dimensions as labels and no hidden layer:
    its embedding holds the coefficients of ``solve``.
    """
    width, weights = student.tokenizer.rows, mean_one(train.weights).astype(np.float64)
    texts, held_out = matrix(train.inputs, width), matrix(valid.inputs, width)
    used = np.unique(texts.indices)
    texts, held_out = texts[:, used], held_out[:, used]
    teacher = train.teacher.astype(np.float64)
    history: History = []
    bar = tqdm(total=settings.max_iter, desc="student", unit=" passes", mininterval=1)

    def record(loss: float, coefficients: Floats, bias: Floats) -> None:
        score = ranking((held_out @ coefficients + bias).astype(np.float32), valid.labels, weights=valid.weights)["pr_auc"]
        history.append({"epoch": len(history) + 1, "train_loss": loss, "valid_pr_auc": score})
        bar.update()

    network = student.network
    assert isinstance(network, Network)
    assert network.hidden is None
    with bar:
        coefficients, bias = solve(
            texts,
            lambda logits: loss_and_gradient(logits, train.labels, teacher, weights, distill_loss),
            train.teacher.shape[1],
            settings.penalty,
            settings.max_iter,
            record,
        )
    with torch.no_grad():
        network.embedding.weight.zero_()
        network.embedding.weight[torch.from_numpy(used)] = torch.from_numpy(coefficients).float()
        network.head.weight.copy_(torch.eye(len(bias)))
        network.head.bias.copy_(torch.from_numpy(bias))
    return history
