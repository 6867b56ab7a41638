"""The process that fits arms: one order from standard input, what came of it to standard output.

It computes on one core, so that training and other services keep theirs, and ends with the service that started it.
"""

from __future__ import annotations

import os
import sys

os.environ["OPENBLAS_NUM_THREADS"] = os.environ["OMP_NUM_THREADS"] = "1"  # read when numpy is loaded

import numpy as np

from arms import Arm, Facts, Fit, Groups, Numbers, Places, Shown, data_report, fit, kinds_for, pack
from chassis.children import die_with_parent
from schemas.artifacts import DataReport
from trainer.arms.orders import Made, Order


def make(order: Order, vectors: Numbers) -> tuple[Made, dict[str, bytes], Fit | None]:
    """Fit every kind that makes sense, and pack the one that is right most often on rows it was not fitted to.

    Nothing is fitted of rows that the base model is shown.

    Args:
        order: what is asked for.
        vectors: (rows, dimensions).
    """
    if order.generates:
        made, files = _packed(order, vectors, Shown(vectors), {})
        return made, files, None
    places: Places = np.array(order.places, dtype=np.int32)
    groups: Groups = np.array(order.groups, dtype=np.int64)
    kinds = [kind for kind in kinds_for(places) if kind in order.kinds]
    fits = {kind: fit(kind, vectors, places, order.seed, groups) for kind in kinds}
    commonest = float(np.bincount(places).max() / len(places))
    metrics = {f"{kind}_accuracy": one.accuracy for kind, one in fits.items()} | {"commonest_accuracy": commonest}
    if not fits:
        why = "there are too many different answers for the kinds that are tried."
        return Made(metrics=metrics, why_not=why), {}, None
    kind = max(fits, key=lambda one: fits[one].accuracy)
    if fits[kind].accuracy <= commonest:
        why = (
            f"{fits[kind].accuracy:.0%} of the rows it was not fitted to were answered rightly, no more than by always "
        )
        return Made(metrics=metrics, why_not=f"{why}saying the commonest answer."), {}, None
    made, files = _packed(order, vectors, fits[kind].arm, metrics)
    return made, files, fits[kind]


def _packed(order: Order, vectors: Numbers, arm: Arm, metrics: dict[str, float]) -> tuple[Made, dict[str, bytes]]:
    """An arm in its files."""
    facts = Facts(
        rows=len(vectors),
        dataset=order.dataset,
        code_version=order.code_version,
        seed=order.seed,
        metrics=metrics,
        created_at=order.created_at,
    )
    questions = list(order.probes.values())
    files = pack(arm, order.answers, questions, vectors[list(order.probes)], order.embedder, facts)
    return Made(kind=arm.kind, metrics=metrics, sizes={name: len(one) for name, one in files.items()}), files


def tell(order: Order, vectors: Numbers, chosen: Fit) -> DataReport:
    """What the rows tell."""
    places: Places = np.array(order.places, dtype=np.int32)
    return data_report(chosen, vectors, places, order.answers, order.probes, order.seed)


def main() -> None:
    """Do one order."""
    die_with_parent(int(sys.argv[1]))
    order = Order.model_validate_json(sys.stdin.buffer.readline())
    vectors = np.frombuffer(sys.stdin.buffer.read(), dtype="<f4").reshape(-1, order.embedder.dimensions)
    made, files, chosen = make(order, vectors)
    sys.stdout.buffer.write(made.model_dump_json().encode() + b"\n" + b"".join(files.values()))
    sys.stdout.buffer.flush()  # whatever becomes of the report, the arm is there
    if chosen is not None:
        sys.stdout.buffer.write(tell(order, vectors, chosen).model_dump_json().encode())


if __name__ == "__main__":
    main()
