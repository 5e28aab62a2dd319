"""Make what you would bring: a table of sentences, and a folder with a fine-tuned classifier of Hugging Face's form."""

import argparse
import csv
import random
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors, trainers
from torch import nn
from transformers import BertConfig, BertForSequenceClassification

ENDS = {"praise": ("lovely", "moving", "worth every minute"), "blame": ("dull", "empty", "a waste of time")}
BEGINNINGS = ("the film is", "her last book was", "this story, all told, is", "we thought the play was", "it was")
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
SIZES = {"hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 64}
Rows = list[tuple[str, str]]


def write_sentences(count: int) -> Rows:
    """Write reviews.csv, and return its rows: sentence, class."""
    rng, labels = random.Random(0), sorted(ENDS)
    rows = [(f"{rng.choice(BEGINNINGS)} {rng.choice(ENDS[labels[n % 2]])}", labels[n % 2]) for n in range(count)]
    with Path("reviews.csv").open("w", encoding="utf-8", newline="") as file:
        csv.writer(file).writerows([("review", "verdict"), *rows])
    return rows


def tokenizer_of(sentences: list[str]) -> Tokenizer:
    """Train a WordPiece tokenizer as BERT has it: lower case, padded by id 0, between [CLS] and [SEP]."""
    tokenizer = Tokenizer(models.WordPiece(unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer()
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.train_from_iterator(sentences, trainers.WordPieceTrainer(vocab_size=300, special_tokens=SPECIAL))
    tokenizer.post_processor = processors.BertProcessing(("[SEP]", 3), ("[CLS]", 2))
    tokenizer.enable_padding(pad_id=0, pad_token="[PAD]")
    return tokenizer


def fine_tune(rows: Rows, steps: int = 60) -> None:
    """Train a small BERT on the sentences as its owner would, and write teacher/."""
    torch.manual_seed(0)
    labels, tokenizer = sorted(ENDS), tokenizer_of([text for text, _ in rows])
    names = {"id2label": dict(enumerate(labels)), "label2id": {label: n for n, label in enumerate(labels)}}
    size = tokenizer.get_vocab_size()
    network = BertForSequenceClassification(BertConfig(vocab_size=size, max_position_embeddings=64, **SIZES, **names))
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    for step in range(steps):
        batch = [rows[(32 * step + n) % len(rows)] for n in range(32)]
        read = tokenizer.encode_batch([text for text, _ in batch])
        ids, mask = (torch.tensor([getattr(one, name) for one in read]) for name in ("ids", "attention_mask"))
        targets = torch.tensor([labels.index(label) for _, label in batch])
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(input_ids=ids, attention_mask=mask).logits, targets).backward()
        optimizer.step()
    network.save_pretrained("teacher")
    tokenizer.save("teacher/tokenizer.json")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Make sentences and a teacher in this folder.")
    parser.add_argument("--count", type=int, default=1000, help="sentences, of two classes")
    fine_tune(write_sentences(parser.parse_args().count))
