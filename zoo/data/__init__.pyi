from .batches import Window as Window
from .corpora import (
    Corpus as Corpus,
)
from .corpora import (
    load_corpus as load_corpus,
)
from .dataset import (
    Dataset as Dataset,
)
from .dataset import (
    read_dataset as read_dataset,
)
from .tokenizers import (
    BPETokenizer as BPETokenizer,
)
from .tokenizers import (
    ByteTokenizer as ByteTokenizer,
)
from .tokenizers import (
    CharTokenizer as CharTokenizer,
)
from .tokenizers import (
    Ids as Ids,
)
from .tokenizers import (
    LettersTokenizer as LettersTokenizer,
)
from .tokenizers import (
    Tokenizer as Tokenizer,
)
from .tokenizers import (
    read_tokenizer as read_tokenizer,
)
