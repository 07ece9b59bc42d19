"""The accuracy of the shipped base's own majority of 32 samples, on all test questions: the bar for self-improvement.

python models/word-problems/majority.py      about 240 CPU-seconds; make.py measures the same on 600 questions
"""

import json
from pathlib import Path

import pyarrow.parquet as pq
import torch
from llama import Llama, Shape
from measure import ballots, majority
from safetensors.torch import load_file

FOLDER = Path(__file__).parent
SAMPLES, TEMPERATURE, BLOCK = 32, 0.7, 200


def main() -> None:
    torch.set_num_threads(1)
    vocab = json.loads((FOLDER / "model" / "tokenizer.json").read_text())["model"]["vocab"]
    model = Llama(Shape(len(vocab)))
    weights = load_file(FOLDER / "model" / "model.safetensors")
    model.load_state_dict({name.removeprefix("model."): tensor for name, tensor in weights.items()}, strict=False)
    model.eval()
    rows = pq.read_table(FOLDER / "test.parquet").to_pylist()
    right = 0
    for start in range(0, len(rows), BLOCK):
        block = rows[start : start + BLOCK]
        cast = ballots(model, vocab, [row["prompt"] for row in block], SAMPLES, TEMPERATURE, seed=1000 + start)
        right += sum(str(majority(b)[0]) == str(row["answer"]) for b, row in zip(cast, block, strict=True))
        print(json.dumps({"questions": start + len(block), "majority_of_32": right / (start + len(block))}), flush=True)


if __name__ == "__main__":
    main()
