"""The command `mule judge-errors`: how often our judges err on published refusals and gold answers."""

import argparse
import csv
from pathlib import Path

from mule_lib.benchmarks.files import iterate
from mule_lib.benchmarks.schema import DataFileError


def add_to(commands) -> None:
    """Add the command to a parser's subcommands."""
    command = commands.add_parser("judge-errors", help="measure the refusal and disclosure judges on texts of your own")
    command.add_argument("--refusals", type=Path, nargs="*", default=[], help="text files (one a line) or CSV")
    command.add_argument("--answers", type=Path, nargs="*", default=[], help="files with a column of gold answers")
    command.add_argument("--column", default="answer")
    command.set_defaults(action=_command)


def read_refusals(path: str | Path) -> list[str]:
    """Refusals of a text file, one a line; of a CSV file, one a row after the header. Raises DataFileError."""
    path = Path(path)
    if not path.is_file():
        raise DataFileError(f"{path}: no such file")
    try:
        with path.open(encoding="utf-8", newline="") as file:
            # A sentence with a comma that nobody quoted is one refusal all the same.
            rows = (
                [", ".join(row) for row in csv.reader(file)][1:] if path.suffix == ".csv" else file.read().split("\n")
            )
    except UnicodeDecodeError as error:
        raise DataFileError(f"{path}: not UTF-8 ({error.reason}); save the file as UTF-8") from None
    texts = [row.strip() for row in rows if row.strip()]
    if not texts:
        raise DataFileError(f"{path}: holds no refusals")
    return texts


def read_answers(path: str | Path, *, column: str = "answer") -> list[str]:
    """Gold answers of one column of a JSON, JSON Lines, CSV or parquet file. Raises DataFileError with the row."""
    texts = []
    for row, values in iterate(path):
        if not isinstance(values.get(column), str) or not values[column].strip():
            raise row.error(column, f"should be a text that is not empty, is {values.get(column)!r}")
        texts.append(values[column])
    return texts


def _command(args: argparse.Namespace) -> None:
    from mule_lib.evaluate.judge_errors import judge_error_rates

    if not args.refusals and not args.answers:
        raise ValueError("give files by --refusals or --answers")
    refusals = {path.name: read_refusals(path) for path in args.refusals}
    answers = {path.name: read_answers(path, column=args.column) for path in args.answers}
    for row in judge_error_rates(refusals, answers):
        rate = "none to judge" if row["rate"] is None else f"{row['rate']:.1%}"
        print(f"{row['error']:36} {row['source']:44} {row['errors']:5} of {row['n']:5}  {rate}")
        for text in row["examples"]:
            print(f"    {text}")
