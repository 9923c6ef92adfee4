"""What torchrun starts for `test_ranks.py`: trainings on two ranks; each writes what came out.

Arguments: a folder with the checkpoints "plain" (no dropout) and "dropout", and the folder to write to.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import replace
from pathlib import Path

sys.path.append(str(Path(__file__).parent))  # folders of tests are no packages

import tiny

from rlnas.errors import RunFolderError
from rlnas.supernet import FullTrainer, SandwichTrainer, Supernet, optimisation
from rlnas.supernet.optimisation import Optimisation
from rlnas.supernet.ranks import joined

N_ITEMS = 17  # batches of 8, 8 and 1: of the last one the second rank gets nothing
SETTINGS = Optimisation(
    epochs=3, batch_size=8, learning_rate=2e-3, precision="float32", checkpoint_seconds=0.0
)
SAME = SandwichTrainer(optimisation=SETTINGS)
SHARED = {
    "same": SAME,
    "different": replace(SAME, rank_subnets="different"),
    "micro": replace(SAME, optimisation=replace(SETTINGS, micro_batches=3)),
}
SPLIT = tiny.make_split(N_ITEMS)
N_STEPS, N_BROKEN = 9, 4


def load(folder, name):
    """A supernet that starts from the same weights in every process."""
    return Supernet.from_pretrained(folder / name, tiny.make_task())


def digest(supernet):
    """Of all weights, bit for bit."""
    state = supernet.model.state_dict()
    return hashlib.sha256(b"".join(state[name].numpy().tobytes() for name in sorted(state))).hexdigest()


def fine_tune(supernet, ranks=None):
    return FullTrainer(SETTINGS).train(supernet, tiny.make_task(n=N_ITEMS), progress=False, ranks=ranks)


def share_until(step, supernet, checkpoint, ranks):
    """End a training as a kill would, with its checkpoint left."""
    check, left = optimisation._check_finite, [step]

    def stop(*arguments):
        if not left[0]:
            raise InterruptedError
        left[0] -= 1
        check(*arguments)

    optimisation._check_finite = stop
    try:
        SAME.share(supernet, SPLIT, checkpoint=checkpoint, progress=False, ranks=ranks)
    except InterruptedError:
        return
    finally:
        optimisation._check_finite = check


def trainings(folder, out, ranks):
    """Losses and weights of each."""
    for name, trainer in SHARED.items():
        supernet = load(folder, "plain")
        if not ranks.is_first:
            supernet.model.head.out.weight.data.zero_()  # the first rank's weights count
        yield name, trainer.share(supernet, SPLIT, progress=False, ranks=ranks), supernet
    supernet = load(folder, "plain")
    yield "full", fine_tune(supernet, ranks), supernet
    supernet = load(folder, "dropout")
    yield "unbroken", SAME.share(supernet, SPLIT, progress=False, ranks=ranks), supernet
    checkpoint = out / "training.pt"
    share_until(N_BROKEN, load(folder, "dropout"), checkpoint, ranks)
    ranks.wait()
    supernet = load(folder, "dropout")
    losses = SAME.share(supernet, SPLIT, checkpoint=checkpoint, progress=False, ranks=ranks)
    yield "resumed", losses, supernet


def refusal(folder, out, ranks):
    """What is said where the second rank does not see the checkpoint of the first one."""
    supernet, checkpoint = load(folder, "plain"), out / f"seen-by-{ranks.rank}.pt"
    share_until(2, supernet, out / "seen-by-0.pt", ranks)
    ranks.wait()
    try:
        SAME.share(supernet, SPLIT, checkpoint=checkpoint, progress=False, ranks=ranks)
    except RunFolderError as error:
        return str(error)


def main(folder, out):
    with joined("cpu") as ranks:
        found = {
            name: {"losses": losses, "weights": digest(supernet)}
            for name, losses, supernet in trainings(folder, out, ranks)
        }
        found["refusal"] = refusal(folder, out, ranks)
        said = b"\x00one" if ranks.is_first else b"another"
        found["sent"] = [ranks.send(content).decode() for content in (said, b"")]
        found["any"] = [ranks.any(ranks.rank == rank) for rank in (0, 1, 2)]
        (out / f"rank-{ranks.rank}.json").write_text(json.dumps(found))


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]))
