"""Raw text to chunks that an LLM can read: cleaned, cut between sentences, each with its place in the source."""

import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from mule_lib.data.published import RawText


@dataclass(frozen=True)
class Chunk:
    """`text` is `clean(source text)[start:end]`."""

    id: str
    text: str
    source: str
    title: str
    start: int
    end: int


_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f\u200b\ufeff\ud800-\udfff]")
_END = re.compile(r"[.!?…]+[\"'”’)\]]*(?=\s+[\"'“‘(\[]*[A-Z0-9À-Þ])|\n\s*\n")
_ABBREVIATION = re.compile(
    r"(?:\b(?:Mr|Mrs|Ms|Dr|Prof|St|Sr|Jr|Lt|Col|Gen|Capt|Sgt|Rev|vs|etc|cf|al|ca|approx|No|Vol|Fig|Eq|Inc|Ltd|Co|Corp"
    r"|Jan|Feb|Mar|Apr|Aug|Sept?|Oct|Nov|Dec|U\.S|U\.K|e\.g|i\.e)|\b[A-Z])\.$"
)
_PLAIN = str.maketrans("“”‘’–—‑\u00a0", "\"\"''--- ")  # one character for one, so that spans stay


def clean(text: str) -> str:
    """A text in NFC with plain line ends and no control characters; spans refer to this form."""
    return _CONTROL.sub("", unicodedata.normalize("NFC", text.replace("\r\n", "\n").replace("\r", "\n"))).strip()


def sentences(text: str) -> list[tuple[int, int]]:
    """Spans of the sentences of a text, without the white space between them; a blank line ends one as well."""
    cuts = [0]
    for match in _END.finditer(text):
        if not _ABBREVIATION.search(text[cuts[-1] : match.end()]):
            cuts.append(match.end())
    spans = [_trimmed(text, *cut) for cut in zip(cuts, [*cuts[1:], len(text)], strict=True)]
    return [(start, end) for start, end in spans if start < end]


def chunks(texts: Iterable[RawText], *, max_chars: int, min_chars: int = 200) -> list[Chunk]:
    """Whole sentences packed into chunks of at most `max_chars` characters, in order, never across two texts.

    A sentence longer than that (code, tables) is cut at a space; chunks and texts below `min_chars` are dropped.
    """
    made = []
    for unit in texts:
        text, packed = clean(unit.text), []
        for start, end in _pieces(text, max_chars):
            if packed and end - packed[-1][0] <= max_chars:
                start = packed.pop()[0]
            packed.append((start, end))
        for start, end in packed:
            if end - start >= min_chars:
                name = f"{unit.id}:{start}-{end}"
                made.append(Chunk(name, text[start:end], unit.source, unit.title, start, end))
    return made


def find_quote(quote: str, text: str) -> tuple[int, int] | None:
    """Span of a quote in a text, whatever the white space, quotation marks, dashes and case; None where there is none.

    Dots at the quote's ends are ignored: models put "..." where they left something out.
    """
    words = [re.escape(word.translate(_PLAIN)) for word in quote.strip(" .…\"'“”‘’").split()]
    match = re.search(r"\s+".join(words), text.translate(_PLAIN), re.I) if words else None
    return match.span() if match else None


def _pieces(text: str, most: int) -> Iterator[tuple[int, int]]:
    for start, end in sentences(text):
        while end - start > most:
            space = max(text.rfind(mark, start, start + most) for mark in " \n")
            cut = space if space > start else start + most
            yield start, cut
            start = cut + (cut == space)
        yield _trimmed(text, start, end)


def _trimmed(text: str, start: int, end: int) -> tuple[int, int]:
    piece = text[start:end]
    return start + len(piece) - len(piece.lstrip()), end - len(piece) + len(piece.rstrip())
