"""The linear student, found exactly: its loss is convex, so there is one best student, and no seed to be lucky with.

A text is the set of its rows, each with the weight of one by the root of their number; a logit is the sum of its rows'
values, and a bias. L-BFGS (Liu and Nocedal 1989) on all messages at once takes a second or two where stochastic descent
takes ten and ends somewhere near.
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
from tasks.compress.networks import Network
from tasks.compress.sgd import History
from tasks.compress.student import Hashed
from tasks.metrics import mean_one, ranking
from tasks.stage import Settings

Floats = npt.NDArray[np.float64]

MEMORY = 10
"""Earlier steps that L-BFGS keeps."""


def matrix(rows: Sequence[npt.NDArray[np.int64]], width: int) -> csr_matrix:
    """Texts as ``float64[texts, width]``: at each of a text's rows one by the root of their number."""
    counts = np.array([len(own) for own in rows])
    values = np.repeat(1 / np.sqrt(np.maximum(counts, 1)), counts)
    starts = np.concatenate([[0], np.cumsum(counts)])
    return csr_matrix((values, np.concatenate([*rows, np.zeros(0, np.int64)]), starts), shape=(len(rows), width))


def loss_and_gradient(
    logits: Floats, labels: npt.NDArray[np.int64], teacher: Floats, weights: Floats, distill_loss: DistillLoss
) -> tuple[float, Floats]:
    """``distillation_loss`` of logits ``[n, labels]`` in double precision, with its gradient by them."""
    heat, share = distill_loss.temperature, distill_loss.teacher_share
    spoken, softened, wanted = (log_softmax(z, axis=1) for z in (logits, logits / heat, teacher / heat))
    told = np.eye(logits.shape[1])[labels] * (labels != UNLABELLED)[:, None]
    hard = -(told * spoken).sum(axis=1)
    soft = (np.exp(wanted) * (wanted - softened)).sum(axis=1)
    loss = ((1 - share) * hard + share * heat**2 * soft) * weights
    from_labels = np.exp(spoken) * told.sum(axis=1, keepdims=True) - told
    gradient = (1 - share) * from_labels + share * heat * (np.exp(softened) - np.exp(wanted))
    return float(loss.mean()), gradient * weights[:, None] / len(logits)


def solve(
    texts: csr_matrix,
    objective: Callable[[Floats], tuple[float, Floats]],
    labels: int,
    penalty: float,
    max_iter: int,
    watch: Callable[[float, Floats, Floats], None],
) -> tuple[Floats, Floats]:
    """The (values ``[width, labels]``, bias ``[labels]``) of least ``objective`` plus ``penalty`` / 2 by squared values.

    ``objective`` gives the loss of all texts' logits and its gradient. At most ``max_iter`` steps of L-BFGS are taken from
    zero, and ``watch`` is told of each: loss, values, bias.
    """
    width = texts.shape[1]
    turned = texts.T.tocsr()
    latest = 0.0

    def unpack(point: Floats) -> tuple[Floats, Floats]:
        return point[labels:].reshape(width, labels), point[:labels]

    def judged(point: Floats) -> tuple[float, Floats]:
        nonlocal latest
        values, bias = unpack(point)
        loss, gradient = objective(texts @ values + bias)
        latest = loss
        slopes = turned @ gradient + penalty * values
        return loss + penalty / 2 * float((values**2).sum()), np.concatenate([gradient.sum(axis=0), slopes.ravel()])

    with threadpool_limits(1):  # sums in another order would be another student
        found = minimize(
            judged,
            np.zeros(labels * (width + 1)),
            jac=True,
            method="L-BFGS-B",
            callback=lambda point: watch(latest, *unpack(point)),
            options={"maxiter": max_iter, "maxcor": MEMORY},
        )
    return unpack(found.x)


class Linear(Settings):
    penalty: float = Field(ge=0)
    """Weight of half the sum of squared values in the loss."""
    max_iter: int = Field(ge=1)
    """Steps of L-BFGS at most; each sees all texts."""


def seconds_of_pass(student: Hashed, train: DistillData, distill_loss: DistillLoss) -> float:
    """What a pass over all texts takes: the loss, its gradient, and as much again for L-BFGS."""
    texts = matrix(train.texts, student.tokenizer.rows)
    texts = texts[:, np.unique(texts.indices)]
    teacher, weights = train.teacher.astype(np.float64), train.weights.astype(np.float64)
    begin = time.perf_counter()
    logits = texts @ np.zeros((texts.shape[1], teacher.shape[1]))
    _, gradient = loss_and_gradient(logits, train.labels, teacher, weights, distill_loss)
    texts.T.tocsr() @ gradient
    return 2 * (time.perf_counter() - begin)


def fit_linear(student: Hashed, train: DistillData, valid: DistillData, settings: Linear, distill_loss: DistillLoss) -> History:
    """Put the best values into the pupil's network; its history, a pass an epoch.

    They are sought from zero, wherever the network stands: the last steps towards the best are long, and what is left of
    another beginning in rows that few texts hold is noise. Rows that no text holds are zero. The network must have a
    dimension for each label and no hidden layer: it is read as if it were ``solve``'s table.
    """
    width, weights = student.tokenizer.rows, mean_one(train.weights).astype(np.float64)
    texts, held_out = matrix(train.texts, width), matrix(valid.texts, width)
    used = np.unique(texts.indices)
    texts, held_out = texts[:, used], held_out[:, used]
    teacher = train.teacher.astype(np.float64)
    history: History = []
    bar = tqdm(total=settings.max_iter, desc="student", unit=" passes", mininterval=1)

    def seen(loss: float, values: Floats, bias: Floats) -> None:
        score = ranking((held_out @ values + bias).astype(np.float32), valid.labels, weights=valid.weights)["pr_auc"]
        history.append({"epoch": len(history) + 1, "train_loss": loss, "valid_pr_auc": score})
        bar.update()

    network = student.network
    assert isinstance(network, Network)
    assert network.hidden is None
    with bar:
        values, bias = solve(
            texts,
            lambda logits: loss_and_gradient(logits, train.labels, teacher, weights, distill_loss),
            train.teacher.shape[1],
            settings.penalty,
            settings.max_iter,
            seen,
        )
    with torch.no_grad():
        network.embedding.weight.zero_()
        network.embedding.weight[torch.from_numpy(used)] = torch.from_numpy(values).float()
        network.head.weight.copy_(torch.eye(len(bias)))
        network.head.bias.copy_(torch.from_numpy(bias))
    return history
