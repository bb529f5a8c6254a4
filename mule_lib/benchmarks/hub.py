"""Datasets of the Hub at a pinned commit; what is gated, missing or out of reach is named before any download."""

import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mule_lib.data.files import Row


class DataAccessError(RuntimeError):
    """A dataset cannot be had; one line with its page and the command that gets it."""


@dataclass(frozen=True)
class HubData:
    """A dataset of the Hub: `repo` (or a local folder in the Hub's layout), and the commit its numbers hang on."""

    repo: str
    revision: str

    @property
    def page(self) -> str:
        """Address of the dataset's card at this commit."""
        return f"https://huggingface.co/datasets/{self.repo}/tree/{self.revision}"

    @property
    def command(self) -> str:
        """The shell command that downloads it to a folder which the loaders take."""
        where = f"data/{self.repo.rsplit('/', 1)[-1]}"
        return f"hf download {self.repo} --repo-type dataset --revision {self.revision} --local-dir {where}"

    @property
    def local(self) -> bool:
        """Whether `repo` is a folder here."""
        return Path(self.repo).is_dir()


def check_access(data: HubData, *, endpoint: str | None = None) -> bool:
    """True where the Hub lets us read this dataset, False where the Hub is out of reach (the cache may have it).

    Asks for permission only and downloads nothing. Raises DataAccessError for a gated, private or missing dataset.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import GatedRepoError, HTTPError, OfflineModeIsEnabled, RepositoryNotFoundError

    try:
        HfApi(endpoint=endpoint).auth_check(data.repo, repo_type="dataset")
    except GatedRepoError:
        raise DataAccessError(
            f"{data.repo}: gated; accept its terms at https://huggingface.co/datasets/{data.repo}, then run "
            f"`hf auth login` and start again (or `{data.command}` and give that folder)"
        ) from None
    except RepositoryNotFoundError:
        raise DataAccessError(
            f"{data.repo}: not on the Hub, or private; look at https://huggingface.co/datasets/{data.repo}, log in by "
            "`hf auth login` if it is yours"
        ) from None
    except (OfflineModeIsEnabled, HTTPError, OSError):
        return False
    return True


def rows(data: HubData, config: str, splits: Sequence[str]) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Each row of the first of `splits` that the dataset has, with its place.

    Raises DataAccessError before anything is downloaded where the dataset is gated or missing, or neither reachable
    nor in the cache, or has none of the splits.
    """
    tried = []
    for split in splits:
        found, others = _loaded(data, config, split, streaming=False)
        if found is not None:
            where = _where(data, config, split)
            return ((Row(where, number), values) for number, values in enumerate(found, 1))
        tried = others
    raise DataAccessError(f"{_where(data, config, splits[0])}: no such split; it has {tried}; see {data.page}")


def stream(data: HubData, config: str, split: str, *, seed: int, buffer: int) -> Iterator[tuple[Row, dict[str, Any]]]:
    """Rows of a large dataset without its download, shards shuffled by `seed`, rows within a buffer of that many."""
    found, others = _loaded(data, config, split, streaming=True)
    if found is None:
        raise DataAccessError(f"{_where(data, config, split)}: no such split; it has {others}; see {data.page}")
    shuffled = found.shuffle(seed=seed, buffer_size=buffer)
    return ((Row(_where(data, config, split), number), values) for number, values in enumerate(shuffled, 1))


def _where(data: HubData, config: str, split: str) -> str:
    return f"{data.repo}@{data.revision[:7]}/{config}/{split}"


def _loaded(data: HubData, config: str, split: str, *, streaming: bool) -> tuple[Any, str]:
    """The split, or None and what the dataset says of its splits."""
    import datasets

    reachable = data.local or check_access(data)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return (
                datasets.load_dataset(
                    data.repo,
                    config,
                    split=split,
                    revision=None if data.local else data.revision,
                    streaming=streaming,
                ),
                "",
            )
    except ValueError as error:
        reason = " ".join(str(error).split())
        if "split" in reason.lower() and "config" not in reason.lower():
            return None, reason
        raise _unavailable(data, config, reason, reachable) from None
    except OSError as error:
        raise _unavailable(data, config, " ".join(str(error).split()), reachable) from None


def _unavailable(data: HubData, config: str, reason: str, reachable: bool) -> DataAccessError:
    why = reason[:160] if reachable else "the Hub cannot be reached and the cache lacks it"
    return DataAccessError(
        f"{data.repo} ({config}): {why}; see {data.page}; where there is a network: `{data.command}`, then give that "
        "folder here"
    )
