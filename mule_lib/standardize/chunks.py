"""Raw text to chunks that an LLM can read: cleaned, cut between sentences, each with its place in the source."""

import re
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol


class Text(Protocol):
    """What is chunked: `benchmarks.raw.RawText` or anything with these four."""

    id: str
    text: str
    source: str
    title: str


@dataclass(frozen=True)
class Chunk:
    """`text` is `clean(source text)[start:end]`; `unit` is the id of the text it was cut from."""

    id: str
    text: str
    unit: str
    source: str
    title: str
    start: int
    end: int


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b\ufeff]")
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s+[\"'“‘(\[]*[A-Z0-9À-Þ])|\n\s*\n")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Lt|Col|Gen|Capt|Sgt|Rev|vs|etc|cf|al|ca|approx|No|Vol|Fig|Eq|Inc|Ltd|Co|Corp"
    r"|Jan|Feb|Mar|Apr|Aug|Sept?|Oct|Nov|Dec|U\.S|U\.K|e\.g|i\.e)|\b[A-Z])\.$"
)


def clean(text: str) -> str:
    """A text in NFC with plain line ends and no control characters; spans refer to this form.

    Characters are otherwise left alone, so that quotes can be found again. Loaders undo what is particular to a corpus.
    """
    return _CONTROL.sub("", unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))).strip()


def sentences(text: str) -> list[tuple[int, int]]:
    """Spans of the sentences of a text, without the white space between them; a blank line ends one as well."""
    spans, start = [], 0
    for match in _END.finditer(text):
        if _ABBREVIATION.search(text[start : match.end()]):
            continue
        spans.append((start, match.end()))
        start = match.end()
    spans.append((start, len(text)))
    return [trimmed for span in spans if (trimmed := _trim(text, *span))]


def chunks(texts: Iterable[Text], *, max_chars: int, min_chars: int = 200) -> list[Chunk]:
    """Whole sentences packed into chunks of at most `max_chars` characters, in order, never across two texts.

    A sentence longer than that (code, tables) is cut at a space. A last chunk below `min_chars` joins the one before
    where both fit, and is dropped otherwise, as are texts shorter than that. Raises ValueError for bad sizes.
    """
    if not 0 < min_chars <= max_chars:
        raise ValueError(f"min_chars={min_chars}, max_chars={max_chars}: should be 0 < min_chars <= max_chars")
    made = []
    for unit in texts:
        text = clean(unit.text)
        packed: list[tuple[int, int]] = []
        for start, end in _short(text, sentences(text), max_chars):
            if packed and end - packed[-1][0] <= max_chars:
                packed[-1] = (packed[-1][0], end)
            else:
                packed.append((start, end))
        made += [
            Chunk(f"{unit.id}:{start}-{end}", text[start:end], unit.id, unit.source, unit.title, start, end)
            for start, end in packed
            if end - start >= min_chars
        ]
    return made


def find_quote(quote: str, text: str) -> tuple[int, int] | None:
    """Span of a quote in a text, whatever the white space, quotation marks, dashes and case; None where there is none.

    Dots at the quote's ends are ignored: models put "..." where they left something out.
    """
    words = [re.escape(_plain(word)) for word in quote.strip(" .…\"'“”‘’").split()]
    if not words:
        return None
    match = re.search(r"\s+".join(words), _plain(text), re.I)
    return match.span() if match else None


def _plain(text: str) -> str:
    # One character for one, so that spans stay those of the original.
    return text.translate({ord(a): b for a, b in zip("“”‘’–—‑\u00a0", "\"\"''--- ", strict=True)})


def _trim(text: str, start: int, end: int) -> tuple[int, int] | None:
    piece = text[start:end]
    start += len(piece) - len(piece.lstrip())
    end -= len(piece) - len(piece.rstrip())
    return (start, end) if end > start else None


def _short(text: str, spans: Sequence[tuple[int, int]], most: int) -> Iterable[tuple[int, int]]:
    for start, end in spans:
        while end - start > most:
            space = max(text.rfind(" ", start, start + most), text.rfind("\n", start, start + most))
            cut = space if space > start else start + most
            yield start, cut
            start = cut + (1 if cut == space else 0)
        if piece := _trim(text, start, end):
            yield piece
