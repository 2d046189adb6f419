"""WikiText-2, the word-level form with its tokenisation undone.

text = WIKITEXT2.load()
text.test[:60]           # " = Robert Boulter =\n Robert Boulter is an English film ..."

The raw form, on which published perplexities are measured, is another text: this one has
<unk> for rare words, and its spaces are put back by rules.
"""

import re
from dataclasses import dataclass
from pathlib import Path

from eigenworks.dataset import DataError, development_file, has_development_files

_FILES = ("text/wikitext2_valid.txt", "text/wikitext2_test.txt")
_JOINED = {"@-@": "-", "@,@": ",", "@.@": "."}
_CLOSING = r"[.,:;!?%)\]]"


@dataclass(frozen=True)
class WikiText:
    """The validation and the test text."""

    valid: str
    test: str


@dataclass(frozen=True)
class WikiText2:
    """The data set. `EIGENWORKS_DATA` says where it lies."""

    name: str = "WikiText-2 (word level, validation and test)"
    how: str = (
        "text/wikitext2_valid.txt and text/wikitext2_test.txt in the folder that EIGENWORKS_DATA "
        "names: valid.txt and test.txt of word_language_model in pytorch/examples"
    )
    licence: str = "CC BY-SA 3.0"
    citation: str = "Merity et al., Pointer Sentinel Mixture Models, ICLR 2017"

    def available(self) -> bool:
        """Whether both files are there."""
        return has_development_files(*_FILES)

    def load(self) -> WikiText:
        """Both texts. Raises DataError if one is absent or not UTF-8."""
        return WikiText(*(_read(development_file(file)) for file in _FILES))


WIKITEXT2 = WikiText2()


def detokenize(text: str) -> str:
    """Removes the spaces that the word-level form puts around punctuation."""
    for apart, joined in _JOINED.items():
        text = text.replace(f" {apart} ", joined)
    text = re.sub(rf" (?={_CLOSING}(?:\s|$))", "", text)
    text = re.sub(r"([(\[]) ", r"\1", text)
    # Quotation marks come in pairs within a line: the first opens, the second closes.
    text = re.sub(r'" ([^"\n]*?) "', r'"\1"', text)
    text = re.sub(r" ('(?:s|t|re|ve|ll|d|m)\b)", r"\1", text)
    text = re.sub(r"s ' ", "s' ", text)
    text = re.sub(r"=(?: =)+", lambda run: run.group().replace(" ", ""), text)
    return re.sub(r" *\n *", "\n", text)


def _read(path: Path) -> str:
    try:
        return detokenize(path.read_text(encoding="utf-8"))
    except UnicodeDecodeError as error:
        raise DataError(f"{path}: not UTF-8 text: {error}") from error
