"""Several trained models as one: python -m bernoulli_diffusion.ensemble OUT.pt A.pt B.pt ..."""

from .system import requirements  # noqa: F401  says in one line what is missing

# isort: split
import json
import sys
from functools import partial
from pathlib import Path

from .system.command_line import ArgumentParser, checkpoint_file, put_out, run, tell, trusting
from .system.interrupt import ending_at_once

DESCRIPTION = """\
Write one self-contained checkpoint whose log-odds are the weighted mean of those of its members. The
members may have different networks; their data and their process must be the same. generate.py, evaluate
and the rest take it like any other, and its bound is a bound. Prints, as one JSON object, each member's
share."""


def parse_arguments():
    parser = ArgumentParser(description=DESCRIPTION)
    parser.add_argument("output", metavar="OUT.pt", type=checkpoint_file, help="the file to write")
    parser.add_argument(
        "members", metavar="CHECKPOINT", type=Path, nargs="+", help="or another ensemble"
    )
    parser.add_argument(
        "--weights-by",
        metavar="FILE",
        type=Path,
        help="strings to choose the shares by, such as val.txt, or of a table its CSV; the result is"
        " never worse on them than the best member, beyond what chance does. Without it all members"
        " count alike",
    )
    parser.add_shared("--seed", "--device", "--trust-code")
    arguments = parser.parse_args()
    if any(path.resolve() == arguments.output.resolve() for path in arguments.members):
        parser.error(f"{arguments.output} is a member itself; expected a new file")
    return arguments


def main() -> None:
    arguments = parse_arguments()
    # torch takes a second to import: after the arguments are known to be sound
    with ending_at_once():
        from .on_file import read_samples
        from .system.device import choose_device
        from .system.errors import UserError
        from .tables import answering
        from .training import checkpoint as checkpoints
        from .training.shares import fit_shares

    _refuse_to_replace(arguments.output)
    paths = [checkpoints.find(path) for path in arguments.members]
    loaded = [(path, checkpoints.load(path)) for path in paths]
    first_path, first = loaded[0]
    for path, checkpoint in loaded[1:]:
        if not checkpoints.is_of_one_kind(first, checkpoint, path):
            raise UserError(
                f"{path}: of another kind than {first_path}: expected the same length, T and process"
                " settings, and for numbers the same training data"
            )
    # every trained network, the file it comes from and its share of that file's log-odds
    members = [
        (path, member, share)
        for path, checkpoint in loaded
        for member, share in checkpoints.members_of(checkpoint)
    ]
    report = {}
    if arguments.weights_by:
        device = choose_device(arguments.device)
        diffusions = [
            checkpoints.restore(member, path, device=device, **trusting(arguments))
            for path, member, _ in members
        ]
        config = checkpoints.config_of(first, first_path)
        encoding = answering.encoding_of(first, first_path)
        strings = read_samples(
            arguments.weights_by, diffusions[0], config, first["sequence_length"], encoding
        )
        fitted = fit_shares(diffusions, strings, arguments.seed, device)
        shares, report = fitted.shares, fitted.report()
    else:
        shares = [share / len(loaded) for *_, share in members]
    kept = [(m, share) for (_, m, _), share in zip(members, shares, strict=True) if share > 0]
    best, _ = max(kept, key=lambda each: each[1])
    checkpoints.save(arguments.output, checkpoints.ensemble_of(kept, best))
    named = [
        {"checkpoint": str(path), "share": share}
        for (path, *_), share in zip(members, shares, strict=True)
    ]
    tell(f"{arguments.output}: {len(kept)} of {len(members)} members")
    put_out(json.dumps({"checkpoint": str(arguments.output), "members": named} | report, indent=2))


def _refuse_to_replace(output: Path) -> None:
    """Raises UserError if there is a file already that is no ensemble, such as a trained network."""
    from .system.errors import UserError
    from .training import checkpoint as checkpoints

    if not output.exists():
        return
    try:
        is_ensemble = "members" in checkpoints.load(output)
    except UserError:
        is_ensemble = False
    if not is_ensemble:
        raise UserError(
            f"{output}: there already, and no ensemble; the file to write comes first, then its members"
        )


command = partial(run, main)  # bernoulli-ensemble, python -m ...; returns the exit code

if __name__ == "__main__":
    sys.exit(command())
