"""``rlnas finetune``: train the delivered model of a run further."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from rlnas.cli.command import add_command
from rlnas.cli.report import check_finished

if TYPE_CHECKING:
    import argparse

    from rlnas.cli.command import Commands
    from rlnas.run.finetuning import Finetuning


def add_finetune(commands: Commands) -> None:
    """Add the command."""
    parser = add_command(
        commands,
        "finetune",
        run_finetune,
        "train the model that a run has delivered further, taught by the full model",
        "Starts from the delivered weights; labels, and the answers and hidden states of the full model, "
        "teach. After each pass the search split says whether it got better: the last weights "
        "that are not worse than the best ones beyond noise are kept. "
        "Then it is certified beside the full model on the final split, which nothing else has seen, and "
        "compared with the delivered model there.",
    )
    parser.add_argument("folder", type=Path, metavar="RUN", help="folder of a finished run")
    parser.add_argument(
        "--target-ratio", type=float, metavar="R", help="which model, of a run for several targets"
    )
    group = parser.add_argument_group("training")
    group.add_argument("--epochs", type=int, default=5, help="passes over the training items at most")
    group.add_argument(
        "--patience",
        type=int,
        default=2,
        metavar="N",
        help="end after N passes without gain on the search split; 0 for all passes and the last weights",
    )
    group.add_argument(
        "--learning-rate",
        type=float,
        help="peak learning rate; by default 1.25e-5 for BERT-base, 5e-5 for MiniLM",
    )
    group.add_argument(
        "--precision",
        choices=("auto", "float32", "bfloat16"),
        default="auto",
        help="number format of the training; auto takes bfloat16 where the device gains from it",
    )
    group.add_argument(
        "--teacher-weight",
        type=float,
        default=0.5,
        help="share of the full model's answers in the loss, in [0, 1]; the rest is that of the labels",
    )
    group.add_argument(
        "--hidden-weight",
        type=float,
        default=1.0,
        help="weight of the full model's hidden states beside that; 0 for none",
    )
    group.add_argument("--train-batch-size", type=int, default=32, help="items per step")
    parser.add_argument("--device", help="cpu, cuda, cuda:1, ... or auto; by default the kind of the run's")
    parser.add_argument("--seed", type=int, default=0, help="seed of the order of items and of dropout")
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="folder to write; by default finetuned/ in the run, of which its report then tells, and which "
        "`rlnas export RUN` and `rlnas certify RUN` take",
    )
    parser.add_argument("--resume", action="store_true", help="go on with a training that was killed")


def run_finetune(options: argparse.Namespace) -> None:
    """Train, certify, and say what was gained."""
    from rlnas.latency import resolve_device
    from rlnas.report import read_summary
    from rlnas.report.wording import finetuned_sentence
    from rlnas.run.finetuning import finetune
    from rlnas.run.folder import RunFolder

    settings = _settings(options)
    folder = RunFolder(options.folder)
    folder.check()
    check_finished(folder)
    kind = str(read_summary(options.folder)["device"].get("kind", "auto"))
    result = finetune(
        options.folder,
        settings,
        target_ratio=options.target_ratio,
        device=resolve_device(kind if options.device is None else options.device),
        out=options.out,
        resume=options.resume,
    )
    if result.certificate is not None:
        print(result.certificate)
    print(finetuned_sentence(result.model))
    print(f"model: {result.folder}")


def _settings(options: argparse.Namespace) -> Finetuning:
    from rlnas.run.finetuning import Finetuning

    return Finetuning(
        epochs=options.epochs,
        patience=None if options.patience == 0 else options.patience,
        learning_rate=options.learning_rate,
        precision=options.precision,
        teacher_weight=options.teacher_weight,
        hidden_weight=options.hidden_weight,
        batch_size=options.train_batch_size,
        seed=options.seed,
    )
