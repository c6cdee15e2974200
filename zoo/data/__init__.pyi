from .batches import Window as Window
from .corpora import (
    Corpus as Corpus,
    load_corpus as load_corpus,
)
from .dataset import (
    Dataset as Dataset,
    read_dataset as read_dataset,
)
from .tokenizer import (
    Ids as Ids,
    Tokenizer as Tokenizer,
    find_tokenizer as find_tokenizer,
    read_tokenizer as read_tokenizer,
)
from .tokenizers import (
    BPETokenizer as BPETokenizer,
    ByteTokenizer as ByteTokenizer,
    CharTokenizer as CharTokenizer,
    LettersTokenizer as LettersTokenizer,
)
