"""The command `mule prepare`; what it needs is imported only when it runs."""

from pathlib import Path


def add_to(commands) -> None:
    """Add `mule prepare` to the subcommands of an argparse parser."""
    command = commands.add_parser(
        "prepare", help="make training and evaluation files from RWKU or TOFU, without an LLM"
    )
    command.add_argument("benchmark", choices=("rwku", "tofu"))
    command.add_argument("--out", type=Path, required=True, help="data folder to write; must not exist")
    command.add_argument("--subject", default="", help="RWKU: the person to forget; TOFU: the authors' names")
    command.add_argument("--source", default="", help="folder with the dataset (default: the Hub, pinned)")
    command.add_argument("--mmlu", default="", help="folder or file of MMLU (default: RWKU's part, or the Hub)")
    command.add_argument("--levels", type=int, nargs="+", default=[1, 2], help="RWKU's probes: 1, 2 or both")
    command.add_argument("--forget", default="forget10", help="TOFU's part to forget")
    command.add_argument("--refusals", default="", help="file of refusal sentences (default: ours)")
    command.add_argument("--seed", type=int, default=0)
    command.set_defaults(action=_prepare)


def _prepare(args) -> None:
    import json

    from mule_lib import data
    from mule_lib.data import records
    from mule_lib.prepare import PrepareError
    from mule_lib.prepare_sources import prepared_rwku, prepared_tofu
    from mule_lib.raw_formats import raw_records

    if args.out.exists():
        raise PrepareError(f"{args.out}: exists already; give another folder, or remove it first")
    common = {"source": args.source, "mmlu_source": args.mmlu, "refusals": args.refusals, "seed": args.seed}
    if args.benchmark == "rwku":
        made = prepared_rwku(args.subject, levels=args.levels, **common)
    else:
        made = prepared_tofu(args.subject, forget=args.forget, **common)
    data.save(args.out, made)
    records.write(args.out / data.RAW_FILE, raw_records(made.records, seed=args.seed))
    print(f"{args.out}: {json.dumps(made.counts())}")
