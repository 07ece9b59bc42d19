"""The tokenizer of the embedded model: words of the task as single tokens, single digits, bytes for everything else.

Any text survives encoding and decoding: a piece outside the vocabulary falls apart into characters, and a character
outside it into its UTF-8 bytes (`<0xNN>`). One exception, as in most tokenizers: the literal texts `<pad>`, `<bos>` and
`<eos>` are the special tokens.
"""

import re
from collections.abc import Iterable
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast

PAD, BOS, EOS = 0, 1, 2
SPECIAL = ("<pad>", "<bos>", "<eos>")
MAX_TOKENS = 1024
PIECE = r" ?[A-Za-z]+|\. |\d|[\s\S]"
CHARACTERS = (*"0123456789", *"+-*/=.,:?", "\n", " ", ". ")
CHAT_TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}{{ message['content'] + eos_token }}"
    "{% else %}{{ message['content'] + '\n' }}{% endif %}"
    "{% endfor %}"
)


def pieces(text: str) -> list[str]:
    return re.findall(PIECE, text)


def vocabulary(texts: Iterable[str], words: Iterable[str] = ()) -> dict[str, int]:
    """Special tokens, characters, all pieces of `texts`, `words` with and without leading space, 256 bytes, padding."""
    seen = {piece for text in texts for piece in pieces(text)}
    seen.update(piece for word in words for piece in (word, f" {word}"))
    tokens = [*SPECIAL, *CHARACTERS, *sorted(seen - set(CHARACTERS)), *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += [f"<unused{index}>" for index in range(-len(tokens) % 8)]
    return {token: index for index, token in enumerate(tokens)}


def build(vocab: dict[str, int]) -> PreTrainedTokenizerFast:
    """A tokenizer for transformers and vLLM alike; plain text gets a leading `<bos>`, rendered chats have their own."""
    # ignore_merges takes a piece of the vocabulary as one token; without merges the rest fall apart into characters.
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[], byte_fallback=True, ignore_merges=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Split(Regex(PIECE), behavior="isolated")
    tokenizer.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Fuse()])
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in SPECIAL])
    tokenizer.post_processor = TemplateProcessing(single="<bos> $A", special_tokens=[("<bos>", BOS)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        pad_token=SPECIAL[PAD],
        bos_token=SPECIAL[BOS],
        eos_token=SPECIAL[EOS],
        clean_up_tokenization_spaces=False,
        model_max_length=MAX_TOKENS,
        chat_template=CHAT_TEMPLATE,
    )


def save(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write `tokenizer.json` and `tokenizer_config.json`, the chat template inside it, where older readers look."""
    tokenizer.save_pretrained(folder, save_jinja_files=False)
